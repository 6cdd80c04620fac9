"""How far outputs are from the anchor's on the same items, without labels (MEASUREMENT 3)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.shards import Ragged
from harness.stats.order import LEVEL
from harness.stats.proportions import wilson
from harness.types import Interval

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

SQNR_CAP_DB = 300.0  # of identical outputs: beyond any float64, and JSON has no infinity
BLOCK = 1024  # items that are read at once
TOLERANCE = 1e-3  # absolute and relative: beyond it an element of an output counts as another
TOP = 5
LOWER_IS_CLOSER = frozenset({"outside_share", "max_abs_error", "kl_mean", "kl_p99"})
AGREEMENTS = ("top1_agreement", "top5_agreement")


@dataclass(frozen=True)
class Fidelity:
    """How close outputs are to others.

    Attributes:
        figures: By name, as ``fidelity`` explains them.
        agreement: Float64 [n, k]: of each item the share 0..1 of its choices that agree, by ``AGREEMENTS`` in order;
            ``None`` where outputs make no choice.
    """

    figures: Mapping[str, float]
    agreement: Array | None


def fidelity(
    outputs: Mapping[str, Array | Ragged],
    anchor_outputs: Mapping[str, Array | Ragged],
    *,
    task: str = "classification",
    classes: Mapping[str, int] | None = None,
) -> Fidelity:
    """Compare outputs with the anchor's on the same items, without labels; the worst output counts.

    SQNR is 10 log10(sum x² / sum (x - x̂)²) dB over all items, capped where they are identical; ``cosine`` is the mean
    over items, ``cosine_p1`` their first percentile; ``max_abs_error`` the largest difference, ``outside_share`` the
    share of elements further from the anchor's than 1e-3 + 1e-3 |x|. For classification, of outputs that hold classes:
    top-1 agreement; with more than five classes ``top5_agreement``, items whose first choice by the anchor is among
    the first five; of outputs [n, classes], ``kl_mean`` and ``kl_p99`` of KL(anchor || cell) of softmaxes, in nats.
    An item that has another shape than the anchor's counts as wholly different.

    Args:
        outputs: Array [n, …] by output name; memory-mapped ones are read in blocks.
        anchor_outputs: The same of the anchor.
        task: "classification", "regression" or "none".
        classes: Axis of the classes by output name, for a classification; the last one of each where not given. An
            output [n] of integers holds the choice itself.
    """
    axes = dict.fromkeys(outputs, -1) if classes is None else classes
    axes = axes if task != "regression" else {}
    shared = [name for name in outputs if name in anchor_outputs]
    found = [_compare(outputs[name], anchor_outputs[name], axes.get(name)) for name in shared]
    figures = [_reduced(one) for one in found]
    keys = sorted({key for one in figures for key in one})
    worst = {key: max if key in LOWER_IS_CLOSER else min for key in keys}
    return Fidelity({key: worst[key](one[key] for one in figures if key in one) for key in keys}, _agreement(found))


def _agreement(found: Sequence[Mapping[str, Array]]) -> Array | None:
    """Return the columns of the outputs that agree least."""
    known = ([one[key] for one in found if key in one] for key in AGREEMENTS)
    columns = [min(arrays, key=lambda array: float(array.mean())) for arrays in known if arrays]
    return np.stack(columns, axis=1) if columns else None


def agreement_intervals(agreement: Array | None) -> dict[str, Interval]:
    """Return the mean of each column of per-item agreement with Wilson's 95 % interval over items.

    Where an item makes several choices, such as one per pixel, it counts by the share of them that agree: a share
    varies less between items than right or wrong of the same mean, so the interval is then wide enough, not exact.

    Args:
        agreement: [n, k] of ``Fidelity``; ``None`` gives nothing.
    """
    if agreement is None:
        return {}
    sums = {name: float(column.sum()) for name, column in zip(AGREEMENTS, agreement.T, strict=False)}
    items = len(agreement)
    return {name: Interval(total / items, *wilson(total, items), LEVEL, "Wilson") for name, total in sums.items()}


def _compare(output: Array | Ragged, anchor: Array | Ragged, axis: int | None) -> dict[str, Array]:
    """Return figures of each item, by name."""
    if len(output) != len(anchor) or not len(output):
        raise ValueError(f"{len(output)} items of an output cannot be compared with the anchor's {len(anchor)}")
    if isinstance(output, Ragged) or isinstance(anchor, Ragged) or output.shape != anchor.shape:
        return _joined([_distances(*alike(*pair)) for pair in zip(output, anchor, strict=True)])
    blocks = range(0, len(output), BLOCK)
    return _joined([_block(output[at : at + BLOCK], anchor[at : at + BLOCK], axis) for at in blocks])


def _joined(parts: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def alike(ours: Array, theirs: Array) -> tuple[Array, Array]:
    """Return one item of each side as rows of equal length; all of an item in another shape is wrong."""
    mine, other = (np.asarray(item, dtype=np.float64).reshape(1, -1) for item in (ours, theirs))
    if ours.shape == theirs.shape:
        return mine, other
    return np.pad(mine, ((0, 0), (0, other.size))), np.pad(other, ((0, 0), (mine.size, 0)))


def _block(output: Array, anchor: Array, axis: int | None) -> dict[str, Array]:
    width = math.prod(output.shape[1:])
    ours = np.asarray(output, dtype=np.float64).reshape(len(output), width)
    theirs = np.asarray(anchor, dtype=np.float64).reshape(ours.shape)
    same = ~np.isfinite(theirs) & ((ours == theirs) | (np.isnan(ours) & np.isnan(theirs)))
    ours, theirs = (np.where(same, 0.0, array) for array in (ours, theirs))  # the model's own, not an error
    found = _distances(ours, theirs)
    if axis is None:
        return found
    if output.ndim == 1:
        return found | ({"top1_agreement": (ours == theirs).mean(axis=1)} if output.dtype.kind in "iu" else {})
    if -output.ndim < axis < output.ndim and axis and output.shape[axis] > 1:
        last = [np.moveaxis(side.reshape(output.shape), axis, -1) for side in (ours, theirs)]
        found |= _choices(*last)
    return found


def _distances(ours: Array, theirs: Array) -> dict[str, Array]:
    """Return figures of each item."""
    apart = np.abs(ours - theirs)
    return {
        "signal": (theirs**2).sum(axis=1),
        "noise": (apart**2).sum(axis=1),
        "cosine": cosines(ours, theirs),
        "apart": apart.max(axis=1, initial=0.0),
        "outside": (apart > TOLERANCE + TOLERANCE * np.abs(theirs)).sum(axis=1) / max(1, apart.shape[1]),
    }


def _choices(ours: Array, theirs: Array) -> dict[str, Array]:
    classes = ours.shape[-1]
    mine, other = (array.reshape(len(array), -1, classes) for array in (ours, theirs))
    first = other.argmax(axis=2)
    found = {"top1_agreement": (mine.argmax(axis=2) == first).mean(axis=1)}
    if classes > TOP:
        best = np.argpartition(mine, -TOP, axis=2)[..., -TOP:]
        found["top5_agreement"] = (best == first[..., None]).any(axis=2).mean(axis=1)
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
        "sqnr_db": decibel(float(found["signal"].sum()), float(found["noise"].sum())),
        "cosine": float(found["cosine"].mean()),
        "cosine_p1": float(np.quantile(found["cosine"], 0.01)),
        "outside_share": float(found["outside"].mean()),
        "max_abs_error": float(found["apart"].max()),
    }
    result |= {name: float(found[name].mean()) for name in AGREEMENTS if name in found}
    if "kl" in found:
        result |= {"kl_mean": float(found["kl"].mean()), "kl_p99": float(np.quantile(found["kl"], 0.99))}
    return {name: value for name, value in result.items() if math.isfinite(value)}


def decibel(signal: float, noise: float) -> float:
    """Return 10 log10(signal / noise), within ±300 dB: of identical outputs, and of those that are not finite."""
    if not math.isfinite(noise) or not math.isfinite(signal) or signal == 0:
        return SQNR_CAP_DB if noise == 0 else -SQNR_CAP_DB
    if noise == 0:
        return SQNR_CAP_DB
    return min(SQNR_CAP_DB, 10 * math.log10(signal / noise))


def cosines(ours: Array, theirs: Array) -> Array:
    """Return the cosine of each row pair; two zero rows are alike, one zero row is not."""
    norms = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    fine = np.isfinite(norms) & (norms > 0)
    found: Array = np.all(ours == theirs, axis=1).astype(np.float64)
    found[fine] = (ours[fine] * theirs[fine]).sum(axis=1) / norms[fine]
    return found
