"""Tensors of few values as a table and an index per item: one of the forms in which ``packing`` stores weights.

A payload is: whether each channel has a table of its own (u8), entries per table less one (u8), the tables (raw items,
short ones filled with zeros), then the indices, each of as few bits as the entries need, most significant bit first.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Bits = NDArray[Any]

_HEAD = 2  # bytes before the tables
_MOST = 256  # entries of a table
_MOST_OF_CHANNEL = 32  # entries of a channel's own table: more would rarely pay
_PROBE = 4096  # items looked at before all are sorted
Shape = tuple[int, int, int]


def encode(values: Bits) -> bytes | None:
    """Return the shorter of one table for all and one per channel; None where the values are too many for either.

    Args:
        values: Integers [outer, channels, inner]; floats are seen as their bits.
    """
    found = [payload for payload in (_of_all(values), _of_channels(values)) if payload is not None]
    return min(found, key=len, default=None)


def _of_all(values: Bits) -> bytes | None:
    import numpy as np

    if len(np.unique(values.reshape(-1)[:_PROBE])) > _MOST:
        return None
    table, index = np.unique(values, return_inverse=True)
    return _payload([table], index.reshape(-1), 0) if len(table) <= _MOST else None


def _of_channels(values: Bits) -> bytes | None:
    import numpy as np

    tables, index = [], np.empty(values.shape, np.int64)
    for channel in range(values.shape[1]):
        part = values[:, channel]
        if len(np.unique(part.reshape(-1)[:_PROBE])) > _MOST_OF_CHANNEL:
            return None
        table, places = np.unique(part, return_inverse=True)
        if len(table) > _MOST_OF_CHANNEL:
            return None
        tables.append(table)
        index[:, channel] = places.reshape(part.shape)
    return _payload(tables, index.reshape(-1), 1)


def _payload(tables: list[Bits], index: Bits, own: int) -> bytes:
    import numpy as np

    entries = max(len(table) for table in tables)
    filled = np.zeros((len(tables), entries), tables[0].dtype)
    for row, table in zip(filled, tables, strict=True):
        row[: len(table)] = table
    width = _width(entries)
    bits = (index[:, None] >> np.arange(width - 1, -1, -1)) & 1
    return bytes([own, entries - 1]) + filled.tobytes() + np.packbits(bits.astype(np.uint8)).tobytes()


def _width(entries: int) -> int:
    return max(1, math.ceil(math.log2(entries)))


def length(packed: bytes, start: int, folded: Shape, item_bytes: int) -> int:
    """Return how many bytes the payload that begins at ``start`` has."""
    own, entries = packed[start], packed[start + 1] + 1
    tables = folded[1] if own else 1
    return _HEAD + tables * entries * item_bytes + -(-math.prod(folded) * _width(entries) // 8)


def decode(payload: bytes, folded: Shape, dtype: str) -> bytes:
    """Return the items of a payload, [outer, channels, inner], as raw bytes.

    Args:
        payload: What ``encode`` gave.
        folded: Shape that ``encode`` was given.
        dtype: NumPy name of the integers.
    """
    import numpy as np

    own, entries = payload[0], payload[1] + 1
    tables = folded[1] if own else 1
    table = np.frombuffer(payload, dtype, tables * entries, _HEAD).reshape(tables, entries)
    width, items = _width(entries), math.prod(folded)
    raw = np.frombuffer(payload, np.uint8, offset=_HEAD + table.nbytes)
    bits = np.unpackbits(raw, count=items * width).reshape(items, width).astype(np.int64)
    index = (bits << np.arange(width - 1, -1, -1)).sum(1).reshape(folded)
    channel = np.arange(folded[1])[None, :, None] if own else 0
    return bytes(table[channel, index].tobytes())
