"""The hash chain over a run's files: one line for each file written, each holding the hash of the line before."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness import codec
from harness.errors import RecordError
from harness.store.layout import MANIFEST

START = "0" * 64  # what the first line gives as the hash of the line before


@dataclass(frozen=True)
class Entry:
    """One line of the manifest."""

    seq: int
    path: str
    sha256: str
    prev_sha256: str

    @property
    def line(self) -> bytes:
        """The line as it is written, without its end."""
        return codec.canonical(self)


@dataclass(frozen=True)
class Chain:
    """A manifest as read: the lines that hold, and what is wrong from there on.

    Attributes:
        good_bytes: Length of the lines that hold; what follows was cut short or does not belong.
        torn: The last line was cut short by a kill: harmless, healed when the run is resumed.
        wrong: What breaks the chain; empty where nothing does.
    """

    entries: tuple[Entry, ...]
    good_bytes: int
    torn: bool
    wrong: str = ""

    @property
    def head(self) -> str:
        """Hash of the last line: it stands for the whole run."""
        return digest(self.entries[-1].line) if self.entries else START

    def hashes(self) -> dict[str, list[str]]:
        """Return path -> the hashes it was written with, oldest first."""
        found: dict[str, list[str]] = {}
        for entry in self.entries:
            found.setdefault(entry.path, []).append(entry.sha256)
        return found


def digest(raw: bytes) -> str:
    """Return the hex SHA-256 of bytes."""
    return hashlib.sha256(raw).hexdigest()


def _parse(line: bytes, seq: int, previous: str) -> Entry | str:
    try:
        entry = codec.loads(Entry, line, where=f"line {seq + 1}")
    except RecordError as error:
        return error.message
    if entry.seq != seq:
        return f"line {seq + 1} has the number {entry.seq} where {seq} is due"
    if entry.prev_sha256 != previous:
        return f"line {seq + 1} does not follow from the line before it"
    return entry


def parse(raw: bytes) -> Chain:
    """Read a manifest as far as it holds."""
    entries: list[Entry] = []
    good, previous = 0, START
    lines = raw.split(b"\n")
    for seq, line in enumerate(lines[:-1]):
        entry = _parse(line, seq, previous)
        if isinstance(entry, str):
            last = seq == len(lines) - 2 and lines[-1] == b""
            torn = last and not line.strip(b"\0")  # a page that was allotted but never written, after a power cut
            return Chain(tuple(entries), good, torn, "" if torn else entry)
        entries.append(entry)
        good, previous = good + len(line) + 1, digest(line)
    return Chain(tuple(entries), good, torn=lines[-1] != b"")


def read(folder: Path) -> Chain:
    """Read a run's manifest; one that is not there is empty."""
    path = folder / MANIFEST
    return parse(path.read_bytes()) if path.exists() else Chain((), 0, torn=False)


class Writer:
    """Append to a manifest; one process at a time, which holds the run's lock."""

    def __init__(self, folder: Path) -> None:
        """Read the chain and cut off a torn last line.

        Raises:
            RecordError: The chain is broken before its end.
        """
        self._path = folder / MANIFEST
        chain = read(folder)
        if chain.wrong:
            raise RecordError(f"{self._path}: {chain.wrong}", hint=f"see what is wrong with: harness verify {folder}")
        self._seq, self._head = len(chain.entries), chain.head
        self.hashes = chain.hashes()
        if chain.torn:
            codec.write_whole(self._path, self._path.read_bytes()[: chain.good_bytes])

    def append(self, path: str, sha256: str) -> None:
        """Add a line and wait until the disk has it."""
        entry = Entry(self._seq, path, sha256, self._head)
        with self._path.open("ab", buffering=0) as stream:
            start = stream.tell()
            try:
                _write_all(stream.fileno(), entry.line + b"\n")
            except OSError:
                stream.truncate(start)  # half a line would spoil the next one
                raise
        self._seq, self._head = self._seq + 1, digest(entry.line)
        self.hashes.setdefault(path, []).append(sha256)


def _write_all(fd: int, raw: bytes) -> None:
    while raw:
        raw = raw[os.write(fd, raw) :]
    os.fsync(fd)


def mismatch(found: str, listed: Sequence[str]) -> str:
    """Say what a file's hash tells about it, or nothing where it is the last one listed."""
    if not listed:
        return "is not in the manifest"
    if found == listed[-1]:
        return ""
    if found in listed:
        return "is an older version than the manifest's last"
    return "does not have the hash that the manifest lists: it was changed or damaged"
