"""Effect sizes beside significance: how far apart two samples of launch medians lie (MEASUREMENT 1.6)."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence


def hodges_lehmann(values: Sequence[float]) -> float:
    """Return the Hodges-Lehmann location of one sample: the median of all Walsh averages (x_i + x_j) / 2, i <= j.

    Of paired differences it is their typical shift, robust against a few wild pairs (Hodges and Lehmann 1963).
    """
    return statistics.median((a + b) / 2 for a, b in itertools.combinations_with_replacement(values, 2))


def hodges_lehmann_shift(first: Sequence[float], second: Sequence[float]) -> float:
    """Return the shift between two samples: the median of all differences ``first - second``."""
    return statistics.median(a - b for a in first for b in second)


def cliffs_delta(first: Sequence[float], second: Sequence[float]) -> float:
    """Return P(first > second) - P(first < second) over all pairs, -1 to 1 (Cliff 1993); 2 U / (m n) - 1."""
    signs = sum((a > b) - (a < b) for a in first for b in second)
    return signs / (len(first) * len(second))
