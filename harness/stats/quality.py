"""The task metric, its paired difference from the anchor, and fidelity of outputs (MEASUREMENT 3)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from harness.stats.order import LEVEL
from harness.stats.proportions import mcnemar_exact, newcombe_paired, wilson
from harness.types import Interval, Quality

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]
    Aggregate = Callable[[Array], float]

RESAMPLES = 10_000
GATE = 0.99  # of the anchor's metric; a drop of the rest is allowed
SQNR_CAP_DB = 300.0  # of identical outputs: beyond any float64, and JSON has no infinity
BLOCK = 1024  # items that are read at once
TOLERANCE = 1e-3  # absolute and relative: beyond it an element of an output counts as another
TOP = 5
LOWER_IS_CLOSER = frozenset({"outside_share", "max_abs_error", "kl_mean", "kl_p99"})


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
        fidelity: Agreement with the anchor's outputs.
    """
    found = dict(fidelity or {})
    if scores is None or aggregate is None:
        return Quality(metric, unit, higher_is_better, items, None, evaluation_batch=evaluation_batch, fidelity=found)
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
        fidelity=found,
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


def fidelity(
    outputs: Mapping[str, Array], anchor_outputs: Mapping[str, Array], *, task: str = "classification"
) -> dict[str, float]:
    """Compare outputs with the anchor's on the same items, without labels; the worst output counts.

    SQNR is 10 log10(sum x² / sum (x - x̂)²) dB over all items, capped where they are identical; ``cosine`` is the mean
    over items, ``cosine_p1`` their first percentile; ``max_abs_error`` the largest difference, ``outside_share`` the
    share of elements further from the anchor's than 1e-3 + 1e-3 |x|. For classification, of outputs [n, …, classes]:
    top-1 agreement; with more than five classes ``top5_agreement``, items whose first choice by the anchor is among
    the first five; of outputs [n, classes], ``kl_mean`` and ``kl_p99`` of KL(anchor || cell) of softmaxes, in nats.

    Args:
        outputs: Array [n, …] by output name; memory-mapped ones are read in blocks.
        anchor_outputs: The same of the anchor.
        task: "classification", "regression" or "none".
    """
    found = [_compare(outputs[name], anchor_outputs[name], task) for name in outputs if name in anchor_outputs]
    keys = {key for one in found for key in one}
    worst = {key: max if key in LOWER_IS_CLOSER else min for key in keys}
    return {key: worst[key](one[key] for one in found if key in one) for key in sorted(keys)}


def _compare(output: Array, anchor: Array, task: str) -> dict[str, float]:
    if output.shape != anchor.shape or not len(output):
        raise ValueError(f"outputs of shape {output.shape} cannot be compared with the anchor's {anchor.shape}")
    classes = output.shape[-1] if output.ndim > 1 else 1
    parts: list[dict[str, Array]] = []
    for start in range(0, len(output), BLOCK):
        ours = np.asarray(output[start : start + BLOCK], dtype=np.float64).reshape(-1, math.prod(output.shape[1:]))
        theirs = np.asarray(anchor[start : start + BLOCK], dtype=np.float64).reshape(ours.shape)
        part = _distances(ours, theirs)
        if classes > 1 and task != "regression":
            part |= _choices(ours, theirs, classes)
        parts.append(part)
    found = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return _reduced(found)


def _distances(ours: Array, theirs: Array) -> dict[str, Array]:
    """Return figures of each item."""
    apart = np.abs(ours - theirs)
    return {
        "signal": (theirs**2).sum(axis=1),
        "noise": (apart**2).sum(axis=1),
        "cosine": _cosines(ours, theirs),
        "apart": apart.max(axis=1, initial=0.0),
        "outside": (apart > TOLERANCE + TOLERANCE * np.abs(theirs)).mean(axis=1),
    }


def _choices(ours: Array, theirs: Array, classes: int) -> dict[str, Array]:
    mine, other = (array.reshape(len(array), -1, classes) for array in (ours, theirs))
    first = other.argmax(axis=2)
    found = {"top1": (mine.argmax(axis=2) == first).mean(axis=1)}
    if classes > TOP:
        best = np.argpartition(mine, -TOP, axis=2)[..., -TOP:]
        found["top5"] = (best == first[..., None]).any(axis=2).mean(axis=1)
    if mine.shape[1] == 1:
        logs = [_log_softmax(array[:, 0]) for array in (other, mine)]
        found["kl"] = (np.exp(logs[0]) * (logs[0] - logs[1])).sum(axis=1)
    return found


def _log_softmax(values: Array) -> Array:
    shifted = values - values.max(axis=1, keepdims=True)
    found: Array = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return found


def _reduced(found: Mapping[str, Array]) -> dict[str, float]:
    result = {
        "sqnr_db": _decibel(float(found["signal"].sum()), float(found["noise"].sum())),
        "cosine": float(found["cosine"].mean()),
        "cosine_p1": float(np.quantile(found["cosine"], 0.01)),
        "outside_share": float(found["outside"].mean()),
        "max_abs_error": float(found["apart"].max()),
    }
    for name, key in (("top1", "top1_agreement"), ("top5", "top5_agreement")):
        result |= {key: float(found[name].mean())} if name in found else {}
    if "kl" in found:
        result |= {"kl_mean": float(found["kl"].mean()), "kl_p99": float(np.quantile(found["kl"], 0.99))}
    return {name: value for name, value in result.items() if math.isfinite(value)}


def _decibel(signal: float, noise: float) -> float:
    if not math.isfinite(noise) or not math.isfinite(signal) or signal == 0:
        return SQNR_CAP_DB if noise == 0 else -SQNR_CAP_DB
    if noise == 0:
        return SQNR_CAP_DB
    return min(SQNR_CAP_DB, 10 * math.log10(signal / noise))


def _cosines(ours: Array, theirs: Array) -> Array:
    """Return the cosine of each row pair; two zero rows are alike, one zero row is not."""
    norms = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    fine = np.isfinite(norms) & (norms > 0)
    found: Array = np.all(ours == theirs, axis=1).astype(np.float64)
    found[fine] = (ours[fine] * theirs[fine]).sum(axis=1) / norms[fine]
    return found
