"""Intervals that hold for many cells at once: max-t over launch-sets (Westfall and Young 1993; MEASUREMENT 1.7).

Cells that were measured in the same sets share their anchor and the host's moods, so their errors go together. The
largest studentised error over all cells, found by relabelling whole sets, is smaller than Bonferroni's bound for it
and does not run out of resolution: six sets on each side carry any number of cells.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

RESAMPLES = 2_000


@dataclass(frozen=True)
class Sample:
    """Replicates of one cell.

    Attributes:
        second: One value per replicate; of pairs (B - A) where ``first`` is empty.
        first: The values that ``second`` is compared with, measured apart.
        block: Cells of one block were measured in the same sets, in this order: they are relabelled together.
    """

    second: tuple[float, ...]
    first: tuple[float, ...] = ()
    block: str = ""

    @property
    def usable(self) -> bool:
        """Whether it has a spread on both sides."""
        return len(self.second) > 1 and len(self.first) != 1


@dataclass(frozen=True)
class Estimate:
    """Mean of second - first with its simultaneous bounds; ``None`` without two replicates."""

    point: float
    low: float | None
    high: float | None


def simultaneous(samples: Sequence[Sample], level: float = 0.95, *, seed: int = 0) -> list[Estimate]:
    """Return for each sample bounds that hold for all of them at once with ``level``.

    The critical value is the ``level`` quantile of max |t|, Welch's t of residuals whose sets are relabelled between
    the two sides; paired samples have their signs flipped instead.

    Args:
        samples: One for each cell.
        level: Of all bounds together.
        seed: Equal seeds give equal bounds.
    """
    chance = np.random.default_rng(seed)
    usable = [item for item in samples if item.usable]
    largest = np.zeros(RESAMPLES)
    for group in _blocks(usable):
        largest = np.maximum(largest, _relabelled(group, chance))
    critical = float(np.quantile(largest, level)) if usable else 0.0
    return [_estimate(item, critical) for item in samples]


def _blocks(samples: Sequence[Sample]) -> list[list[Sample]]:
    found: dict[tuple[str, int, int], list[Sample]] = defaultdict(list)
    for item in samples:
        found[item.block, len(item.first), len(item.second)].append(item)
    return list(found.values())


def _relabelled(group: Sequence[Sample], chance: np.random.Generator) -> Array:
    """Return max |t| over a block's cells for each relabelling."""
    second = np.array([item.second for item in group])
    second = second - second.mean(axis=1, keepdims=True)
    if not group[0].first:
        signs = chance.choice((-1.0, 1.0), size=(RESAMPLES, second.shape[1]))
        flipped = second[:, None, :] * signs
        return np.asarray(np.abs(_t(flipped)).max(axis=0))
    first = np.array([item.first for item in group])
    first = first - first.mean(axis=1, keepdims=True)
    pool = np.concatenate([first, second], axis=1)
    order = np.argsort(chance.random((RESAMPLES, pool.shape[1])), axis=1)
    mixed, size = pool[:, order], first.shape[1]
    return np.asarray(np.abs(_t(mixed[..., size:], mixed[..., :size])).max(axis=0))


def _t(second: Array, first: Array | None = None) -> Array:
    """Return Welch's t along the last axis; 0 where nothing varies."""
    point, variance = second.mean(axis=-1), second.var(axis=-1, ddof=1) / second.shape[-1]
    if first is not None:
        point = point - first.mean(axis=-1)
        variance = variance + first.var(axis=-1, ddof=1) / first.shape[-1]
    error = np.sqrt(variance)
    return np.asarray(np.divide(point, error, out=np.zeros_like(point), where=error > 0))


def _estimate(sample: Sample, critical: float) -> Estimate:
    second, first = np.array(sample.second), np.array(sample.first)
    point = float(second.mean() - (first.mean() if first.size else 0.0))
    if not sample.usable:
        return Estimate(point, None, None)
    variance = second.var(ddof=1) / second.size + (first.var(ddof=1) / first.size if first.size else 0.0)
    half = critical * math.sqrt(float(variance))
    return Estimate(point, point - half, point + half)
