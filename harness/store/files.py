"""The files of a run as bytes: encoded so that they can be read back, refused by name where they cannot."""

from __future__ import annotations

import gzip
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from harness import codec
from harness.errors import RecordError
from harness.types import SCHEMA

if TYPE_CHECKING:
    from numpy.typing import NDArray

T = TypeVar("T")
_LARGEST = 1 << 30  # bytes of one unpacked file: a stranger's run must not fill the memory


@dataclass(frozen=True)
class _Head:
    schema: int


def pack(raw: bytes) -> bytes:
    """Compress so that equal bytes give equal files: no time and no name in the header."""
    stream = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", compresslevel=9, fileobj=stream, mtime=0) as packed:
        packed.write(raw)
    return stream.getvalue()


def unpack(raw: bytes, where: str) -> bytes:
    """Decompress.

    Raises:
        RecordError: Truncated, corrupt, or larger than any run's file.
    """
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(raw)) as packed:
            data = packed.read(_LARGEST + 1)
    except (EOFError, OSError, ValueError) as error:
        raise RecordError(f"{where} cannot be unpacked: {error}") from error
    except Exception as error:  # zlib.error is no OSError; its type is not exported by gzip
        raise RecordError(f"{where} cannot be unpacked: {error}") from error
    if len(data) > _LARGEST:
        raise RecordError(f"{where} unpacks to more than {_LARGEST >> 20} MiB")
    return data


def encode(value: object, where: str) -> bytes:
    """Return the value as readable JSON, after reading it back.

    Raises:
        RecordError: It would not read back as itself: a NaN or an infinity, for which JSON has no number.
    """
    raw = codec.canonical(value, indent=1) + b"\n"
    decode(type(value), raw, where)
    return raw


def decode(kind: type[T], raw: bytes, where: str) -> T:
    """Read JSON of a known schema.

    Raises:
        RecordError: Corrupt, of another kind, or written by a newer harness.
    """
    head = codec.loads(_Head, raw, where=where)
    if head.schema > SCHEMA:
        raise RecordError(
            f"{where} has schema {head.schema}, this harness reads up to {SCHEMA}",
            hint="upgrade it: pip install --upgrade compression-harness",
        )
    return codec.loads(kind, raw, where=where)


def encode_scores(scores: NDArray[Any]) -> bytes:
    """Return per-item statistics of shape [n, k] as a .npy file without pickles."""
    import numpy as np  # late: the store's names are imported where numpy is not needed

    stream = io.BytesIO()
    np.save(stream, scores, allow_pickle=False)
    return stream.getvalue()


def decode_scores(raw: bytes, where: str) -> NDArray[Any]:
    """Read per-item statistics.

    Raises:
        RecordError: Truncated, or not a plain array.
    """
    import numpy as np  # as above

    try:
        return np.asarray(np.load(io.BytesIO(raw), allow_pickle=False))
    except (EOFError, OSError, ValueError) as error:
        raise RecordError(f"{where} is not an array: {error}") from error
