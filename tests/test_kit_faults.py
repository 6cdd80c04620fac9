"""The kit is proved: each planted fault is found by the check that names it, and a sound plugin passes them all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kit_plugin import plant

from harness.testing import CHECKS
from harness.testing.steps import _finite

RUN = """
import sys
import tomllib
from pathlib import Path
from harness.codec import dumps
from harness.plugins import load_registry
from harness.testing.bench import Settings
from harness.testing.run import check_offer, check_plugin
kind, name, limit, cache = sys.argv[1:]
registry = load_registry(only={"kit"})
settings = Settings(samples=("kit",), limit_s=float(limit), cache=Path(cache))
if kind == "plugin":
    found = check_plugin(registry, "kit", settings).results
else:
    found = check_offer(registry, kind, name, settings)
sys.__stdout__.write(dumps(list(found)).decode())
"""
OFFERS = {
    "workload": "kit-dense", "method": "kit-zero", "exporter": "kit-pack", "target": "kit-numpy", "bug": "kit-1",
    "plugin": "kit",
}  # fmt: skip


def check(tmp_path: Path, kind: str, fault: str, *, limit_s: float = 60) -> list[dict]:
    site = plant(tmp_path, fault)
    env = {**os.environ, "PYTHONPATH": str(site), "XDG_RUNTIME_DIR": str(tmp_path)}
    args = [sys.executable, "-P", "-c", RUN, kind, OFFERS[kind], str(limit_s), str(tmp_path / "cache")]
    done = subprocess.run(args, capture_output=True, text=True, env=env, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


FAULTS = tomllib.loads((Path(__file__).parent / "data" / "kit-faults.toml").read_text())
FAST = {
    "no change",
    "undeclared capability read",
    "wrong outputs",
    "hang",
    "splits that share items",
    "gap that is closed",
    "right answer by the runtime itself",
}


def params() -> list[Any]:
    return [pytest.param(name, id=name, marks=[] if name in FAST else [pytest.mark.slow]) for name in FAULTS]


def test_there_are_enough_of_them() -> None:
    assert len(FAULTS) >= 20
    assert {fault["check"] for fault in FAULTS.values()} <= set(CHECKS)
    assert set(FAULTS) >= FAST


def test_each_check_has_a_fault_that_it_finds() -> None:
    assert set(CHECKS) == {fault["check"] for fault in FAULTS.values()}


@pytest.mark.parametrize("name", params())
def test_a_fault_is_found_by_the_check_that_names_it(name: str, tmp_path: Path) -> None:
    fault = FAULTS[name]
    results = check(tmp_path, fault["kind"], fault["code"], limit_s=6 if name == "hang" else 60)
    failed = [result for result in results if result["state"] == "failed"]
    assert fault["check"] in {result["check"] for result in failed}, failed
    assert all(result["expected"] and result["seen"] and result["fix"] for result in failed)


@pytest.mark.parametrize("kind", ["method", "target", pytest.param("plugin", marks=pytest.mark.slow)])
def test_a_sound_plugin_passes(kind: str, tmp_path: Path) -> None:
    results = check(tmp_path, kind, "")
    assert [result for result in results if result["state"] in {"failed", "skipped"}] == []
    assert len(results) > 12


def test_a_declared_gap_is_no_failure(tmp_path: Path) -> None:
    fault, gap = FAULTS["no change"]["code"], "METHOD['known_gaps'] = {'effect': 'to be mended'}"
    states = {result["check"]: result["state"] for result in check(tmp_path, "method", f"{fault}\n{gap}")}
    assert states["effect"] == "gap"
    assert "failed" not in states.values()


@pytest.mark.parametrize(
    ("metric", "number"),
    [(0.5, 0.5), (np.float32(0.5), 0.5), (np.array(2.0), 2.0), (float("nan"), None), (None, None), ([0.5, 1.0], None)],
)
def test_a_metric_is_what_is_a_finite_number_however_it_is_written(metric: Any, number: float | None) -> None:
    assert _finite(metric) == number
