"""A second opinion on an interval: resample launches, then batches within them (MEASUREMENT 1.6)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.stats.order import LEVEL
from harness.types import Interval

if TYPE_CHECKING:
    from numpy.typing import NDArray

RESAMPLES = 10_000
DISAGREE = 2.0  # times in width


def two_level(launches: Sequence[Sequence[float]], *, level: float = LEVEL, seed: int = 0) -> Interval:
    """Return the median over launches with the percentile interval of a two-level bootstrap.

    Args:
        launches: Batch medians of each launch, at least one each; uneven lengths are fine.
        level: Of the interval.
        seed: Of the resampling: equal samples and seeds give equal bounds.
    """
    chance = np.random.default_rng(seed)
    count = len(launches)
    drawn = chance.integers(0, count, (RESAMPLES, count))
    medians = np.empty((RESAMPLES, count))
    for number, batches in enumerate(launches):
        places = drawn == number
        medians[places] = _medians(np.asarray(batches, dtype=float), int(places.sum()), chance)
    found = np.median(medians, axis=1)
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
    point = float(np.median([np.median(np.asarray(batches, dtype=float)) for batches in launches]))
    return Interval(point, float(low), float(high), level, f"two-level bootstrap, {RESAMPLES} resamples")


def _medians(values: NDArray[Any], draws: int, chance: np.random.Generator) -> NDArray[Any]:
    return np.asarray(np.median(values[chance.integers(0, len(values), (draws, len(values)))], axis=1))


def disagree(first: Interval, second: Interval) -> bool:
    """Tell whether one interval is more than twice as wide as the other; an absent one disagrees with nothing."""
    if first.low is None or first.high is None or second.low is None or second.high is None:
        return False
    widths = sorted((first.high - first.low, second.high - second.low))
    return widths[1] > DISAGREE * widths[0]
