"""``--python TARGET=PATH``: an environment of the core and one extra, without torch, beside the one that trains."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

pytestmark = pytest.mark.slow


def closure(extra: str) -> set[str]:
    """Return all that ``pip install compression-harness[extra]`` would bring."""
    todo, seen = [("compression-harness", extra)], set[tuple[str, str]]()
    while todo:
        name, chosen = todo.pop()
        if (name, chosen) in seen:
            continue
        seen.add((name, chosen))
        for line in importlib.metadata.requires(name) or ():
            wanted = Requirement(line)
            if wanted.marker is None or any(wanted.marker.evaluate({"extra": item}) for item in {"", chosen}):
                todo += [(canonicalize_name(wanted.name), item) for item in wanted.extras or {""}]
    return {name for name, _ in seen}


def environment(folder: Path, names: set[str]) -> Path:
    """Make a virtual environment that holds just these distributions, as links to those installed here."""
    venv.create(folder, with_pip=False)
    (site,) = folder.glob("lib/python*/site-packages")
    for name in names:
        found = importlib.metadata.distribution(name)
        for top in {file.parts[0] for file in found.files or ()} - {"..", "__pycache__"}:
            if not (site / top).exists():
                (site / top).symlink_to(Path(str(found.locate_file(top))).resolve())
    return folder / "bin" / "python"


def test_openvino_lowers_and_is_measured_in_an_environment_without_torch(tmp_path: Path) -> None:
    for name in ("openvino", "nncf", "torch", "onnxscript"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed")
    python = environment(tmp_path / "only", closure("openvino"))
    state = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    lacking = subprocess.run([python, "-c", "import torch"], capture_output=True, text=True, check=False)
    assert "No module named 'torch'" in lacking.stderr
    done = subprocess.run(
        [sys.executable, "-m", "harness", "bench", "--workloads", "diabetes-mlp", "--methods", "baseline int8",
         "--targets", "openvino", "--python", f"openvino={python}", "--out", tmp_path / "out"],
        env=state, capture_output=True, text=True, check=False, timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    records = [json.loads(path.read_text()) for path in (tmp_path / "out").glob("*/*/cells/*.json")]
    assert {(record["labels"]["method"], record["status"]) for record in records} == {
        ("baseline", "ok"),
        ("int8", "ok"),
    }
    for record in records:
        assert record["latency"]["p50_ns"]["point"] > 0
        assert record["quality"]["items"] > 0
    assert str(python) in (next((tmp_path / "out").glob("*/*/run.json"))).read_text()


def test_a_prebuilt_tflite_runs_and_is_quantized_without_the_converter(tmp_path: Path) -> None:
    if importlib.util.find_spec("ai_edge_litert") is None:
        pytest.skip("ai-edge-litert is not installed")
    import numpy as np
    from tflite_files import separable

    python = environment(tmp_path / "only", closure("tflite"))
    for name in ("torch", "litert_torch"):
        lacking = subprocess.run([python, "-c", f"import {name}"], capture_output=True, text=True, check=False)
        assert f"No module named '{name}'" in lacking.stderr
    model = separable(tmp_path / "m.tflite", 0.0)
    np.savez(tmp_path / "d.npz", x=np.random.default_rng(0).random((24, 16, 16, 3), dtype=np.float32))
    done = subprocess.run(
        [python, "-m", "harness", "bench", "--model", model, "--data", tmp_path / "d.npz", "--methods", "baseline int8",
         "--targets", "tflite", "--out", tmp_path / "out", "--format", "json"],
        env={**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")},
        capture_output=True, text=True, check=False, timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    rows = {row["method"]: row for row in json.loads(done.stdout)["rows"]}
    assert {name: (row["status"], row["precision"]) for name, row in rows.items()} == {
        "baseline": ("ok", "float32"),
        "int8": ("ok", "int8"),
    }
    assert rows["int8"]["coverage_macs"] == 1
    assert rows["int8"]["artifact_bytes"] < rows["baseline"]["artifact_bytes"]
