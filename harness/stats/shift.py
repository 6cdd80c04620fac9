"""How far one sample lies from another: intervals of a shift that assume no shape.

Two samples that were measured apart (two runs) have no pairs. Their shift is the Hodges-Lehmann estimate, the median
of all differences, and its interval inverts the exact Mann-Whitney test (Hodges and Lehmann 1963; Hollander, Wolfe
and Chicken 2014, section 4.3). The values are one per launch-set or launch, never iterations: those are no
independent replicates.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from functools import lru_cache

Bounds = tuple[float, float] | None


@lru_cache(maxsize=64)
def _rank_sums(first: int, second: int) -> tuple[int, ...]:
    """Return how many of the C(first + second, first) orders have each value of U: the Gaussian binomial."""
    counts = [[0] * (first * second + 1) for _ in range(first + 1)]
    counts[0][0] = 1
    for item in range(first + second):
        for taken in range(min(item + 1, first), 0, -1):
            place = item - taken + 1  # what this item adds to U as the taken-th smallest
            for u in range(first * second, place - 1, -1):
                counts[taken][u] += counts[taken - 1][u - place]
    return tuple(counts[first])


def rank_of_bound(first: int, second: int, alpha: float) -> int:
    """Return the largest k for which P(U <= k - 1) <= alpha, 0 where even the outermost difference does not reach it.

    Args:
        first: Size of one sample.
        second: Size of the other.
        alpha: Of one side.
    """
    total, below, rank = math.comb(first + second, first), 0, 0
    for count in _rank_sums(first, second):
        below += count
        if below > alpha * total:
            return rank
        rank += 1
    return rank


def shift(first: Sequence[float], second: Sequence[float]) -> float:
    """Return the Hodges-Lehmann estimate of second - first."""
    return statistics.median(b - a for a in first for b in second)


def shift_bounds(first: Sequence[float], second: Sequence[float], alpha: float) -> Bounds:
    """Return the bounds of second - first that each hold with 1 - alpha; ``None`` where the samples are too small.

    Args:
        first: One value per replicate, measured apart from ``second``.
        second: Likewise.
        alpha: Of each side; an interval of 95 % has 0.025.
    """
    rank = rank_of_bound(len(first), len(second), alpha) if first and second else 0
    if rank == 0:
        return None
    ordered = sorted(b - a for a in first for b in second)
    return ordered[rank - 1], ordered[-rank]


def median_bounds(values: Sequence[float], alpha: float) -> Bounds:
    """Return order statistics that bound the median with 1 - alpha each; ``None`` where the sample is too small.

    It is the sign test's interval: P(Binomial(n, 1/2) <= k - 1) <= alpha.
    """
    count, below, rank = len(values), 0, 0
    while rank < (count + 1) // 2:
        below += math.comb(count, rank)
        if below > alpha * (1 << count):
            break
        rank += 1
    if rank == 0:
        return None
    ordered = sorted(values)
    return ordered[rank - 1], ordered[-rank]
