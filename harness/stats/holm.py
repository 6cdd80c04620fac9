"""The assumption-light fallback for many comparisons: exact sign tests with Holm's step-down (MEASUREMENT 1.7).

Unlike the max-t test over sign patterns it does not even assume symmetric errors, and needs more replications for it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.stats.order import LEVEL

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]


def certainly_less(values: Array, *, level: float = LEVEL) -> Array:
    """Tell which entries are lower than which others, all pairs at one level; takes and returns what max-t does.

    Args:
        values: [sets, entries], such as log-ratios to a common anchor; NaN where an entry was not in a set.
        level: Chance, at least, that no order is claimed between two entries with equal medians.

    Returns:
        bool [entries, entries]: row is certainly lower than column.
    """
    entries = values.shape[1]
    found = np.zeros((entries, entries), dtype=bool)
    pairs = list(itertools.combinations(range(entries), 2))
    differences = [values[:, first] - values[:, second] for first, second in pairs]
    finite = [column[np.isfinite(column)].tolist() for column in differences]
    for (first, second), column, certain in zip(
        pairs, finite, holm([sign_test(c) for c in finite], 1 - level), strict=True
    ):
        if certain:
            lower, higher = (first, second) if np.median(column) < 0 else (second, first)
            found[lower, higher] = True
    return found


def sign_test(values: Sequence[float]) -> float:
    """Return the exact two-sided p-value of the sign test against a median of 0; zeros are left out."""
    above, below = sum(value > 0 for value in values), sum(value < 0 for value in values)
    count = above + below
    tail = sum(math.comb(count, k) for k in range(min(above, below) + 1)) / (1 << count)
    return min(1.0, 2 * tail)


def holm(p_values: Sequence[float], alpha: float) -> list[bool]:
    """Return which hypotheses Holm's step-down procedure rejects at the family-wise level ``alpha``."""
    rejected = [False] * len(p_values)
    for step, place in enumerate(sorted(range(len(p_values)), key=lambda number: p_values[number])):
        if p_values[place] > alpha / (len(p_values) - step):
            break
        rejected[place] = True
    return rejected


def replications_needed(pairs: int, level: float = LEVEL) -> int:
    """Return the least K at which a sign test can tell ``pairs`` comparisons apart at once: 1 + log2(m / alpha)."""
    return math.ceil(1 + math.log2(pairs / (1 - level)) - 1e-9)
