"""Order statistics: intervals for a median that assume no shape (MEASUREMENT 1.6)."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from harness.types import Interval

LEVEL = 0.95


def quantile(values: Sequence[float], share: float) -> float:
    """Return a quantile by linear interpolation between order statistics (Hyndman and Fan 1996, type 7).

    Args:
        values: At least one.
        share: 0..1.
    """
    ordered = sorted(values)
    place = (len(ordered) - 1) * share
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def coverage(count: int, rank: int) -> float:
    """Return the probability that the median lies between the ``rank``-th smallest and ``rank``-th largest value.

    Exact for any continuous distribution: 1 - 2 P(Binomial(count, 1/2) <= rank - 1).
    """
    return 1 - 2 * sum(math.comb(count, k) for k in range(rank)) / (1 << count)


def median_rank(count: int, level: float = LEVEL) -> int | None:
    """Return the largest rank whose interval still covers the median at ``level``; ``None`` where none does.

    At 95 % the first is 1 of 6 (96.9 %), then 2 of 10 (97.9 %), 3 of 12 (96.1 %), 4 of 15 (96.5 %), 6 of 20 (95.9 %).
    """
    ranks = [rank for rank in range(1, count // 2 + 1) if coverage(count, rank) >= level]
    return max(ranks, default=None)


def median_interval(values: Sequence[float], level: float = LEVEL) -> Interval:
    """Return the median with its order-statistic interval.

    Args:
        values: One number per independent replicate (a launch or a set), never per iteration.
        level: Least coverage; too few values leave the bounds ``None``.
    """
    ordered = sorted(values)
    point = statistics.median(ordered)
    rank = median_rank(len(ordered), level)
    if rank is None:
        return Interval(point, None, None, level, f"none: {len(ordered)} values cannot carry {level:.0%}")
    low, high = ordered[rank - 1], ordered[-rank]
    place = f"[{rank}, {len(ordered) + 1 - rank}] of {len(ordered)}"
    return Interval(point, low, high, level, f"order statistics {place}, {coverage(len(ordered), rank):.1%}")


def robust_cv(values: Sequence[float]) -> float:
    """Return 1.4826 MAD / median: the coefficient of variation of a normal sample, without its outliers."""
    middle = statistics.median(values)
    return 1.4826 * statistics.median(abs(value - middle) for value in values) / middle if middle else 0.0
