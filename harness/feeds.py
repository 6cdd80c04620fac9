"""How stored arrays become what a call is fed: items on their axis, constants as they are, states from call to call."""

from __future__ import annotations

import dataclasses
import hashlib
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from harness.types import TensorSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]
    Arrays = Mapping[str, Array]
    Call = Callable[[Arrays], Arrays]

_PLAIN = re.compile(r"(?!labels$)\w[\w.-]{0,99}", re.ASCII)  # what any file system takes; "labels" is another file


def shard_name(name: str) -> str:
    """Return the file name of an array: the name itself, or a part of it with a hash where a file system may balk."""
    if _PLAIN.fullmatch(name):
        return f"{name}.npy"
    stem = re.sub(r"[^\w.-]+", "_", name, flags=re.ASCII)[:40].strip(".")
    return f"{stem}~{hashlib.sha256(name.encode()).hexdigest()[:16]}.npy"


def with_roles(specs: Mapping[str, TensorSpec], declared: Mapping[str, TensorSpec]) -> dict[str, TensorSpec]:
    """Return a session's inputs with the roles that the model declares for them."""
    return {name: _like(spec, declared[name]) if name in declared else spec for name, spec in specs.items()}


def _like(spec: TensorSpec, declared: TensorSpec) -> TensorSpec:
    return dataclasses.replace(spec, role=declared.role, axis=declared.axis, source=declared.source)


def items_in(specs: Mapping[str, TensorSpec], arrays: Arrays) -> dict[str, int]:
    """Return how many items each item input has."""
    return {name: len(arrays[name]) for name, spec in specs.items() if spec.role == "item"}


def items_of_call(specs: Mapping[str, TensorSpec], inputs: Arrays) -> int:
    """Return how many items the arrays of a call hold."""
    axes = {name: spec.axis for name, spec in specs.items() if spec.role == "item"}
    return next((inputs[name].shape[axis] for name, axis in axes.items() if axis is not None), 1)


def fixed_batch(specs: Mapping[str, TensorSpec]) -> int | None:
    """Return the batch that a model is fixed to by its item inputs; ``None`` where it takes any."""
    items = [spec for spec in specs.values() if spec.role == "item"]
    if any(spec.axis is None for spec in items):
        return 1
    sizes = (spec.shape[spec.axis] for spec in items if spec.axis is not None and len(spec.shape) > spec.axis)
    return next((size for size in sizes if size is not None), None)


def one_by_one(specs: Mapping[str, TensorSpec], axes: Mapping[str, int | None]) -> bool:
    """Tell whether calls of one item each are due: an output belongs to the call, or a state to the one before."""
    return None in axes.values() or any(spec.role == "state" for spec in specs.values())


def feed(specs: Mapping[str, TensorSpec], arrays: Arrays, which: Sequence[int]) -> dict[str, Array]:
    """Return contiguous arrays, of the dtypes that a call takes, for the items ``which``; states as they start.

    Args:
        specs: The inputs of a call, with their roles.
        arrays: Items first, shape [n, …]; constants and states as they are fed, of batch 1 on their axis.
        which: Indices of the items: one where an item input has no axis to stack them on.
    """
    return {name: _fed(spec, arrays[name], which) for name, spec in specs.items()}


def _fed(spec: TensorSpec, array: Array, which: Sequence[int]) -> Array:
    import numpy as np

    if spec.role != "item":
        grows = spec.axis is not None and array.ndim > spec.axis and array.shape[spec.axis] == 1 < len(which)
        value = np.repeat(array, len(which), spec.axis or 0) if grows else np.array(array)
    elif spec.axis is None:
        value = np.array(array[which[0]])
    else:
        value = np.moveaxis(array[np.asarray(which)], 0, spec.axis)
    return np.asarray(value, dtype=np.dtype(spec.dtype), order="C")


class Carried:
    """A call that is fed with the states that the call before it gave.

    Args:
        run: One call.
        sources: State -> the output that is fed back into it.
    """

    def __init__(self, run: Call, sources: Mapping[str, str]) -> None:
        self._run = run
        self._sources = sources
        self._held: Arrays = {}

    def __call__(self, inputs: Arrays) -> Arrays:
        """Run; the first call takes the states from its inputs."""
        results = self._run({**inputs, **self._held})
        self._held = {name: results[source] for name, source in self._sources.items()}
        return results


def carried(run: Call, specs: Mapping[str, TensorSpec]) -> Call:
    """Return a call that carries the states; without any, the very same call."""
    sources = {name: spec.source for name, spec in specs.items() if spec.role == "state"}
    return Carried(run, sources) if sources else run


def as_array(result: Any) -> Array:
    """Return an output as one array of numbers.

    A sequence of tensors is stacked, or where they differ in shape, flattened; maps of an item become a row in the
    order of their keys; strings become checksums, which are equal where they are.
    """
    import numpy as np

    if isinstance(result, Mapping):
        return np.stack([as_array(value) for value in result.values()], axis=-1)
    if isinstance(result, Sequence) and not isinstance(result, str):
        parts = [as_array(value) for value in result]
        alike = len({part.shape for part in parts}) == 1
        return np.stack(parts) if alike else np.concatenate([np.zeros(0), *(part.reshape(-1) for part in parts)])
    array = np.asarray(result)
    if array.dtype.kind not in "OUS":
        return array
    sums = [zlib.crc32(str(value).encode()) for value in array.reshape(-1).tolist()]
    return np.array(sums, np.int64).reshape(array.shape)
