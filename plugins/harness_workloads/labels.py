"""Class labels against a model's outputs: taken as they are, mapped where that is plain, or refused in one sentence."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.api import BadModel
from harness_workloads.archives import class_labels
from harness_workloads.roles import Interface, Port

if TYPE_CHECKING:
    from numpy.typing import NDArray

log = logging.getLogger("harness")
_SHOWN = 6  # labels that a message names


def first_output(known: Interface, gives: Mapping[str, Port]) -> Port:
    """Return the first output as it is stored: items first."""
    name, port = next(iter(gives.items()))
    axis = known.axes.get(name, 0)
    if port.dims is None or axis is None:
        return Port(port.dtype, None if port.dims is None else ("n", *port.dims))
    return Port(port.dtype, ("n", *(dim for at, dim in enumerate(port.dims) if at != axis)))


def checked_labels(labels: NDArray[Any], where: str, *, first: Port, axis: int | None, task: str) -> NDArray[Any]:
    """Return labels that can be compared with the first output.

    Args:
        labels: Of each item: classes [n], or of each position of an item, [n, …].
        where: Names them in errors.
        first: The first output, items first.
        axis: Of its classes, where it is said.
        task: "regression" takes any numbers.

    Raises:
        BadModel: They cannot be; one sentence says what to do.
    """
    if task == "regression":
        if labels.dtype.kind not in "biuf":
            raise BadModel(f"labels {where} have dtype {labels.dtype}; numbers are due for a regression")
        return labels
    dims = first.dims
    flat = labels.ndim == 1 or (labels.ndim == 2 and labels.shape[1] == 1)
    if dims is None or len(dims) == 1:  # nothing is known of it, or it holds the choice itself
        return class_labels(labels, where)
    if flat and axis is None:
        sizes = [dim for dim in dims[1:] if dim != 1]
        count = sizes[0] if sizes else 2  # one value of two classes
        if len(sizes) < 2 and isinstance(count, int):
            return class_indices(labels, count, where)
        return class_labels(labels, where)
    return _by_position(labels, where, dims, axis)


def _by_position(labels: NDArray[Any], where: str, dims: tuple[int | str, ...], axis: int | None) -> NDArray[Any]:
    """Check labels of each position against outputs whose classes lie on an axis."""
    options = [axis % len(dims)] if axis is not None and -len(dims) <= axis < len(dims) else range(1, len(dims))
    for place in options:
        rest = [dim for at, dim in enumerate(dims) if at not in {0, place}]
        pairs = zip(rest, labels.shape[1:], strict=False)
        if len(rest) == labels.ndim - 1 and all(isinstance(dim, str) or dim == size for dim, size in pairs):
            count = dims[place]
            whole = class_indices(labels.reshape(-1), count, where) if isinstance(count, int) else labels
            if whole.dtype.kind in "iu" and whole.min(initial=0) >= 0:
                return whole.reshape(labels.shape).astype(np.int64)
    shape = ", ".join("n" if at == 0 else str(dim) if isinstance(dim, int) else "any" for at, dim in enumerate(dims))
    raise BadModel(
        f"labels {where} have dtype {labels.dtype} and shape {list(labels.shape)}, the first output [{shape}]; class "
        "indices of that shape without the axis of the classes are due",
        hint="say which axis that is with --classes-axis, leave labels out with --task none, or --task regression",
    )


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
