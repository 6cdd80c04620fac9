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
    """Return 1 where the largest logit of the first output is the label, else 0: shape [n, 1].

    Raises:
        BadModel: A label names a class that the model has no logit for.
    """
    logits = next(iter(outputs.values()))
    logits = logits.reshape(len(logits), -1)
    highest = int(np.max(labels, initial=0))
    if highest >= logits.shape[1]:
        raise BadModel(f"a label is {highest}, but the model has {logits.shape[1]} outputs (classes count from 0)")
    return (logits.argmax(axis=1) == np.asarray(labels).reshape(-1)).astype(np.float64)[:, None]


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
    """Return the mean cross-entropy of logits [n, classes] against class indices [n]."""
    from torch.nn import functional

    logits = outputs[0] if isinstance(outputs, (tuple, list)) else outputs
    return functional.cross_entropy(logits, labels.reshape(-1).long())


def mean_squared_error(outputs: Any, labels: Any) -> Any:
    """Return the mean squared error of values [n, k] against labels of as many values."""
    from torch.nn import functional

    values = outputs[0] if isinstance(outputs, (tuple, list)) else outputs
    return functional.mse_loss(values, labels.reshape(values.shape).to(values.dtype))
