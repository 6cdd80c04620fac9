"""Methods over several workloads: geometric means of ratios to the anchor, never means of ranks (MEASUREMENT 1.7)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness import stats
from harness.leaderboard.digits import unknown

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

FEWEST_TASKS = 6  # workloads: as with launches, fewer cannot carry a 95 % statement
RESAMPLES = 10_000
_WITHIN = ["host", "kind", "target", "threads", "batch"]


@dataclass(frozen=True)
class Mean:
    """A geometric mean over workloads.

    Attributes:
        low, high: Of its 95 % interval, by bootstrap over workloads; ``None`` under ``FEWEST_TASKS``.
        least, most: The smallest and the largest ratio.
    """

    point: float
    low: float | None
    high: float | None
    least: float
    most: float


@dataclass(frozen=True)
class Overall:
    """One method on one target over the workloads of its group.

    Attributes:
        of: How many workloads the group has; only methods with all of them are ranked together.
        missing: Workloads where it has no figure.
        smaller: The anchor's artifact / this one's.
        passes: Workloads on which it keeps 99 % of the float anchor's quality, by the point estimate; ``judged``
            is on how many that is known.
        rank: Ranks that the evidence allows; ``None`` where workloads are missing or too few.
    """

    host: str
    kind: str
    target: str
    threads: int
    batch: int
    method: str
    workloads: int
    of: int
    missing: tuple[str, ...]
    speedup: Mean
    smaller: Mean | None
    memory: Mean | None
    least_retained: float | None
    passes: int
    judged: int
    rank: tuple[int, int] | None = None


def geometric_mean(ratios: Sequence[float], seed: int = 0) -> Mean:
    """Return the geometric mean of ratios over tasks, with its percentile bootstrap interval over tasks.

    Args:
        ratios: One for each task, above 0.
        seed: Of the resampling.
    """
    import numpy as np  # only where a board is made

    logs = np.log(np.asarray(ratios, dtype=np.float64))
    low = high = None
    if len(logs) >= FEWEST_TASKS:
        rows = np.random.default_rng(seed).integers(0, len(logs), (RESAMPLES, len(logs)))
        low, high = (float(np.exp(value)) for value in np.quantile(logs[rows].mean(axis=1), [0.025, 0.975]))
    return Mean(float(np.exp(logs.mean())), low, high, float(np.exp(logs.min())), float(np.exp(logs.max())))


def overall(frame: pd.DataFrame) -> list[Overall]:
    """Return one line for each method, target and options, the fastest of each target first.

    Ranked rows only; each workload counts once. Ratios are to the anchor of the target, so lines of two targets
    are not in one order.
    """
    ranked = frame[frame["ranked"].fillna(value=False) & frame["speedup"].notna()]
    found: list[Overall] = []
    for key, rows in ranked.groupby(_WITHIN, sort=True, dropna=False):
        tasks = sorted(set(rows["workload"]))
        lines = [_line(key, str(method), same, tasks, rows) for method, same in rows.groupby("method", sort=True)]
        found += sorted(_with_ranks(lines, rows, tasks), key=lambda line: -line.speedup.point)
    return found


def _line(key: Any, method: str, rows: pd.DataFrame, tasks: Sequence[str], group: pd.DataFrame) -> Overall:
    host, kind, target, threads, batch = key
    here = set(rows["workload"])
    passed = [value for value in rows["pass_99"] if not unknown(value)]
    kept = rows["retained"].dropna()
    return Overall(
        host, kind, target, int(threads), int(batch), method,
        workloads=len(here),
        of=len(tasks),
        missing=tuple(task for task in tasks if task not in here),
        speedup=geometric_mean(_by_task(rows, "speedup")),
        smaller=_mean(_by_task(rows, "compression")),
        memory=_mean(_memory_ratios(rows, group)),
        least_retained=None if kept.empty else float(kept.min()),
        passes=sum(bool(value) for value in passed),
        judged=len(passed),
    )  # fmt: skip


def _by_task(rows: pd.DataFrame, column: str) -> list[float]:
    return [float(value) for value in rows.sort_values("workload")[column].dropna()]


def _mean(ratios: Sequence[float]) -> Mean | None:
    return geometric_mean(ratios) if ratios else None


def _memory_ratios(rows: pd.DataFrame, group: pd.DataFrame) -> list[float]:
    """Return the anchor's peak memory / this one's, by workload."""
    anchors: Mapping[str, Any] = {
        item["cell_id"]: item["peak_memory_bytes"]
        for item in group[group["is_anchor"].fillna(value=False)].to_dict("records")
    }
    pairs = [
        (anchors.get(item["anchor_id"]), item["peak_memory_bytes"])
        for item in rows.sort_values("workload").to_dict("records")
    ]
    return [float(theirs / ours) for theirs, ours in pairs if not unknown(theirs) and not unknown(ours) and ours]


def _with_ranks(lines: Sequence[Overall], rows: pd.DataFrame, tasks: Sequence[str]) -> Iterable[Overall]:
    """Rank the methods that have every workload, with workloads as the replicates."""
    from dataclasses import replace

    import numpy as np  # as above

    whole = [line for line in lines if not line.missing]
    if len(tasks) < FEWEST_TASKS or len(whole) < 2:
        return lines
    logs = np.column_stack([-np.log(_by_task(rows[rows["method"] == line.method], "speedup")) for line in whole])
    ranks = dict(zip([line.method for line in whole], stats.rank_sets(stats.certainly_less(logs)), strict=True))
    return [replace(line, rank=ranks.get(line.method)) for line in lines]
