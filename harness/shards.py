"""Outputs on disk: one array, items first, or where items differ in shape, their values and shapes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib.format import open_memmap

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

SUFFIX = ".npz"  # of a file of items that differ in shape; .npy where all are alike


@dataclass(frozen=True)
class Ragged:
    """Items that differ in shape.

    Attributes:
        values: Of all items, one after another: shape [sum of sizes].
        shapes: Of each item.
    """

    values: Array
    shapes: tuple[tuple[int, ...], ...]

    @property
    def dtype(self) -> Any:
        """Of the values."""
        return self.values.dtype

    def __len__(self) -> int:
        return len(self.shapes)

    def __iter__(self) -> Iterator[Array]:
        """Yield each item in its shape."""
        start = 0
        for shape in self.shapes:
            size = int(np.prod(shape, dtype=np.int64))
            yield self.values[start : start + size].reshape(shape)
            start += size


def load_shard(path: Path) -> Array | Ragged:
    """Read what a ``Shard`` wrote; an array is mapped into memory."""
    if path.suffix != SUFFIX:
        found: Array = np.load(path, mmap_mode="r", allow_pickle=False)
        return found
    with np.load(path, allow_pickle=False) as held:
        ranks, sizes = held["ranks"], iter(held["sizes"].tolist())
        return Ragged(held["values"], tuple(tuple(next(sizes) for _ in range(rank)) for rank in ranks.tolist()))


class Shard:
    """One output while it is written: an array until an item of another shape comes.

    Args:
        path: Of the array, a .npy file.
        entries: How many will come.
    """

    def __init__(self, path: Path, entries: int) -> None:
        self._path = path
        self._entries = entries
        self._count = 0
        self._map: Array | None = None
        self._items: list[Array] = []

    def add(self, entries: Array) -> None:
        """Append entries of one shape."""
        if self._map is None and not self._items and entries.size:  # nothing cannot be mapped into memory
            shape = (self._entries, *entries.shape[1:])
            self._map = open_memmap(self._path, mode="w+", dtype=entries.dtype, shape=shape)
        if self._map is not None and self._map.shape[1:] == entries.shape[1:]:
            self._map[self._count : self._count + len(entries)] = entries
        else:
            self._unlike(entries)
        self._count += len(entries)

    def _unlike(self, entries: Array) -> None:
        if self._map is not None:
            self._items, self._map = list(np.array(self._map[: self._count])), None
            self._path.unlink()
        self._items += list(np.array(entries))

    def close(self) -> Path:
        """Write what is left and return the file."""
        if self._map is not None:
            self._map.flush()  # type: ignore[attr-defined]  # of the memmap that open_memmap returns
            self._map = None
            return self._path
        path = self._path.with_suffix(SUFFIX)
        values = np.concatenate([item.reshape(-1) for item in self._items])
        ranks = np.array([item.ndim for item in self._items], np.int64)
        sizes = np.array([size for item in self._items for size in item.shape], np.int64)
        np.savez(path, values=values, ranks=ranks, sizes=sizes)
        return path
