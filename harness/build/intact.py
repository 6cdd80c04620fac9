"""Hash files and make copies that are known to be whole: what was hashed and not changed since is not read again."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

from harness import codec

_FRESH_NS = 100_000_000  # a file may change twice within one tick of its clock: one that is so young is read again
_known: dict[Path, tuple[tuple[int, ...], str]] = {}


def file_sha256(path: Path) -> str:
    """Return the hex SHA-256 of a file's bytes, from memory where its inode, size and times are those of before."""
    now, state = time.time_ns(), _state(path)
    known = _known.get(path)
    if known is not None and known[0] == state:
        return known[1]
    digest = codec.file_sha256(path)
    if now - max(state[-2:]) > _FRESH_NS:
        _known[path] = state, digest
    return digest


def content_sha256(path: Path) -> str:
    """Return the same for a folder: of all its files with their names, as ``harness.codec.content_sha256``."""
    if path.is_file():
        return file_sha256(path)
    items = (item for item in path.rglob("*") if item.is_file())
    return codec.listed_sha256({item.relative_to(path).as_posix(): file_sha256(item) for item in items})


def _state(path: Path) -> tuple[int, ...]:
    stat = path.stat()
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


def copy(source: Path, target: Path) -> None:
    """Copy a file's bytes, where the file system can by sharing its blocks until either is written to."""
    with source.open("rb") as reader, target.open("wb") as writer:
        try:
            while os.copy_file_range(reader.fileno(), writer.fileno(), 1 << 30):
                pass
        except (AttributeError, OSError):  # another system, or a file system that cannot
            reader.seek(0)
            writer.seek(0)
            shutil.copyfileobj(reader, writer, 1 << 20)
            writer.truncate()
