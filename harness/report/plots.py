"""What the plots draw, as plain JSON: points with their intervals, samples in their order, quantiles."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from harness.leaderboard.digits import unknown
from harness.leaderboard.escape import visible

if TYPE_CHECKING:
    from harness.store import Run
    from harness.types import Launch, Record

MOST_SAMPLES = 1200  # of a cell that are drawn one by one; more make no better picture and a larger file
QUANTILES = 101
AXES = (  # column, words, divisor, unit, the lower the better; None where the metric decides
    ("p50", "latency, median", 1e6, "ms", True),
    ("speedup", "speed-up over the target's float anchor", 1.0, "\N{MULTIPLICATION SIGN}", False),
    ("cross_speedup", "speed-up across targets", 1.0, "\N{MULTIPLICATION SIGN}", False),
    ("peak_memory_bytes", "peak memory", 2.0**20, "MiB", True),
    ("artifact_bytes", "artifact size", 2.0**10, "KiB", True),
    ("stored_bytes", "stored size", 2.0**10, "KiB", True),
    ("energy", "energy per inference", 1e-3, "mJ", True),
    ("quality", "quality", 1.0, "", None),
    ("retained", "quality kept of the float anchor's", 1.0, "%", False),
)
_ENDS = {"p50": "_ns", "energy": "_j"}


def point(row: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Return a row's figures on every axis that it has, as [value, low, high]."""
    found: dict[str, Any] = {
        "key": key,
        "method": visible(str(row["method"])),
        "target": visible(str(row["target"])),
        "front": bool(row.get("pareto")) if not unknown(row.get("pareto")) else False,
        "noise": row["noise"],
        "anchor": bool(row["is_anchor"]),
    }
    for name, _words, scale, _unit, _lower in AXES:
        end = _ENDS.get(name, "")
        value = row.get(f"{name}{end}")
        if not unknown(value):
            ends = (row.get(f"{name}_low{end}"), row.get(f"{name}_high{end}"))
            found[name] = [_number(item, scale) for item in (value, *ends)]
    return found


def _number(value: Any, scale: float) -> float | None:
    return None if unknown(value) else float(f"{float(value) / scale:.6g}")


def samples(record: Record, run: Run) -> dict[str, Any] | None:
    """Return a cell's latencies in ms: thinned in their order, and the quantiles of all of them.

    Samples of discarded launches are drawn, and marked; they do not count in the quantiles.
    """
    import numpy as np  # only where a report is made

    launches = [item for made in run.sets_of(record) for item in made.launches if item.cell_id == record.cell_id]
    taken = [_samples(launch) for launch in launches]
    total = sum(map(len, taken))
    counted = [value for launch, own in zip(launches, taken, strict=True) if not launch.discarded for value in own]
    if not counted:
        return None
    step = max(1, -(-total // MOST_SAMPLES))
    spread = np.quantile(counted, np.linspace(0, 1, QUANTILES)) / 1e6
    return {
        "total": total,
        "step": step,
        "quantiles": [float(f"{value:.5g}") for value in spread],
        "launches": [
            {
                "verdict": "discarded" if launch.discarded else launch.noise.verdict,
                "set": launch.set_index,
                "ms": [float(f"{value / 1e6:.5g}") for value in own[::step]],
            }
            for launch, own in zip(launches, taken, strict=True)
        ],
    }


def _samples(launch: Launch) -> Sequence[int]:
    return [ns for batch in launch.batches for ns in batch.ns]


def safe_json(data: object) -> str:
    """Return JSON that can stand inside a script element: nothing in it can end the element or the line."""
    text = json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
