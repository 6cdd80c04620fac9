"""Values to JSON and back, and the canonical bytes that are hashed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from harness.errors import RecordError

T = TypeVar("T")


def _encode(value: object) -> object:
    if isinstance(value, Path):
        return str(value)
    raise NotImplementedError(f"{type(value).__name__} has no JSON form")


def _decode(kind: type, value: Any) -> Any:
    if kind is Path or issubclass(kind, Path):
        return Path(value)
    raise NotImplementedError(f"{kind.__name__} has no JSON form")


def to_data(value: object) -> Any:
    """Return ``value`` as plain JSON types (dict, list, str, int, float, bool, None); mappings keep their order."""
    return msgspec.to_builtins(value, enc_hook=_encode)


def from_data(kind: type[T], data: object, *, where: str = "value") -> T:
    """Build a ``kind`` from plain JSON types.

    Raises:
        RecordError: A field is missing or has another type; the message names its path.
    """
    try:
        return msgspec.convert(data, kind, dec_hook=_decode)
    except msgspec.ValidationError as error:
        raise RecordError(f"{where} is not a valid {kind.__name__}: {error}") from error


def dumps(value: object, *, indent: int = 0) -> bytes:
    """Return JSON without spaces unless ``indent``; mappings keep their order: of a model's inputs it is the call's."""
    return _formatted(msgspec.json.encode(value, enc_hook=_encode), indent)


def canonical(value: object, *, indent: int = 0) -> bytes:
    """Return JSON with sorted keys, to be hashed or compared: equal mappings give equal bytes."""
    return _formatted(msgspec.json.encode(value, enc_hook=_encode, order="sorted"), indent)


def _formatted(raw: bytes, indent: int) -> bytes:
    return msgspec.json.format(raw, indent=indent) if indent else raw


def loads(kind: type[T], raw: bytes, *, where: str = "value") -> T:
    """Parse JSON bytes into a ``kind``.

    Raises:
        RecordError: The bytes are not JSON, or not this kind; the message names ``where``.
    """
    try:
        return msgspec.json.decode(raw, type=kind, dec_hook=_decode)
    except msgspec.DecodeError as error:
        raise RecordError(f"{where} cannot be read: {error}") from error


def sha256(value: object) -> str:
    """Return the hex SHA-256 of the canonical JSON of ``value``."""
    return hashlib.sha256(canonical(value)).hexdigest()


def file_sha256(path: Path) -> str:
    """Return the hex SHA-256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def content_sha256(path: Path) -> str:
    """Return the hex SHA-256 of a file's bytes, or of a folder: of all its files with their names."""
    if path.is_file():
        return file_sha256(path)
    items = (item for item in path.rglob("*") if item.is_file())
    return listed_sha256({item.relative_to(path).as_posix(): file_sha256(item) for item in items})


def listed_sha256(files: Mapping[str, str]) -> str:
    """Return the hex SHA-256 of a folder from its files' hashes by their names in it, with slashes."""
    digest = hashlib.sha256()
    for name in sorted(files, key=lambda name: name.split("/")):  # the order of paths
        digest.update(f"{name}\0{files[name]}\0".encode())
    return digest.hexdigest()


def write_whole(path: Path, raw: bytes) -> None:
    """Write a file so that readers see all of it or nothing, also after a kill or a full disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as stream:
            stream.write(raw)
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
