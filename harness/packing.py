"""Store weights in fewer bytes, losslessly: what a download needs where a decoder restores the file bit by bit.

Layout (little-endian): the magic, the raw length (u64), the number of records (u32), the records, their payloads in
the same order, then every raw byte that no record covers. A record is kind (u8), dtype code (u8), offset (u64) and
the tensor seen as [outer, channels, inner] (3 x u64). There is no entropy coding: a bit counts as a bit.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import codebook
from harness.codec import write_whole
from harness.errors import HarnessError, Unsupported

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Bits = NDArray[Any]  # of any integer dtype
    Signs = NDArray[np.bool_]

_MAGIC = b"HPAK\x01"
_HEADER = struct.Struct("<QI")
_RECORD = struct.Struct("<BBQQQQ")
_BINARY, _SPARSE, _CODEBOOK = 1, 2, 3
_FORMS = (_BINARY, _SPARSE)
_STORAGES = ("dense", "packed", "sparse", "codebook")
_WORDS = {_BINARY: "1-bit packed", _SPARSE: "sparse bitmask", _CODEBOOK: "codebook"}
# Floats are seen as unsigned integers, so that equality is equality of bits: -0.0 is not 0.0, NaN equals itself.
_VIEWS = {
    "float32": "<u4", "float16": "<u2", "bfloat16": "<u2", "float64": "<u8",
    "int8": "i1", "int16": "<i2", "int32": "<i4", "uint8": "i1",
}  # fmt: skip
_DTYPES = tuple(_VIEWS)  # the place in it is the dtype code: only ever append


@dataclass(frozen=True)
class Span:
    """Where one weight tensor lies in a file.

    Attributes:
        offset, length: In bytes.
        dtype: Name, such as "float32"; one that this module does not know is left as it is.
        shape: Row-major.
        axis: Of the output channels, along which a binarized tensor has one scale each.
    """

    offset: int
    length: int
    dtype: str
    shape: tuple[int, ...]
    axis: int = 0


@dataclass(frozen=True)
class _Record:
    kind: int
    dtype: str
    offset: int
    folded: tuple[int, int, int]
    payload: bytes = b""

    @property
    def items(self) -> int:
        return math.prod(self.folded)

    @property
    def length(self) -> int:
        return self.items * _item_bytes(self.dtype)

    def header(self) -> bytes:
        return _RECORD.pack(self.kind, _DTYPES.index(self.dtype), self.offset, *self.folded)


def pack(raw: bytes, spans: Sequence[Span], storage: str) -> bytes:
    """Encode each span in the smallest of dense, 1-bit, sparse and, where asked for, codebook form.

    Args:
        raw: A file's bytes.
        spans: The weight tensors in it; they do not overlap.
        storage: ``Precision.storage``: "dense" leaves all as it is, others take the smallest form.

    Raises:
        Unsupported: There is no decoder for this storage.
        HarnessError: A span overlaps another, leaves the file, or its length is not that of its shape.
    """
    if storage not in _STORAGES:
        raise Unsupported(f"no decoder is there for storage {storage!r}", hint=f"use one of {', '.join(_STORAGES)}")
    ordered = sorted(spans, key=lambda span: span.offset)
    _check(raw, ordered)
    forms = (*_FORMS, *((_CODEBOOK,) if storage == "codebook" else ()))
    records = [] if storage == "dense" else [found for span in ordered if (found := _encode(raw, span, forms))]
    head = _MAGIC + _HEADER.pack(len(raw), len(records)) + b"".join(record.header() for record in records)
    return head + b"".join(record.payload for record in records) + b"".join(_outside(raw, records))


def unpack(packed: bytes) -> bytes:
    """Return the raw bytes that ``pack`` was given.

    Raises:
        HarnessError: The bytes are not a packed file, or are cut short.
    """
    try:
        return _unpack(packed)
    except (struct.error, ValueError, IndexError) as error:
        raise HarnessError(f"packed file is corrupt: {error}") from error


def packed_as(packed: bytes) -> str:
    """Name the forms that a packed file uses, such as "1-bit packed"; empty where all is dense."""
    kinds = {record.kind for record in _read_records(packed)[1]}
    return ", ".join(word for kind, word in _WORDS.items() if kind in kinds)


def weight_bytes(spans: Iterable[Span]) -> dict[str, int]:
    """Return dtype -> bytes of a file's weights, for ``Artifact.weight_bytes``."""
    found: dict[str, int] = {}
    for span in spans:
        found[span.dtype] = found.get(span.dtype, 0) + span.length
    return found


def stored_size(path: Path, spans: Sequence[Span], storage: str, *, write: Path | None = None) -> tuple[int, str]:
    """Return how many bytes a file needs when its weights are packed, and how; decoding is checked on the spot.

    Args:
        path: The file that a runtime loads.
        spans: Its weight tensors.
        storage: ``Precision.storage``.
        write: Where to leave the packed file; nothing is written without it.

    Returns:
        Bytes, and the form in words; the file's own size and "" where packing does not make it smaller.
    """
    raw = path.read_bytes()
    if storage == "dense":
        return len(raw), ""
    packed = pack(raw, spans, storage)
    if unpack(packed) != raw:
        raise HarnessError(f"packing {path.name} does not give its bytes back")
    if write is not None:
        write_whole(write, packed)
    return (len(packed), packed_as(packed)) if len(packed) < len(raw) else (len(raw), "")


def _item_bytes(dtype: str) -> int:
    return int(_VIEWS[dtype][-1])


def _check(raw: bytes, ordered: Sequence[Span]) -> None:
    end = 0
    for span in ordered:
        if span.offset < end or span.length < 0 or span.offset + span.length > len(raw):
            raise HarnessError(f"span at byte {span.offset} overlaps another or leaves the file of {len(raw)} bytes")
        if span.dtype in _VIEWS and math.prod(span.shape) * _item_bytes(span.dtype) != span.length:
            raise HarnessError(f"span at byte {span.offset} has {span.length} bytes, not {span.dtype} {span.shape}")
        if span.shape and not -len(span.shape) <= span.axis < len(span.shape):
            raise HarnessError(f"span at byte {span.offset} has no axis {span.axis} in shape {span.shape}")
        end = span.offset + span.length


def _fold(shape: tuple[int, ...], axis: int) -> tuple[int, int, int]:
    """Return a shape as [outer, channels, inner] around the channel axis."""
    if not shape:
        return (1, 1, 1)
    axis %= len(shape)
    return (math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1 :]))


def _encode(raw: bytes, span: Span, kinds: Sequence[int]) -> _Record | None:
    import numpy as np

    if span.dtype not in _VIEWS or not span.length:
        return None
    folded = _fold(span.shape, span.axis)
    centred = _centred(raw[span.offset : span.offset + span.length], span.dtype)
    values = np.frombuffer(centred, _VIEWS[span.dtype]).reshape(folded)
    forms = ((kind, _to_form(kind, values, span.dtype)) for kind in kinds)
    records = [_Record(kind, span.dtype, span.offset, folded, form) for kind, form in forms if form is not None]
    best = min(records, key=lambda record: len(record.payload))
    return best if _RECORD.size + len(best.payload) < span.length else None


def _to_form(kind: int, values: Bits, dtype: str) -> bytes | None:
    if kind == _BINARY:
        return _to_binary(values, dtype)
    return _to_sparse(values) if kind == _SPARSE else codebook.encode(values)


def _centred(values: bytes, dtype: str) -> bytes:
    """Move uint8 so that 128, the zero point of symmetric weights, becomes 0; it undoes itself."""
    import numpy as np

    return bytes(np.frombuffer(values, np.uint8) ^ 128) if dtype == "uint8" else values


def _sign_bit(dtype: str) -> int:
    return 1 << (8 * _item_bytes(dtype) - 1)


def _split_sign(values: Bits, dtype: str) -> tuple[Bits, Signs] | None:
    """Return magnitudes in the values' own dtype and signs; None where a magnitude has no positive form."""
    import numpy as np

    if "float" in dtype:
        bit = values.dtype.type(_sign_bit(dtype))
        return values & ~bit, (values & bit) != 0
    magnitude = np.abs(values.astype(np.int64))
    if magnitude.max() > np.iinfo(values.dtype).max:
        return None
    return magnitude.astype(values.dtype), values < 0


def _to_binary(values: Bits, dtype: str) -> bytes | None:
    """Return one scale per channel and one bit per item, where every item is exactly plus or minus its scale."""
    import numpy as np

    split = _split_sign(values, dtype)
    if split is None:
        return None
    magnitude, negative = split
    scales = magnitude[:1, :, :1]
    if not (magnitude == scales).all():
        return None
    return scales.tobytes() + np.packbits(negative).tobytes()


def _from_binary(payload: bytes, record: _Record) -> bytes:
    import numpy as np

    _outer, channels, _inner = record.folded
    scales = np.frombuffer(payload, _VIEWS[record.dtype], channels).reshape(1, channels, 1)
    bits = np.frombuffer(payload, np.uint8, offset=scales.nbytes)
    negative = np.unpackbits(bits, count=record.items).reshape(record.folded).astype(bool)
    minus = scales | scales.dtype.type(_sign_bit(record.dtype)) if "float" in record.dtype else -scales
    return bytes(np.where(negative, minus, scales).astype(scales.dtype).tobytes())


def _to_sparse(values: Bits) -> bytes:
    """Return one bit per item that is not zero, then those items."""
    import numpy as np

    flat = values.reshape(-1)
    mask = flat != 0
    return bytes(np.packbits(mask).tobytes() + flat[mask].tobytes())


def _from_sparse(payload: bytes, record: _Record) -> bytes:
    import numpy as np

    mask = np.unpackbits(np.frombuffer(payload, np.uint8, -(-record.items // 8)), count=record.items).astype(bool)
    values = np.zeros(record.items, _VIEWS[record.dtype])
    values[mask] = np.frombuffer(payload, values.dtype, offset=-(-record.items // 8))
    return bytes(values.tobytes())


def _outside(raw: bytes, records: Iterable[_Record]) -> list[bytes]:
    parts, end = [], 0
    for record in records:
        parts.append(raw[end : record.offset])
        end = record.offset + record.length
    return [*parts, raw[end:]]


def _read_records(packed: bytes) -> tuple[int, list[_Record], int]:
    """Return the raw length, the records without payloads, and where the payloads begin."""
    if not packed.startswith(_MAGIC):
        raise HarnessError("packed file has another magic")
    length, count = _HEADER.unpack_from(packed, len(_MAGIC))
    start = len(_MAGIC) + _HEADER.size
    records = []
    for _ in range(count):
        kind, code, offset, *folded = _RECORD.unpack_from(packed, start)
        records.append(_Record(kind, _DTYPES[code], offset, (folded[0], folded[1], folded[2])))
        start += _RECORD.size
    return length, records, start


def _payload(packed: bytes, start: int, record: _Record) -> bytes:
    import numpy as np

    if record.kind == _CODEBOOK:
        return packed[start : start + codebook.length(packed, start, record.folded, _item_bytes(record.dtype))]
    bits = -(-record.items // 8)
    if record.kind == _BINARY:
        return packed[start : start + bits + record.folded[1] * _item_bytes(record.dtype)]
    ones = int(np.unpackbits(np.frombuffer(packed, np.uint8, bits, start), count=record.items).sum())
    return packed[start : start + bits + ones * _item_bytes(record.dtype)]


def _decode(payload: bytes, record: _Record) -> bytes:
    if record.kind == _CODEBOOK:
        return codebook.decode(payload, record.folded, _VIEWS[record.dtype])
    return _from_binary(payload, record) if record.kind == _BINARY else _from_sparse(payload, record)


def _unpack(packed: bytes) -> bytes:
    length, records, start = _read_records(packed)
    decoded = []
    for record in records:
        payload = _payload(packed, start, record)
        decoded.append(_centred(_decode(payload, record), record.dtype))
        start += len(payload)
    parts, end = [], 0
    for record, values in zip(records, decoded, strict=True):
        gap = record.offset - end
        parts += [packed[start : start + gap], values]
        start, end = start + gap, record.offset + record.length
    raw = b"".join([*parts, packed[start:]])
    if len(raw) != length:
        raise ValueError(f"{len(raw)} bytes decoded where {length} are due")
    return raw
