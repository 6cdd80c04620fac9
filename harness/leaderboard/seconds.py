"""Where the time of a run went."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

    from harness.store import Run

STAGES = ("fit", "compress", "export", "lower", "memory", "accuracy", "placement", "latency")
_MODEL = frozenset(STAGES[:3])  # of the steps in a lineage


def where_time_went(run: Run) -> pd.DataFrame:
    """Return the seconds of each stage, its share of all, and how many cells took part.

    Columns: stage, seconds, share (0..1), cells. A build step that cells share counts once; latency is the time of
    the launch-sets, link sets included.
    """
    import pandas as pd  # slow to import

    rows = [(stage, _seconds(run, stage), _cells(run, stage)) for stage in STAGES]
    known = [item for item in rows if item[1] > 0]
    total = sum(seconds for _stage, seconds, _count in known)
    data = [(stage, seconds, seconds / total, count) for stage, seconds, count in known]
    return pd.DataFrame(data, columns=["stage", "seconds", "share", "cells"])


def _seconds(run: Run, stage: str) -> float:
    if stage == "latency" and run.sets:
        return sum(item.seconds for item in run.sets.values())
    if stage in _MODEL:
        return sum(_steps(run, stage))
    taken = [record.seconds.get(stage, 0.0) for record in run.records]
    # Records of cells that share an artifact carry the very same float; two steps never take the same time to the bit.
    return sum(set(taken)) if stage == "lower" else sum(taken)


def _steps(run: Run, stage: str) -> list[float]:
    """Return the seconds of each step of a stage; pipelines that begin alike share the steps that they begin with."""
    found: dict[tuple[object, ...], float] = {}
    for record in run.records:
        key: tuple[object, ...] = (record.labels.get("workload"),)
        for step in record.lineage:
            key = (*key, step.stage, step.name, step.seconds)
            if step.stage == stage:
                found[key] = step.seconds
    return list(found.values())


def _cells(run: Run, stage: str) -> int:
    return sum(record.seconds.get(stage, 0.0) > 0 for record in run.records)
