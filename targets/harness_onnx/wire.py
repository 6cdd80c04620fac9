"""Where each initializer's bytes lie in an ONNX file: a walk over the protobuf wire format, without copying."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from harness.api import BadModel

# Field numbers of onnx.proto: ModelProto.graph, GraphProto.initializer, TensorProto.dims/data_type/name/raw_data.
_GRAPH, _INITIALIZER, _DIMS, _DATA_TYPE, _NAME, _RAW_DATA = 7, 5, 1, 2, 8, 9
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


@dataclass(frozen=True)
class TensorSpan:
    """An initializer that is stored as raw bytes.

    Attributes:
        name: Of the initializer.
        shape: Its dimensions.
        offset, length: Of its values in the file, in bytes.
        data_type: Number of ``onnx.TensorProto.DataType``.
    """

    name: str
    data_type: int
    shape: tuple[int, ...]
    offset: int
    length: int


def raw_initializers(raw: bytes) -> Iterator[TensorSpan]:
    """Yield every initializer of the main graph whose values are raw bytes inside the file.

    Raises:
        BadModel: The bytes are not a protobuf message.
    """
    try:
        for number, start, end in _fields(raw, 0, len(raw)):
            if number == _GRAPH:
                for inner, first, last in _fields(raw, start, end):
                    if inner == _INITIALIZER and (span := _tensor(raw, first, last)) is not None:
                        yield span
    except IndexError as error:
        raise BadModel("file is not an ONNX model: it ends inside a field") from error


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = raw[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if not byte & 0x80:
            return value, at


def _fields(raw: bytes, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yield (field number, where its value starts, where it ends)."""
    while at < end:
        key, at = _varint(raw, at)
        number, kind = key >> 3, key & 7
        if kind == _VARINT:
            start, (_, at) = at, _varint(raw, at)
        elif kind == _BYTES:
            length, start = _varint(raw, at)
            at = start + length
        elif kind in {_FIXED64, _FIXED32}:
            start, at = at, at + (8 if kind == _FIXED64 else 4)
        else:
            raise BadModel(f"file is not an ONNX model: wire type {kind} at byte {at}")
        yield number, start, at


def _ints(raw: bytes, start: int, end: int) -> Iterator[int]:
    while start < end:
        value, start = _varint(raw, start)
        yield value


def _tensor(raw: bytes, start: int, end: int) -> TensorSpan | None:
    name, data_type, shape, values = "", 0, [], None
    for number, first, last in _fields(raw, start, end):
        if number == _DIMS:  # packed, or one field per dimension
            shape += list(_ints(raw, first, last))
        elif number == _DATA_TYPE:
            data_type = _varint(raw, first)[0]
        elif number == _NAME:
            name = raw[first:last].decode()
        elif number == _RAW_DATA:
            values = (first, last - first)
    return None if values is None else TensorSpan(name, data_type, tuple(shape), *values)
