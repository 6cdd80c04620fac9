"""Proportions: Wilson's interval, the exact McNemar test, and Newcombe's interval of a paired difference."""

from __future__ import annotations

import math
from statistics import NormalDist


def _z(level: float) -> float:
    return NormalDist().inv_cdf(0.5 + level / 2)


def wilson(successes: float, items: int, level: float = 0.95) -> tuple[float, float]:
    """Return Wilson's score interval of a proportion (Wilson 1927), as fractions 0..1.

    A sum of shares may stand for the successes; it varies less than whole ones, and the interval is wide enough.

    Raises:
        ValueError: No items, or more successes than items.
    """
    if not 0 <= successes <= items or items == 0:
        raise ValueError(f"{successes} of {items} is no proportion")
    z = _z(level)
    share, square = successes / items, z * z / items
    middle = (share + square / 2) / (1 + square)
    half = z / (1 + square) * math.sqrt(share * (1 - share) / items + square / (4 * items))
    low = 0.0 if successes == 0 else middle - half
    return low, 1.0 if successes == items else middle + half


def mcnemar_exact(lost: int, gained: int) -> float:
    """Return the two-sided p-value of McNemar's exact test: Binomial(lost + gained, 1/2)."""
    pairs, less = lost + gained, min(lost, gained)
    below = sum(math.comb(pairs, k) for k in range(less + 1))
    return min(1.0, 2 * below / (1 << pairs))


def newcombe_paired(
    both: int, first_only: int, second_only: int, neither: int, level: float = 0.95
) -> tuple[float, float]:
    """Return the interval of p(first) - p(second) on the same items.

    Method 10 of Newcombe (Statistics in Medicine 17, 2635-2650, 1998): the two Wilson intervals squared and added,
    with the continuity-corrected correlation between them.

    Args:
        both: Items that both have right.
        first_only: Items that only the first has right.
        second_only: Items that only the second has right.
        neither: Items that neither has right.
        level: Of confidence.
    """
    items = both + first_only + second_only + neither
    first, second = (both + first_only) / items, (both + second_only) / items
    low1, high1 = wilson(both + first_only, items, level)
    low2, high2 = wilson(both + second_only, items, level)
    phi = _correlation(both, first_only, second_only, neither)
    difference = first - second
    down, up = first - low1, high2 - second
    below = math.sqrt(max(0.0, down**2 - 2 * phi * down * up + up**2))
    down, up = second - low2, high1 - first
    above = math.sqrt(max(0.0, down**2 - 2 * phi * down * up + up**2))
    return difference - below, difference + above


def _correlation(both: int, first_only: int, second_only: int, neither: int) -> float:
    items = both + first_only + second_only + neither
    product = (both + first_only) * (second_only + neither) * (both + second_only) * (first_only + neither)
    if product == 0:
        return 0.0
    cross = both * neither - first_only * second_only
    corrected = max(cross - items / 2, 0.0) if cross > 0 else float(cross)
    return corrected / math.sqrt(product)
