"""How much faster: ratios paired within rounds, their intervals, and the word for them (MEASUREMENT 1.6)."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence

from harness.stats.dismiss import dismiss_noisy
from harness.stats.order import median_interval, quantile
from harness.types import Batch, Interval, Launch, LaunchSet, NoiseVerdict, SpeedVerdict

LONG_BATCH = 10  # iterations; shorter batches have no p10, their minimum stands in
AGREEMENT = 0.05  # between the two estimators in a suspect cell

Reduce = Callable[[Batch], float]


def batch_median(batch: Batch) -> float:
    """Return a batch's median in ns."""
    return statistics.median(batch.ns)


def batch_low(batch: Batch) -> float:
    """Return a batch's p10 in ns, or its minimum where it has under ten samples."""
    return quantile(batch.ns, 0.1) if len(batch.ns) >= LONG_BATCH else float(min(batch.ns))


def counted(item: LaunchSet, cell_id: str) -> Iterator[Launch]:
    """Yield a cell's launches in a set that were not discarded."""
    return (launch for launch in item.launches if launch.cell_id == cell_id and not launch.discarded)


def _by_round(item: LaunchSet, cell_id: str, reduce: Reduce) -> dict[int, float]:
    return {batch.round: reduce(batch) for launch in counted(item, cell_id) for batch in launch.batches if batch.ns}


def set_log_ratio(item: LaunchSet, cell_id: str, anchor_id: str, reduce: Reduce) -> float | None:
    """Return the median over rounds of log(cell / anchor); ``None`` where they share no round of this set."""
    cell, anchor = _by_round(item, cell_id, reduce), _by_round(item, anchor_id, reduce)
    logs = [math.log(cell[number] / anchor[number]) for number in cell if anchor.get(number) and cell[number]]
    return statistics.median(logs) if logs else None


def _set_logs(sets: Sequence[LaunchSet], cell_id: str, anchor_id: str, reduce: Reduce) -> dict[int, float]:
    found = {item.index: set_log_ratio(item, cell_id, anchor_id, reduce) for item in sets}
    return {index: value for index, value in sorted(found.items()) if value is not None}


def _exponential(logs: Interval) -> Interval:
    low = None if logs.low is None else math.exp(logs.low)
    high = None if logs.high is None else math.exp(logs.high)
    return Interval(math.exp(logs.point), low, high, logs.level, f"paired by round; {logs.method}")


def paired_ratio(sets: Sequence[LaunchSet], cell_id: str, anchor_id: str) -> tuple[Interval, Interval]:
    """Return t(cell) / t(anchor) from batch medians, and the same from each batch's p10.

    Per round the log-ratio of the two batches; per set its median; over sets the median with its order-statistic
    interval; then the exponential.

    Raises:
        ValueError: The two never ran in one round.
    """
    medians = _set_logs(sets, cell_id, anchor_id, batch_median)
    lows = _set_logs(sets, cell_id, anchor_id, batch_low)
    if not medians or not lows:
        raise ValueError(f"cells {cell_id} and {anchor_id} share no round")
    pair = [_exponential(median_interval(list(logs.values()))) for logs in (medians, lows)]
    return pair[0], pair[1]


def ratio_logs(sets: Sequence[LaunchSet], cell_id: str, anchor_id: str, reduce: Reduce = batch_median) -> list[float]:
    """Return log(t(cell) / t(anchor)) of each set in which both ran, in the order of the sets."""
    return list(_set_logs(sets, cell_id, anchor_id, reduce).values())


def link_ratio(
    variant_sets: Sequence[LaunchSet], link_sets: Sequence[LaunchSet], cell_id: str, anchor_id: str, reference_id: str
) -> Interval | None:
    """Return t(cell) / t(reference) across targets: member/anchor times anchor/reference.

    The two factors come from different sets. They are added per pair of sets, in the order of their indices: each
    sum is one independent replicate of the whole chain, so the order-statistic interval of the sums carries the
    noise of both factors. Sets without a partner are left out, which only widens it; so are noisy ones, as in a
    cell's own summary.

    Args:
        variant_sets: Where the cell ran beside its anchor; unused where the cell is its anchor.
        link_sets: Where the anchors of all targets ran side by side.
        cell_id: The cell.
        anchor_id: Its anchor.
        reference_id: The anchor of another target.
    """
    own, links = (
        dismiss_noisy(variant_sets, cell_id, anchor_id), dismiss_noisy(link_sets, anchor_id, reference_id)
    )  # fmt: skip
    sums = link_logs(own, links, cell_id, anchor_id, reference_id)
    return _exponential(median_interval(sums)) if sums else None


def link_logs(
    variant_sets: Sequence[LaunchSet], link_sets: Sequence[LaunchSet], cell_id: str, anchor_id: str, reference_id: str,
    reduce: Reduce = batch_median,
) -> list[float]:  # fmt: skip
    """Return log(t(cell) / t(reference)) of each pair of sets; the arguments are those of ``link_ratio``."""
    links = _link_logs(link_sets, anchor_id, reference_id, reduce)
    if cell_id == anchor_id:
        return links
    own = ratio_logs(variant_sets, cell_id, anchor_id, reduce)
    return [left + right for left, right in zip(own, links, strict=False)]


def _link_logs(link_sets: Sequence[LaunchSet], anchor_id: str, reference_id: str, reduce: Reduce) -> list[float]:
    if anchor_id == reference_id:
        return [0.0] * len(link_sets)
    return ratio_logs(link_sets, anchor_id, reference_id, reduce)


def verdict(
    interval: Interval | None, interval_low: Interval | None, noise: NoiseVerdict, margin: float
) -> tuple[SpeedVerdict, tuple[str, ...]]:
    """Return the word for a ratio, and why it is not a clearer one.

    Args:
        interval: From batch medians; below 1 is faster.
        interval_low: From the batches' p10.
        noise: Of the cell. Unless it is ok, both estimators must agree in sign and within 5 %.
        margin: Equivalence margin e: faster lies below 1 - e, slower above 1 + e, equivalent between.
    """
    if interval is None:
        return "no anchor", ("never ran in one round with its anchor",)
    if interval.low is None or interval.high is None:
        return "unresolved", (f"ratio: {interval.method}",)
    if noise != "ok" and interval_low is not None and not _agree(interval, interval_low):
        return "unresolved", (f"estimator_disagree: medians {interval.point:.3f}, p10 {interval_low.point:.3f}",)
    return _word(interval.low, interval.high, margin)


def _word(low: float, high: float, margin: float) -> tuple[SpeedVerdict, tuple[str, ...]]:
    if high < 1 - margin:
        return "faster", ()
    if low > 1 + margin:
        return "slower", ()
    if low >= 1 - margin and high <= 1 + margin:
        return "equivalent", ()
    if high < 1 or low > 1:
        side = "faster" if high < 1 else "slower"
        return "unresolved", (f"{side}, but not by more than the margin of {margin:.0%}: {low:.3f} to {high:.3f}",)
    return "unresolved", (f"the interval {low:.3f} to {high:.3f} reaches over 1 and the margin of {margin:.0%}",)


def _agree(first: Interval, second: Interval) -> bool:
    same_side = (first.point - 1) * (second.point - 1) >= 0
    return same_side and abs(first.point / second.point - 1) <= AGREEMENT


MARGINS: Mapping[str, float] = {"publish": 0.02}
MARGIN = 0.05  # of every other profile
