"""The metric under corruption, beside the anchor's on the same corrupted items (MEASUREMENT 3)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from harness.stats.order import LEVEL
from harness.types import Interval, Robustness

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]
    Aggregate = Callable[[Array], float]

RESAMPLES = 10_000
AT_ONCE = 500  # resamples whose indices are held together
RESAMPLES_SLOW = 2_000  # where the workload aggregates each resample of each corruption itself


def robustness(
    names: Sequence[str],
    ours: Array,
    theirs: Array | None,
    clean: tuple[Array, Array] | None,
    *,
    aggregate: Aggregate,
    interval: Literal["wilson", "bootstrap"],
    seed: int = 0,
) -> Robustness:
    """Judge per-item scores of corrupted items; items, not corrupted copies, are what is resampled.

    Args:
        names: Corruption and severity of each block of scores.
        ours: Scores [corruptions, n, k].
        theirs: The anchor's, of the same copies; ``None`` for the anchor itself or without one.
        clean: Scores [n, k] of cell and anchor on the same items uncorrupted.
        aggregate: Scores [n, k] -> metric.
        interval: "wilson" where the statistic is one 0/1 column: its mean is the metric, up to a scale.
        seed: Equal seeds give equal intervals.
    """
    ours = np.asarray(ours)
    judge = _Shares(aggregate, ours) if interval == "wilson" else _Aggregated(aggregate)
    found = {name: aggregate(scores) for name, scores in zip(names, ours, strict=True)}
    parts: dict[str, Array] = {"value": ours}
    if theirs is not None:
        parts["other"] = np.asarray(theirs)
    if theirs is not None and clean is not None:
        parts["clean"], parts["other_clean"] = (np.asarray(scores)[None] for scores in clean)
    drawn = judge.resample(parts, seed)
    whole = {name: judge.mean(scores) for name, scores in parts.items()}
    return Robustness(
        items=ours.shape[1],
        corrupted=found,
        value=_interval(whole, drawn, {"value": 1}),
        difference=_interval(whole, drawn, {"value": 1, "other": -1}),
        extra=_interval(whole, drawn, {"value": 1, "other": -1, "clean": -1, "other_clean": 1}),
        relative_error=_relative(ours, parts.get("other")) if interval == "wilson" else None,
    )


def _interval(whole: Mapping[str, float], drawn: Mapping[str, Array], signs: Mapping[str, int]) -> Interval | None:
    """Return the interval of a signed sum of means, all of them over the same resamples."""
    if not set(signs) <= set(whole):
        return None
    point = sum(sign * whole[name] for name, sign in signs.items())
    values: Array = np.sum([sign * drawn[name] for name, sign in signs.items()], axis=0)
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(point, float(low), float(high), LEVEL, f"bootstrap over items, {len(values)} resamples")


def _relative(ours: Array, theirs: Array | None) -> float | None:
    """Return the mean over corruptions of error over the anchor's error; ``None`` where the anchor makes none."""
    if theirs is None:
        return None
    mine, other = (1 - (scores.reshape(*scores.shape[:2], -1)[..., 0] > 0.5).mean(axis=1) for scores in (ours, theirs))
    return float((mine / other).mean()) if (other > 0).all() else None


class _Shares:
    """The metric is the share of right items: each item counts with its mean over the corruptions."""

    def __init__(self, aggregate: Aggregate, scores: Array) -> None:
        self.scale = aggregate(np.ones_like(scores[0], dtype=np.float64))  # what the metric calls all right

    def items(self, scores: Array) -> Array:
        hits: Array = (scores.reshape(*scores.shape[:2], -1)[..., 0] > 0.5).mean(axis=0) * self.scale
        return hits

    def mean(self, scores: Array) -> float:
        return float(self.items(scores).mean())

    def resample(self, parts: Mapping[str, Array], seed: int) -> dict[str, Array]:
        chance = np.random.default_rng(seed)
        table = np.stack([self.items(scores) for scores in parts.values()])
        count = table.shape[1]
        found: list[Array] = []
        for start in range(0, RESAMPLES, AT_ONCE):
            picks = chance.integers(0, count, (min(AT_ONCE, RESAMPLES - start), count))
            found.append(table[:, picks].mean(axis=2))
        return dict(zip(parts, np.concatenate(found, axis=1), strict=True))


class _Aggregated:
    """The workload's own aggregate decides, corruption by corruption."""

    def __init__(self, aggregate: Aggregate) -> None:
        self.aggregate = aggregate

    def mean(self, scores: Array) -> float:
        return float(np.mean([self.aggregate(part) for part in scores]))

    def resample(self, parts: Mapping[str, Array], seed: int) -> dict[str, Array]:
        chance = np.random.default_rng(seed)
        count = next(iter(parts.values())).shape[1]
        picks = [chance.integers(0, count, count) for _ in range(RESAMPLES_SLOW)]
        return {name: np.array([self.mean(scores[:, pick]) for pick in picks]) for name, scores in parts.items()}
