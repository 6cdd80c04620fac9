"""What the raw samples say about B against A: which of them are comparable, and the bounds that they carry."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from harness.compare.sides import Side
from harness.compare.values import Basis
from harness.stats.order import LEVEL, quantile
from harness.stats.ratio import Reduce, batch_low, batch_median, set_log_ratio
from harness.stats.shift import Bounds, median_bounds, shift, shift_bounds
from harness.types import LaunchSet, Record

SHARED = 6  # launch-sets that two cells of one run must share to be paired; they meet through their anchor else


@dataclass(frozen=True)
class Logs:
    """Logarithms of time ratios, one per replicate.

    Attributes:
        second: log(B / A) per launch-set where ``first`` is empty (paired); else log(B / yardstick).
        first: log(A / yardstick), measured apart.
    """

    second: tuple[float, ...]
    first: tuple[float, ...] = ()

    @property
    def point(self) -> float:
        """The estimate of log(B / A)."""
        return shift(self.first, self.second) if self.first else statistics.median(self.second)

    def interval(self) -> tuple[float, Bounds]:
        """Return log(B / A) of this cell alone with its exact bounds: Mann-Whitney's, of pairs the sign test's."""
        alpha = (1 - LEVEL) / 2
        return self.point, shift_bounds(self.first, self.second, alpha) if self.first else median_bounds(
            self.second, alpha
        )

    @property
    def replicates(self) -> str:
        """How many there are, in words."""
        if self.first:
            return f"{len(self.first)} and {len(self.second)} launch-sets"
        return f"{len(self.second)} launch-sets"


@dataclass(frozen=True)
class Evidence:
    """Times of one cell on both sides.

    Attributes:
        medians: From medians of batches: the estimate.
        lows: From their p10: the robust second opinion (MEASUREMENT 1.6).
        yardstick: Both sides are the anchor that the others are measured by.
        drift: log(B / A) of the anchors' absolute medians: what the host did between the runs.
        block: Cells of one block were measured in the same launch-sets.
    """

    basis: Basis
    medians: Logs
    lows: Logs
    yardstick: bool = False
    drift: float | None = None
    block: str = ""


def time_evidence(a: Side, first: Record, b: Side, second: Record, *, absolute: bool = False) -> Evidence | None:
    """Return how the times of two records compare; ``None`` where no sample is left.

    Two cells of one launch-set are paired by round. Cells of two runs on one machine are each taken against the
    anchor of their run, where both anchors are the same measurement (equal ``inputs_sha256``): what the host did in
    between cancels. Targets of one run meet through its link sets. What is left compares absolute launch medians.
    """
    found = None
    if not absolute:
        found = _same_sets(a, first, b, second) or _linked(a, first, b, second) or _anchored(a, first, b, second)
    found = found or _absolute(a, first, b, second)
    groups = sorted({name.rpartition("-")[0] for record in (first, second) for name in record.sets})
    return replace(found, block=" ".join(groups)) if found else None


def _same_run(a: Side, b: Side) -> bool:
    return a.run.path.resolve() == b.run.path.resolve()


def _set_logs(sets: Sequence[LaunchSet], cell: str, other: str, reduce: Reduce) -> tuple[float, ...]:
    found = (set_log_ratio(item, cell, other, reduce) for item in sorted(sets, key=lambda item: item.index))
    return tuple(value for value in found if value is not None)


def _both(make: Callable[[Reduce], Logs | None], basis: Basis) -> Evidence | None:
    medians, lows = make(batch_median), make(batch_low)
    return Evidence(basis, medians, lows) if medians and lows else None


def _same_sets(a: Side, first: Record, b: Side, second: Record) -> Evidence | None:
    if not _same_run(a, b) or first.cell_id == second.cell_id:
        return None

    def logs(reduce: Reduce) -> Logs | None:
        found = _set_logs(tuple(a.run.sets.values()), second.cell_id, first.cell_id, reduce)
        return Logs(found) if len(found) >= min(SHARED, len(first.sets), len(second.sets)) else None

    return _both(logs, "same sets")


def _linked(a: Side, first: Record, b: Side, second: Record) -> Evidence | None:
    """Chain B / its anchor, that anchor / A's anchor (link sets), and A's anchor / A: one sum for each index."""
    mine, theirs = first.anchor, second.anchor
    if not _same_run(a, b) or mine is None or theirs is None or mine == theirs:
        return None
    if first.anchor_precision != second.anchor_precision:
        return None

    def logs(reduce: Reduce) -> Logs | None:
        middle = _set_logs(a.run.links, theirs, mine, reduce)
        upper = _own(b, second, theirs, reduce) or (middle and (0.0,) * len(middle))
        lower = _own(a, first, mine, reduce) or (middle and (0.0,) * len(middle))
        sums = tuple(u + m - low for u, m, low in zip(upper, middle, lower, strict=False))
        return Logs(sums) if sums else None

    return _both(logs, "link")


def _own(side: Side, record: Record, anchor: str, reduce: Reduce) -> tuple[float, ...]:
    """Return a cell's logs against its anchor; nothing for the anchor itself."""
    if record.cell_id == anchor:
        return ()
    return _set_logs(side.run.sets_of(record), record.cell_id, anchor, reduce)


def _anchored(a: Side, first: Record, b: Side, second: Record) -> Evidence | None:
    mine, theirs = a.run.by_cell.get(first.anchor or ""), b.run.by_cell.get(second.anchor or "")
    if mine is None or theirs is None or a.host != b.host or mine.cell_id != theirs.cell_id:
        return None
    if mine.inputs_sha256 != theirs.inputs_sha256:  # which knows no parameters of the target: cell_id does
        return None
    drift = _drift(a, mine, b, theirs)
    if first.cell_id == mine.cell_id and second.cell_id == theirs.cell_id:
        flat = _launches(a, first, 0.5), _launches(b, second, 0.5)
        return Evidence("anchor", Logs(flat[1], flat[0]), Logs(flat[1], flat[0]), True, drift) if all(flat) else None

    def logs(reduce: Reduce) -> Logs | None:
        upper = _own(b, second, theirs.cell_id, reduce) or tuple(0.0 for _ in second.sets)
        lower = _own(a, first, mine.cell_id, reduce) or tuple(0.0 for _ in first.sets)
        return Logs(upper, lower) if upper and lower else None

    found = _both(logs, "anchor")
    return Evidence("anchor", found.medians, found.lows, False, drift) if found else None


def _drift(a: Side, first: Record, b: Side, second: Record) -> float | None:
    mine, theirs = _launches(a, first, 0.5), _launches(b, second, 0.5)
    return shift(mine, theirs) if mine and theirs else None


def _launches(side: Side, record: Record, share: float) -> tuple[float, ...]:
    """Return the log of each counted launch's quantile."""
    found: list[float] = []
    for item in side.run.sets_of(record):
        for launch in item.launches:
            values = [ns for batch in launch.batches for ns in batch.ns]
            if launch.cell_id == record.cell_id and not launch.discarded and values:
                found.append(math.log(quantile(values, share)))
    return tuple(found)


def _absolute(a: Side, first: Record, b: Side, second: Record) -> Evidence | None:
    medians = Logs(_launches(b, second, 0.5), _launches(a, first, 0.5))
    lows = Logs(_launches(b, second, 0.1), _launches(a, first, 0.1))
    return Evidence("absolute", medians, lows) if medians.first and medians.second else None
