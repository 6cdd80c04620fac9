"""Run all items through a model and write what it returns, without holding more than a batch."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib.format import open_memmap

from harness.errors import HarnessError
from harness.measure.inputs import batch_of, open_items, take
from harness.types import TensorSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]


def file_name(position: int, name: str) -> str:
    """Return a file name for an output; names that a file system may refuse are numbered."""
    return f"{name}.npy" if re.fullmatch(r"[\w.-]+", name) else f"output-{position}.npy"


def write_outputs(
    call: Callable[[Mapping[str, Array]], Mapping[str, Array]],
    specs: Mapping[str, TensorSpec],
    axes: Mapping[str, int | None],
    evaluation: Path,
    folder: Path,
    *,
    batch: int,
    items: int | None,
) -> tuple[dict[str, Path], int]:
    """Run the evaluation items and stream each output into ``<name>.npy`` of shape [items, …].

    Args:
        call: Runs one batch: arrays by input name -> arrays by output name.
        specs: The inputs that it takes.
        axes: Output name -> dimension that holds the items of a call; 0 for one that is not named.
        evaluation: Folder of the items.
        folder: Where the outputs go.
        batch: Items per call where the inputs take any number; fixed ones keep their own. A short last batch is
            padded by repeating its last item, and what comes back is cut.
        items: How many items; ``None`` for all.

    Returns:
        File by output name, and the batch that was used.

    Raises:
        HarnessError: The dimension of an output that should hold the items is not as long as the batch.
    """
    arrays = open_items(evaluation, list(specs))
    total = len(next(iter(arrays.values())))
    total = total if items is None else min(items, total)
    size = batch_of(specs, batch)
    folder.mkdir(parents=True, exist_ok=True)
    files: dict[str, Path] = {}
    maps: dict[str, Array] = {}
    for start in range(0, total, size):
        which = [min(start + step, total - 1) for step in range(size)]
        results = _items_first(call(take(arrays, specs, which)), axes, size)
        if not maps:
            files = {name: folder / file_name(place, name) for place, name in enumerate(results)}
            maps = {name: _create(files[name], result, total) for name, result in results.items()}
        _store(maps, results, start, min(size, total - start))
    for array in maps.values():
        array.flush()  # type: ignore[attr-defined]  # of the memmap that open_memmap returns
    return files, size


def _items_first(results: Mapping[str, Array], axes: Mapping[str, int | None], size: int) -> dict[str, Array]:
    found = {}
    for name, result in results.items():
        axis, shape = axes.get(name, 0), np.shape(result)
        if axis is None or len(shape) <= axis or shape[axis] != size:
            which = "first dimension" if not axis else f"dimension {axis}"
            raise HarnessError(f"output {name!r} has shape {list(shape)}; its {which} is not the batch of {size}")
        found[name] = np.moveaxis(np.asarray(result), axis, 0)
    return found


def _create(path: Path, result: Array, total: int) -> Array:
    return open_memmap(path, mode="w+", dtype=result.dtype, shape=(total, *result.shape[1:]))


def _store(maps: Mapping[str, Array], results: Mapping[str, Array], start: int, count: int) -> None:
    for name, array in maps.items():
        array[start : start + count] = results[name][:count]
