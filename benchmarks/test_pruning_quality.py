"""What pruning costs in quality: every criterion beside chance at equal MACs, and half the channels with int8."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import workload_jobs
from scipy import stats

from harness_pruning.channels import prune
from harness_pruning.importance import gather
from harness_torch import call, example_inputs, fine_tune, load, macs, seed_everything

SEEDS = range(8)
CRITERIA = ("l1", "l2", "linf", "snr", "gradient", "taylor")
DEFAULT = "l2"
WORKLOADS = (("digits-resnet8", {}, 1), ("glyphs-resnet8", {"items": 6000}, 4))  # the last: every n-th test item
pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


def _accuracy(module, test, every: int) -> float:
    outputs = call(module, {name: value[::every] for name, value in test.inputs.items()})["output0"]
    return 100 * float((outputs.argmax(1) == test.labels[::every]).mean())


def _seed(
    name: str, asked: dict[str, int], every: int, seed: int, folder: Path
) -> tuple[float, dict[str, float], set[int]]:
    """Train one model, prune it by every criterion, and return accuracies on the test split in percent."""
    work = workload_jobs.workload(name, **asked)
    job = workload_jobs.job(work, folder, seed=seed)
    dense = work.spec.fit(work.params, job)
    test = work.spec.split(work.params, "test")
    found, counted = {}, set()
    for criterion in ("random", *CRITERIA):
        module, inputs = load(dense), example_inputs(job, 2)
        seed_everything(seed)
        prune(module, inputs, 0.5, evidence=gather(module, criterion, job))
        fine_tune(module, job, epochs=1, lr=3e-3)
        counted.add(macs(module, inputs))
        found[criterion] = _accuracy(module, test, every)
    return _accuracy(load(dense), test, every), found, counted


@pytest.mark.parametrize(
    ("name", "asked", "every"), WORKLOADS, ids=lambda value: value if isinstance(value, str) else ""
)
def test_criteria_beside_chance_at_equal_macs(name, asked, every, tmp_path):
    """Paired over models trained from different seeds: the same model, the same shapes, one epoch of fine-tuning."""
    rows = []
    for seed in SEEDS:
        dense, found, counted = _seed(name, asked, every, seed, tmp_path / str(seed))
        assert len(counted) == 1, "criteria are compared at unequal MACs"
        rows.append(found)
        print(f"seed {seed}: dense {dense:.2f}", {key: round(value, 2) for key, value in found.items()}, flush=True)
    intervals = {name: _paired([row[name] - row["random"] for row in rows]) for name in CRITERIA}
    for name, (mean, low, high) in intervals.items():
        verdict = "beats random" if low > 0 else "worse than random" if high < 0 else "not told apart from random"
        print(f"{name:9} {mean:+.2f} points [{low:+.2f}, {high:+.2f}]: {verdict}", flush=True)
    assert intervals[DEFAULT][1] > 0, "the criterion that users get without asking does not beat random"


def _paired(differences: list[float]) -> tuple[float, float, float]:
    """Mean and 95 % t interval over seeds."""
    values = np.array(differences)
    half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return float(values.mean()), float(values.mean() - half), float(values.mean() + half)


def test_half_the_channels_with_int8(tmp_path):
    """At most 2 points below fp32, and faster than int8 alone, by the bounds of the paired intervals.

    The network has 64, 128 and 256 channels: where the CPU has AMX, int8 convolutions of LiteRT are computed in tiles
    of 64 channels, and half of a narrower network takes as long as the whole.
    """
    command = [
        sys.executable, "-m", "harness", "bench", "--workloads", "glyphs-resnet8:width=4", "--targets",
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
