"""Was a launch steady while it was measured? Change points, then a class (MEASUREMENT 1.5; Barrett et al. 2017)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

Steadiness = Literal["flat", "warmup", "slowdown", "unsteady"]

PENALTY = 15.0  # times log n: what a change point must explain, as in Barrett et al.
WINDOW = 200  # iterations over which outliers are found
LEAST = 10  # iterations in a segment
FLOOR = 1e-3  # relative standard deviation below which differences are the clock's
SAME = 0.02  # relative difference of medians that is no change
LAST_SHARE = 0.2  # of the series: a last segment shorter than this is no steady state


def masked(values: Array) -> Array:
    """Replace what lies outside median +- 3 (p90 - p10) of its window by the window's median."""
    kept = values.copy()
    for start in range(0, len(kept), WINDOW):
        part = kept[start : start + WINDOW]
        middle, low, high = np.median(part), *np.quantile(part, [0.1, 0.9])
        part[np.abs(part - middle) > 3 * (high - low)] = middle
    return kept


def change_points(values: Sequence[float]) -> list[int]:
    """Return where the mean or the variance of a series changes: the first index of each new segment.

    Binary segmentation of the logarithms under a normal likelihood, penalty 15 log n per change point.
    """
    series = np.log(np.maximum(masked(np.asarray(values, dtype=float)), 1.0))
    found: list[int] = []
    open_parts = [(0, len(series))]
    while open_parts:
        start, end = open_parts.pop()
        split = _split(series[start:end], PENALTY * math.log(max(len(series), 2)))
        if split:
            found.append(start + split)
            open_parts += [(start, start + split), (start + split, end)]
    return sorted(found)


def _split(part: Array, penalty: float) -> int | None:
    """Return the best place to split, ``None`` where it explains less than the penalty."""
    count = len(part)
    if count < 2 * LEAST:
        return None
    left = np.arange(LEAST, count - LEAST + 1)
    centred = part - part.mean()
    sums, squares = np.cumsum(centred), np.cumsum(centred**2)
    first = _cost(left, sums[left - 1], squares[left - 1])
    second = _cost(count - left, sums[-1] - sums[left - 1], squares[-1] - squares[left - 1])
    whole = _cost(np.array([count]), sums[-1:], squares[-1:])[0]
    gains = whole - first - second
    best = int(np.argmax(gains))
    return int(left[best]) if gains[best] > penalty else None


def _cost(count: Array, total: Array, square: Array) -> Array:
    """Return n log(variance), twice the negative log-likelihood of a normal segment up to constants."""
    variance = np.maximum(square / count - (total / count) ** 2, FLOOR**2)
    return np.asarray(count * np.log(variance))


def classify(values: Sequence[float]) -> Steadiness:
    """Return the class of one launch's iterations in the order in which they ran.

    "flat": no change that matters; "warmup": the last segment is the fastest; "slowdown": the last one is the
    slowest; "unsteady": faster and slower segments came before, or the last one is too short to be a state.
    Segments are alike within 2 % or the last one's median absolute deviation, whichever is more.
    """
    series = np.asarray(values, dtype=float)
    bounds = [0, *change_points(values), len(series)]
    parts = [series[start:end] for start, end in itertools.pairwise(bounds)]
    last = float(np.median(parts[-1]))
    allowed = max(SAME * last, float(np.median(np.abs(parts[-1] - last))))
    before = [float(np.median(part)) - last for part in parts[:-1]]
    slower, faster = any(shift > allowed for shift in before), any(shift < -allowed for shift in before)
    if not slower and not faster:
        return "flat"
    if (slower and faster) or len(parts[-1]) < LAST_SHARE * len(series):
        return "unsteady"
    return "warmup" if slower else "slowdown"
