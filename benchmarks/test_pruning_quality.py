"""What pruning costs in quality: every criterion beside chance at equal MACs, and half the channels with int8."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import workload_jobs
from scipy import stats

import harness_pruning
from harness_torch import call, example_inputs, load, macs

SEEDS = range(5)
CRITERIA = ("l1", "l2", "linf", "snr", "gradient", "taylor")
BETTER = ("l1", "l2", "linf", "taylor")  # than chance, as measured; of the others the table says how they fare
WORKLOAD = {"items": 3000, "epochs": 4}
pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


def _hits(module, test) -> np.ndarray:
    outputs = call(module, test.inputs)["output0"]
    return (outputs.argmax(1) == test.labels).astype(float)


def _seed(seed: int, spec, folder: Path) -> tuple[float, dict[str, float], set[int]]:
    """Train one model, prune it by every criterion, and return accuracies on the test split in percent."""
    work = workload_jobs.workload("glyphs-resnet8", **WORKLOAD)
    hardware = dataclasses.make_dataclass("Hardware", ["channel_multiple"])(1)
    job = dataclasses.replace(workload_jobs.job(work, folder / "fit", seed=seed), hardware=hardware)
    dense = work.spec.fit(work.params, job)
    test = work.spec.split(work.params, "test")
    found, counted = {}, set()
    for name in ("random", *CRITERIA):
        out = folder / name
        out.mkdir()
        params = spec.params(ratio=0.5, importance=name, epochs=1)
        small = load(spec.compress(dense, params, dataclasses.replace(job, out=out, reference=dense)))
        counted.add(macs(small, example_inputs(job)))
        found[name] = 100 * float(_hits(small, test).mean())
    return 100 * float(_hits(load(dense), test).mean()), found, counted


def test_criteria_beside_chance_at_equal_macs(tmp_path):
    """Paired over models trained from different seeds: the same model, the same shapes, one epoch of fine-tuning."""
    spec = next(spec for spec in harness_pruning.harness_methods() if spec.name == "channel-pruning")
    rows = []
    for seed in SEEDS:
        folder = tmp_path / str(seed)
        folder.mkdir()
        dense, found, counted = _seed(seed, spec, folder)
        assert len(counted) == 1, "criteria are compared at unequal MACs"
        rows.append(found)
        print(f"seed {seed}: dense {dense:.2f}", {name: round(value, 2) for name, value in found.items()}, flush=True)
    intervals = {name: _paired([row[name] - row["random"] for row in rows]) for name in CRITERIA}
    for name, (mean, low, high) in intervals.items():
        verdict = "beats random" if low > 0 else "worse than random" if high < 0 else "not told apart from random"
        print(f"{name:9} {mean:+.2f} points [{low:+.2f}, {high:+.2f}]: {verdict}", flush=True)
    for name in BETTER:
        assert intervals[name][1] > 0, f"{name} does not beat random"


def _paired(differences: list[float]) -> tuple[float, float, float]:
    """Mean and 95 % t interval over seeds."""
    values = np.array(differences)
    half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return float(values.mean()), float(values.mean() - half), float(values.mean() + half)


def test_half_the_channels_with_int8(tmp_path):
    """At most 2 points below fp32, and faster than int8 alone, by the bounds of the paired intervals."""
    command = [
        sys.executable, "-m", "harness", "bench", "--workloads", "glyphs-resnet8", "--targets",
        "onnxruntime,openvino,tflite", "--methods", "int8,channel-pruning:ratio=0.5+int8", "--out", str(tmp_path),
    ]  # fmt: skip
    subprocess.run(command, check=True)
    cells = [json.loads(path.read_text()) for path in tmp_path.glob("*/*/cells/*.json")]
    found = {(cell["labels"]["target"], cell["labels"]["method"]): cell for cell in cells}
    for target in ("onnxruntime", "openvino", "tflite"):
        plain, both = (
            found[target, "int8"],
            next(cell for (where, name), cell in found.items() if where == target and name.endswith("+int8")),
        )
        drop = both["quality"]["difference"]
        ratios = {name: cell["latency"]["ratio"] for name, cell in (("int8", plain), ("both", both))}
        print(target, "difference", drop, "ratios", ratios, flush=True)
        assert drop["low"] >= -0.02, f"{target}: may lose more than 2 points"
        assert ratios["both"]["high"] < ratios["int8"]["low"], f"{target}: not faster than int8 alone"
