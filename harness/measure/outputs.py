"""Run all items through a session and write what it returns, without holding more than a batch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib.format import open_memmap

from harness.errors import HarnessError
from harness.measure.inputs import batch_of, open_items, take
from harness.specs import Session

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]


def file_name(position: int, name: str) -> str:
    """Return a file name for an output; names that a file system may refuse are numbered."""
    return f"{name}.npy" if re.fullmatch(r"[\w.-]+", name) else f"output-{position}.npy"


def write_outputs(
    session: Session, evaluation: Path, folder: Path, *, batch: int, items: int | None
) -> tuple[dict[str, Path], int]:
    """Run the evaluation items and stream each output into ``<name>.npy`` of shape [items, …].

    Args:
        session: Open, of any purpose.
        evaluation: Folder of the items.
        folder: Where the outputs go.
        batch: Items per call where the session is dynamic; a fixed session keeps its own. A short last batch is
            padded by repeating its last item, and what comes back is cut.
        items: How many items; ``None`` for all.

    Returns:
        File by output name, and the batch that was used.

    Raises:
        HarnessError: An output's first dimension is not the batch.
    """
    arrays = open_items(evaluation, list(session.inputs))
    total = len(next(iter(arrays.values())))
    total = total if items is None else min(items, total)
    size = batch_of(session.inputs, batch)
    folder.mkdir(parents=True, exist_ok=True)
    files: dict[str, Path] = {}
    maps: dict[str, Array] = {}
    for start in range(0, total, size):
        which = [min(start + step, total - 1) for step in range(size)]
        results = session.run(take(arrays, session.inputs, which))
        if not maps:
            files = {name: folder / file_name(place, name) for place, name in enumerate(results)}
            maps = {name: _create(files[name], name, result, size, total) for name, result in results.items()}
        _store(maps, results, start, min(size, total - start))
    for array in maps.values():
        array.flush()  # type: ignore[attr-defined]  # of the memmap that open_memmap returns
    return files, size


def _create(path: Path, name: str, result: Array, size: int, total: int) -> Array:
    shape = np.shape(result)
    if not shape or shape[0] != size:
        raise HarnessError(f"output {name!r} has shape {list(shape)}; its first dimension is not the batch of {size}")
    return open_memmap(path, mode="w+", dtype=np.asarray(result).dtype, shape=(total, *shape[1:]))


def _store(maps: Mapping[str, Array], results: Mapping[str, Array], start: int, count: int) -> None:
    for name, array in maps.items():
        array[start : start + count] = results[name][:count]
