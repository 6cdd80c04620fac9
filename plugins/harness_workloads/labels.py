"""Class labels against a model's outputs: taken as they are, mapped where that is plain, or refused in one sentence."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.api import BadModel
from harness_workloads.archives import class_labels

if TYPE_CHECKING:
    from numpy.typing import NDArray

log = logging.getLogger("harness")
_SHOWN = 6  # labels that a message names


def class_indices(labels: NDArray[Any], classes: int, where: str) -> NDArray[Any]:
    """Return labels [n] as class indices, 0 to classes - 1.

    Strings, and integers with gaps between them, stand for the classes in sorted order where there are as many.

    Args:
        labels: Of each item.
        classes: Outputs that the model has.
        where: Names the labels in errors.

    Raises:
        BadModel: They are no classes, or more or others than the model has outputs.
    """
    flat = labels.reshape(-1) if labels.ndim == 2 and labels.shape[1] == 1 else labels
    flat = flat.astype(np.int64) if flat.dtype.kind == "b" or _all(flat, int) else flat
    kinds = np.unique(flat) if flat.ndim == 1 and _sortable(flat) else None
    if kinds is None or flat.dtype.kind == "f" or not len(kinds):
        return class_labels(labels, where)
    if flat.dtype.kind in "iu" and kinds[0] >= 0 and kinds[-1] < classes:
        return class_labels(flat, where)
    told = ", ".join(map(str, kinds[:_SHOWN])) + (" …" if len(kinds) > _SHOWN else "")
    gaps = flat.dtype.kind not in "iu" or int(kinds[-1]) - int(kinds[0]) >= len(kinds)
    if gaps and len(kinds) == classes:
        log.warning("labels %s: %s are taken as classes 0 to %d, in sorted order", where, told, classes - 1)
        return np.searchsorted(kinds, flat).astype(np.int64)
    raise BadModel(
        f"labels {where} are {told}, but the model has {classes} {'outputs' if classes != 1 else 'output'}: class "
        f"indices from 0 to {classes - 1} are due",
        hint="give as many outputs as there are classes"
        if len(kinds) > classes
        else "numpy.unique(labels, return_inverse=True)[1] counts classes from 0, in sorted order",
    )


def _sortable(labels: NDArray[Any]) -> bool:
    return labels.dtype.kind in "iufSU" or _all(labels, str)


def _all(labels: NDArray[Any], kind: type) -> bool:
    return labels.dtype.kind == "O" and all(type(label) is kind for label in labels.reshape(-1))
