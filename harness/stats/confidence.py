"""Calibration error and proper scores of a classifier's probabilities (MEASUREMENT 3)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.stats.order import LEVEL
from harness.types import Confidence, Interval

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]
    Floats = NDArray[np.float64]

BINS = 15  # of equal mass (Roelofs et al., AISTATS 2022)
RESAMPLES = 2_000
LEAST_PROBABILITY = 1e-12  # a class that is called impossible costs 27.6 nats, not infinity
SUM_SLACK = 1e-3  # rows of probabilities sum to one within this
CONFIDENCE, CORRECT, NLL, BRIER = range(4)  # columns of the per-item statistics


def probabilities(outputs: Array) -> tuple[Floats, str]:
    """Return [n, classes] probabilities, and how they were had: outputs that are none yet go through softmax."""
    values = np.asarray(outputs, dtype=np.float64)
    if values.min() >= 0 and np.abs(values.sum(axis=1) - 1).max() <= SUM_SLACK:
        return values / values.sum(axis=1, keepdims=True), "as given"
    shifted = np.exp(values - values.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True), "softmax"


def item_confidences(outputs: Array, labels: Array) -> tuple[Floats, str] | None:
    """Return per-item statistics [n, 4] (confidence, correct, nll, brier), and how outputs became probabilities.

    ``None`` where they are not the scores of classes: outputs [n, classes] and labels [n] of whole numbers below that.
    """
    if outputs.ndim != 2 or outputs.shape[1] < 2 or labels.shape != (len(outputs),) or not len(outputs):
        return None
    if not np.issubdtype(labels.dtype, np.integer) or labels.min() < 0 or labels.max() >= outputs.shape[1]:
        return None
    chances, how = probabilities(outputs)
    rows, guess = np.arange(len(labels)), chances.argmax(axis=1)
    right = chances[rows, labels]
    nll = -np.log(np.maximum(right, LEAST_PROBABILITY))
    brier = (chances**2).sum(axis=1) - 2 * right + 1
    return np.stack([chances[rows, guess], (guess == labels).astype(np.float64), nll, brier], axis=1), how


def equal_mass_bins(confidence: Floats, bins: int = BINS) -> NDArray[np.intp]:
    """Return the bin of each item: by rank, so that bins hold equally many; items of one confidence share a bin."""
    order = np.sort(confidence)
    edges = order[np.arange(1, bins) * len(order) // bins]
    return np.searchsorted(np.unique(edges), confidence, side="right")


def calibration_error(confidence: Floats, correct: Floats, bins: NDArray[np.intp]) -> float:
    """Return the expected calibration error: mean over items of |accuracy - confidence| of their bin (L1)."""
    return float(np.abs(np.bincount(bins, weights=correct - confidence)).sum() / len(confidence))


def debiased(confidence: Floats, correct: Floats, bins: NDArray[np.intp]) -> float:
    """Return the calibration error less what sampling adds to each bin.

    A bin's gap is near normal around the true one, so that its absolute value is a folded normal, whose mean lies
    above; the excess at the gap that was seen is taken off (Kumar et al., NeurIPS 2019, in closed form).
    """
    counts = np.bincount(bins).astype(np.float64)
    used = counts > 0
    counts = counts[used]
    accuracy = np.bincount(bins, weights=correct)[used] / counts
    gap = np.abs(np.bincount(bins, weights=correct - confidence)[used] / counts)
    sigma = np.sqrt(accuracy * (1 - accuracy) / counts)
    excess = folded_mean(gap, sigma) - gap
    return max(0.0, float((counts / counts.sum() * (gap - excess)).sum()))


def folded_mean(mean: Floats, sigma: Floats) -> Floats:
    """Return E|X| of X ~ Normal(mean, sigma): sigma sqrt(2/pi) exp(-m²/2s²) + m erf(m / (s sqrt 2))."""
    from scipy.special import erf  # not needed until something was measured

    ratio = np.divide(mean, sigma, out=np.full_like(mean, np.inf), where=sigma > 0)
    found: Floats = sigma * math.sqrt(2 / math.pi) * np.exp(-(ratio**2) / 2) + mean * erf(ratio / math.sqrt(2))
    return found


def confidence(
    items: Array, anchor_items: Array | None, *, how: str, seed: int = 0, resamples: int = RESAMPLES
) -> Confidence:
    """Judge per-item statistics, beside the anchor's on the same items.

    Intervals are bootstraps over items. Those of the calibration error and its change are basic ones (2 x estimate
    less the quantiles), because a resample adds to the error what the sample added already.

    Args:
        items: [n, 4] as ``item_confidences`` gives them.
        anchor_items: The same of the anchor, same items in the same order; ``None`` for the anchor itself.
        how: How outputs became probabilities.
        seed: Equal seeds give equal intervals.
        resamples: Of the bootstrap.
    """
    ours = _Drawn(np.asarray(items))
    theirs = _Drawn(np.asarray(anchor_items)) if anchor_items is not None and len(anchor_items) == len(items) else None
    chance = np.random.default_rng(seed)
    rows = (chance.integers(0, len(items), len(items)) for _ in range(resamples))
    drawn = [(ours.at(pick), theirs.at(pick) if theirs else None) for pick in rows]
    whole = slice(None)
    point, other = ours.at(whole), theirs.at(whole) if theirs else None
    found: dict[str, Interval] = {}
    for name in ("ece", "nll", "brier"):
        values = [one[name] for one, _ in drawn]
        found[name] = _interval(point[name], values, basic=name == "ece", least=0.0)
        if other is not None:
            changes = [one[name] - two[name] for one, two in drawn if two is not None]
            found[f"{name}_change"] = _interval(point[name] - other[name], changes, basic=name == "ece")
    return Confidence(
        items=len(items),
        bins=int(ours.bins.max()) + 1,
        probabilities=how,
        ece_debiased=debiased(ours.items[:, CONFIDENCE], ours.items[:, CORRECT], ours.bins),
        **found,
    )


class _Drawn:
    """Statistics of resamples; the bins are those of the whole sample."""

    def __init__(self, items: Floats) -> None:
        self.items = items
        self.bins = equal_mass_bins(items[:, CONFIDENCE])

    def at(self, pick: Any) -> Mapping[str, float]:
        part = self.items[pick]
        return {
            "ece": calibration_error(part[:, CONFIDENCE], part[:, CORRECT], self.bins[pick]),
            "nll": float(part[:, NLL].mean()),
            "brier": float(part[:, BRIER].mean()),
        }


def _interval(point: float, values: list[float], *, basic: bool, least: float | None = None) -> Interval:
    low, high = (float(value) for value in np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]))
    if basic:
        low, high = 2 * point - high, 2 * point - low
    low, high = (max(least, low), max(least, high)) if least is not None else (low, high)
    word = "basic bootstrap" if basic else "bootstrap"
    return Interval(point, low, high, LEVEL, f"{word} over items, {len(values)} resamples")
