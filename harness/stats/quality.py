"""The task metric, and its paired difference from the anchor (MEASUREMENT 3)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from harness.stats.fidelity import agreement_intervals
from harness.stats.order import LEVEL
from harness.stats.proportions import mcnemar_exact, newcombe_paired, wilson
from harness.types import Interval, Quality

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]
    Aggregate = Callable[[Array], float]

RESAMPLES = 10_000
GATE = 0.99  # of the anchor's metric; a drop of the rest is allowed


def quality(
    scores: Array | None,
    anchor_scores: Array | None,
    *,
    metric: str,
    unit: str,
    higher_is_better: bool,
    interval: Literal["wilson", "bootstrap"],
    items: int,
    aggregate: Aggregate | None = None,
    seed: int = 0,
    evaluation_batch: int = 1,
    fidelity: Mapping[str, float] | None = None,
    agreement: Array | None = None,
) -> Quality:
    """Judge per-item scores against the anchor's on the same items.

    Args:
        scores: Per-item statistics [n, k]; ``None`` where there are no labels: then only fidelity is known.
        anchor_scores: The same of the anchor; ``None`` for the anchor itself or without one.
        metric: Name of the metric.
        unit: Of the metric.
        higher_is_better: Its direction.
        interval: "wilson" where the statistic is one 0/1 column, else "bootstrap" over items.
        items: How many were run.
        aggregate: Scores -> metric, in its unit.
        seed: Of the bootstrap.
        evaluation_batch: Items per call.
        fidelity: How close the outputs are to the anchor's.
        agreement: Per-item agreement with the anchor's choices [n, k], for the intervals of that.
    """
    close: dict[str, Any] = {"fidelity": dict(fidelity or {}), "agreement": agreement_intervals(agreement)}
    if scores is None or aggregate is None:
        return Quality(metric, unit, higher_is_better, items, None, evaluation_batch=evaluation_batch, **close)
    if anchor_scores is not None and len(anchor_scores) != len(scores):
        raise ValueError(f"{len(scores)} items were scored, the anchor has {len(anchor_scores)}")
    make = _from_hits if interval == "wilson" else _from_bootstrap
    value, difference, extra = make(np.asarray(scores), anchor_scores, aggregate, seed)
    reference = aggregate(np.asarray(anchor_scores)) if anchor_scores is not None else value.point
    return Quality(
        metric,
        unit,
        higher_is_better,
        len(scores),
        value,
        difference,
        underpowered=_underpowered(difference or value, reference),
        evaluation_batch=evaluation_batch,
        **close,
        **extra,
    )


def _underpowered(interval: Interval, reference: float) -> bool:
    """Tell whether the interval is wider than half the drop that the gate allows.

    The anchor has no difference; its own interval stands in, so that a set too small says so everywhere.
    """
    if interval.low is None or interval.high is None:
        return True
    return (interval.high - interval.low) / 2 > (1 - GATE) * abs(reference) / 2


def _from_hits(
    scores: Array, anchor: Array | None, aggregate: Aggregate, _seed: int
) -> tuple[Interval, Interval | None, dict[str, Any]]:
    hits = scores.reshape(len(scores), -1)[:, 0] > 0.5
    scale = aggregate(np.ones_like(scores, dtype=np.float64))  # what the metric calls all right: 1 or 100
    low, high = wilson(int(hits.sum()), len(hits))
    value = Interval(aggregate(scores), low * scale, high * scale, LEVEL, "Wilson")
    if anchor is None:
        return value, None, {}
    other = np.asarray(anchor).reshape(len(anchor), -1)[:, 0] > 0.5
    both, gained = int((hits & other).sum()), int((hits & ~other).sum())
    lost, neither = int((~hits & other).sum()), int((~hits & ~other).sum())
    below, above = newcombe_paired(both, gained, lost, neither)
    point = (gained - lost) / len(hits) * scale
    difference = Interval(point, below * scale, above * scale, LEVEL, "Newcombe paired (method 10)")
    flips = (gained + lost) / len(hits)
    return value, difference, {"flips": flips, "lost": lost, "gained": gained, "p_value": mcnemar_exact(lost, gained)}


def _from_bootstrap(
    scores: Array, anchor: Array | None, aggregate: Aggregate, seed: int
) -> tuple[Interval, Interval | None, dict[str, Any]]:
    value = bootstrap(scores, aggregate, seed)
    if anchor is None:
        return value, None, {}
    return value, paired_bootstrap(scores, np.asarray(anchor), aggregate, seed), {}


def bootstrap(scores: Array, aggregate: Aggregate, seed: int, resamples: int = RESAMPLES) -> Interval:
    """Return the metric with its percentile bootstrap interval over items."""
    values = [aggregate(scores[rows]) for rows in _rows(len(scores), seed, resamples)]
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(aggregate(scores), float(low), float(high), LEVEL, f"bootstrap over items, {resamples} resamples")


def paired_bootstrap(
    scores: Array,
    anchor_scores: Array,
    aggregate: Aggregate,
    seed: int,
    resamples: int = RESAMPLES,
    *,
    level: float = LEVEL,
) -> Interval:
    """Return metric(cell) - metric(anchor) with its percentile bootstrap interval: the same items in both.

    Args:
        scores: [n, k] of the cell.
        anchor_scores: [n, k] of the anchor, same items in the same order.
        aggregate: Scores -> metric.
        seed: Equal seeds give equal intervals.
        resamples: At least 10 000 for a stable 95 % interval.
        level: Of confidence.
    """
    values = [aggregate(scores[rows]) - aggregate(anchor_scores[rows]) for rows in _rows(len(scores), seed, resamples)]
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    point = aggregate(scores) - aggregate(anchor_scores)
    return Interval(point, float(low), float(high), level, f"paired bootstrap over items, {resamples} resamples")


def _rows(items: int, seed: int, resamples: int) -> Iterator[Array]:
    chance = np.random.default_rng(seed)
    for _ in range(resamples):
        yield chance.integers(0, items, items)
