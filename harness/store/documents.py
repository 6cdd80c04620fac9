"""What each file of a run holds, by its place, and how it is read."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from harness.errors import RecordError
from harness.store import files, layout, manifest
from harness.types import LaunchSet, Record

T = TypeVar("T")
log = logging.getLogger("harness")


@dataclass(frozen=True)
class Part:
    """A finished part of a cell, such as its memory reading, so that a resumed run does not repeat it.

    Attributes:
        kind: Name of the class of ``value``.
        inputs_sha256: What it was made from; another hash means that it is out of date.
    """

    schema: int
    kind: str
    inputs_sha256: str
    value: Any


def read_listed(folder: Path, path: str, listed: Sequence[str]) -> bytes | None:
    """Return a file's bytes, or None where it is missing or its hash is none of those listed."""
    file = folder / path
    if not file.is_file():
        return None
    raw = file.read_bytes()
    return raw if manifest.digest(raw) in listed else None


def decode_file(kind: type[T], path: str, raw: bytes) -> T:
    """Decode one of a run's JSON files, packed or not.

    Raises:
        RecordError: Corrupt, or of a newer schema; the message names ``path``.
    """
    return files.decode(kind, files.unpack(raw, path) if path.endswith(".gz") else raw, path)


_KINDS: Mapping[str, type] = {
    layout.RUN: layout.RunInfo,
    layout.CELLS: Record,
    layout.RAW: LaunchSet,
    layout.PARTS: Part,
}


def kind_of(path: str) -> type | None:
    """Return the class that a run's JSON file holds, or None for files of other forms."""
    return _KINDS.get(path.split("/")[0])


def is_whole(folder: Path, path: str) -> bool:
    """Tell whether a file that no manifest line vouches for can be read as what its place says it is."""
    kind, raw = kind_of(path), (folder / path).read_bytes()
    try:
        if path.startswith(f"{layout.SCORES}/"):
            files.decode_scores(raw, path)
        elif kind is not None:
            decode_file(kind, path, raw)
    except RecordError as error:
        log.warning("left out: %s", error.message)
        return False
    return True
