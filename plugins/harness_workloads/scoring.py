"""Scores per item, the metrics made of them, and the losses that go with them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.api import BadModel

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]


def correct(outputs: Mapping[str, Array], labels: Array) -> Array:
    """Return the share of an item's labels that the first output chooses, of one label 1 or 0: shape [n, 1].

    The choice is the largest value along the classes: all values of an item for labels [n]; for labels [n, …] the axis
    without which the output has their shape, axis 1 before others. An output of integers in the shape of the labels is
    the choice itself; a single value for two classes is a probability where all lie within 0 and 1, else a logit.

    Raises:
        BadModel: A label names a class that the model has no logit for, or the shapes do not fit.
    """
    logits, labels = next(iter(outputs.values())), np.asarray(labels)
    labels = labels.reshape(-1) if labels.ndim == 2 and labels.shape[1] == 1 else labels
    if logits.dtype.kind in "iu" and logits.size == labels.size:
        return _shares(logits.reshape(labels.shape) == labels)
    if labels.ndim > 1:
        axes = [at for at in range(1, logits.ndim) if np.delete(logits.shape, at).tolist() == list(labels.shape)]
        if not axes:
            raise BadModel(f"labels of shape {list(labels.shape)} do not fit an output of shape {list(logits.shape)}")
        return _shares(logits.argmax(axis=axes[0]) == labels)
    logits = logits.reshape(len(logits), -1)
    if logits.shape[1] == 1 and set(np.unique(labels).tolist()) <= {0, 1}:
        middle = 0.5 if logits.min() >= 0 and logits.max() <= 1 else 0.0
        return _shares((logits[:, 0] > middle) == labels)
    highest = int(np.max(labels, initial=0))
    if highest >= logits.shape[1]:
        raise BadModel(f"a label is {highest}, but the model has {logits.shape[1]} outputs (classes count from 0)")
    return _shares(logits.argmax(axis=1) == labels)


def _shares(hits: Array) -> Array:
    return np.asarray(hits.reshape(len(hits), -1).mean(axis=1, keepdims=True), dtype=np.float64)


def accuracy(scores: Array) -> float:
    """Return the share of correct items, 0..1."""
    return float(np.mean(scores[:, 0]))


def squared_error(outputs: Mapping[str, Array], labels: Array) -> Array:
    """Return each item's squared error, averaged over the first output's values: shape [n, 1]."""
    values = next(iter(outputs.values())).astype(np.float64)
    values = values.reshape(len(values), -1)
    return np.asarray(np.mean((values - np.asarray(labels).reshape(values.shape)) ** 2, axis=1, keepdims=True))


def root_mean(scores: Array) -> float:
    """Return the square root of the mean of squared errors."""
    return float(np.sqrt(np.mean(scores[:, 0])))


def cross_entropy(outputs: Any, labels: Any) -> Any:
    """Return the mean cross-entropy of logits [n, classes] against class indices [n], or of each position's.

    Of positions the classes lie on the axis without which the logits have the labels' shape, axis 1 before others; a
    single value for two classes is a logit.
    """
    from torch.nn import functional

    logits = outputs[0] if isinstance(outputs, (tuple, list)) else outputs
    if labels.dim() > 1 and labels.numel() != len(labels):
        shape = list(logits.shape)
        axis = next(at for at in range(1, len(shape)) if shape[:at] + shape[at + 1 :] == list(labels.shape))
        return functional.cross_entropy(logits.movedim(axis, 1), labels.long())
    if logits.numel() == len(logits):
        return functional.binary_cross_entropy_with_logits(logits.reshape(-1), labels.reshape(-1).to(logits.dtype))
    return functional.cross_entropy(logits, labels.reshape(-1).long())


def mean_squared_error(outputs: Any, labels: Any) -> Any:
    """Return the mean squared error of values [n, k] against labels of as many values."""
    from torch.nn import functional

    values = outputs[0] if isinstance(outputs, (tuple, list)) else outputs
    return functional.mse_loss(values, labels.reshape(values.shape).to(values.dtype))
