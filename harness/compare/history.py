"""One cell over many runs, and where it changed.

A change point is the split with the largest standardised Mann-Whitney statistic (after Pettitt 1979), judged by
permutation; the parts on both sides are searched again. A step smaller than the margin is
not named, however sure it is.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.compare.judge import margin_of
from harness.compare.sides import label
from harness.errors import PlanError
from harness.store import Run
from harness.types import Interval, Record

if TYPE_CHECKING:
    from numpy.typing import NDArray

SHUFFLES = 2_000
LEAST = 3  # runs on each side of a change
ALPHA = 0.05


@dataclass(frozen=True)
class Point:
    """The cell in one run.

    Attributes:
        value: Of the metric: t(cell) / t(anchor) for "ratio", nanoseconds for "p50".
        software: What differs where a step is the software's: runtime and version.
    """

    run: str
    finished_utc: str
    value: Interval
    noise: str
    software: str


@dataclass(frozen=True)
class Step:
    """A change point.

    Attributes:
        at: The first run after it.
        change: Median after over median before, less 1.
        p_value: Of the permutation test.
    """

    at: str
    change: float
    p_value: float


@dataclass(frozen=True)
class Series:
    """A cell on one unit, oldest first."""

    unit: str
    name: str
    cell_id: str
    metric: str
    points: tuple[Point, ...]
    steps: tuple[Step, ...]


def history(runs: Sequence[Run], cell: str, metric: str = "ratio") -> list[Series]:
    """Return a cell's series on every unit.

    Args:
        runs: All runs; a copy of one counts once.
        cell: A cell_id or its beginning.
        metric: "ratio" to the anchor, from which the host's drift cancels, or "p50".

    Raises:
        PlanError: No record has this cell_id, or several cells begin so.
    """
    once = {(run.unit, run.path.name): run for run in runs}.values()
    found = [(run, record) for run in once for record in run.records if record.cell_id.startswith(cell)]
    ids = sorted({record.cell_id for _run, record in found})
    if len(ids) != 1:
        what = f"begins {len(ids)} cells: {', '.join(ids[:5])}" if ids else "is no cell of these runs"
        raise PlanError(f"{cell!r} {what}", hint="a cell_id is the name of a file in cells/, or a row of --json")
    units = sorted({run.unit for run, _record in found})
    return [_series(unit, [(run, record) for run, record in found if run.unit == unit], metric) for unit in units]


def _series(unit: str, found: Sequence[tuple[Run, Record]], metric: str) -> Series:
    record = found[0][1]
    points = [point for run, item in found if (point := _point(run, item, metric)) is not None]
    points.sort(key=lambda point: point.finished_utc)
    options = record.cell.options
    names = f"{label(record, 'workload')} {label(record, 'method')} on {label(record, 'target')}"
    steps = change_points([math.log(point.value.point) for point in points], math.log1p(margin_of(record.profile)))
    return Series(
        unit=unit,
        name=f"{names} · {options.threads} thr · batch {options.batch} · {record.profile}",
        cell_id=record.cell_id,
        metric=metric,
        points=tuple(points),
        steps=tuple(Step(points[at].run, math.expm1(change), p) for at, change, p in steps),
    )


def _point(run: Run, record: Record, metric: str) -> Point | None:
    latency = record.latency
    if record.status != "ok" or latency is None:
        return None
    value = latency.ratio if metric == "ratio" else latency.p50_ns
    if value is None or value.point <= 0:
        return None
    return Point(run.path.name, record.finished_utc, value, latency.noise, record.provenance.get("runtime", ""))


def change_points(values: Sequence[float], margin: float) -> list[tuple[int, float, float]]:
    """Return (index of the first value after, step of the medians, p) for each change, in order.

    Args:
        values: Logarithms, oldest first.
        margin: Smaller steps are not named.
    """
    found = sorted(_search(list(values), 0, margin))
    ends = [0, *(at for at, _step, _p in found), len(values)]
    middles = [statistics.median(values[start:end]) for start, end in itertools.pairwise(ends)] if found else []
    steps = (after - before for before, after in itertools.pairwise(middles))
    return [(at, step, p_value) for (at, _step, p_value), step in zip(found, steps, strict=True)]


def _search(values: Sequence[float], offset: int, margin: float) -> list[tuple[int, float, float]]:
    if len(values) < 2 * LEAST:
        return []
    data = np.asarray(values)
    statistic, at = _pettitt(data)
    chance = np.random.default_rng(0)
    beaten = sum(_pettitt(chance.permutation(data))[0] >= statistic for _ in range(SHUFFLES))
    p_value = (beaten + 1) / (SHUFFLES + 1)
    step = statistics.median(values[at:]) - statistics.median(values[:at])
    if p_value > ALPHA or abs(step) < margin:
        return []
    before, after = _search(values[:at], offset, margin), _search(values[at:], offset + at, margin)
    return [*before, (offset + at, step, p_value), *after]


def _pettitt(data: NDArray[Any]) -> tuple[float, int]:
    """Return the largest |U| / sqrt(n1 n2) over all splits, and the index of the first value after it."""
    signs = np.sign(data[None, :] - data[:, None])
    splits = range(LEAST, len(data) - LEAST + 1)
    sums = [abs(float(signs[:at, at:].sum())) / math.sqrt(at * (len(data) - at)) for at in splits]
    best = int(np.argmax(sums))
    return sums[best], splits[best]
