"""The content-addressed cache: entries appear whole or not at all, whatever is killed and when."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import secrets
import shutil
import time
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from harness import codec
from harness.build import intact
from harness.errors import HarnessError, RecordError

SCHEMA = 2  # 2: the inputs of a stored model stand in call order
RESULT = "result.json"
log = logging.getLogger("harness")


@dataclass(frozen=True)
class Result:
    """What ``result.json`` holds.

    Attributes:
        kind: "data", "model", "artifact", "reference" or "pack".
        value: The step's value as JSON, with paths relative to the entry.
        sha256: Of the file that the value points to, or of the data.
        seconds: What the step took when it was built.
        inputs: What the key was made from, for a person who wonders why something was rebuilt.
        files: File in the entry -> size in bytes.
        sha256s: File in the entry -> hex SHA-256.
        outside: Files in other entries that the value points to, relative to the entry.
    """

    schema: int
    key: str
    kind: str
    value: Any
    sha256: str
    seconds: float
    inputs: Any = None
    files: Mapping[str, int] = field(default_factory=dict)
    outside: tuple[str, ...] = ()
    sha256s: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Entry:
    """A finished entry."""

    folder: Path
    result: Result


@dataclass(frozen=True)
class Usage:
    """What the cache holds."""

    root: Path
    entries: int
    bytes: int


def default_root() -> Path:
    """Return ``$HARNESS_CACHE``, or the user's cache folder."""
    given = os.environ.get("HARNESS_CACHE")
    if given:
        return Path(given)
    import platformdirs  # only where no folder was given

    return Path(platformdirs.user_cache_dir("harness"))


class Staging:
    """A folder to build in, on the cache's file system, that belongs to this process while it lives.

    The owner holds an exclusive lock on a file beside it. The kernel frees the lock when the owner dies, however
    it dies, so a lock that can be had means a folder to sweep; a process id could have been given to another.
    """

    def __init__(self, parent: Path) -> None:
        parent.mkdir(parents=True, exist_ok=True)
        self.folder, self._lock = self._claim(parent)

    @staticmethod
    def _claim(parent: Path) -> tuple[Path, int]:
        while True:
            folder = parent / f"{os.getpid()}-{secrets.token_hex(6)}"
            lock = _try_lock(folder.with_suffix(".lock"))
            if lock is not None:  # else a sweeper was quicker: another name
                folder.mkdir()
                return folder, lock

    def release(self) -> None:
        """Remove what is left and give the name back."""
        _remove(self.folder)
        self.folder.with_suffix(".lock").unlink(missing_ok=True)
        os.close(self._lock)


def _try_lock(path: Path) -> int | None:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(descriptor).st_ino == path.stat().st_ino:  # not unlinked by a sweeper in between
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(descriptor)
    return None


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())


class Cache:
    """Entries by key under one root: ``<root>/<aa>/<key>/result.json`` and the files beside it.

    Args:
        root: The folder; made on the first write. ``None`` for ``default_root()``.
    """

    def __init__(self, root: Path | None = None) -> None:
        self.root = Path(os.path.abspath(root or default_root()))  # noqa: PTH100  resolve() would follow the user's link

    @property
    def logs(self) -> Path:
        """Where builders' output and tracebacks go."""
        return self.root / "logs"

    @property
    def _tmp(self) -> Path:
        return self.root / "tmp"

    def folder(self, key: str) -> Path:
        """Return where the entry of a key is, or would be."""
        return self.root / key[:2] / key

    def key_of(self, path: Path) -> str | None:
        """Return the key of the entry that a path lies in; ``None`` where it lies in none."""
        parts = path.relative_to(self.root).parts if path.is_relative_to(self.root) else ()
        return parts[1] if len(parts) > 1 and parts[1].startswith(parts[0]) else None

    def get(self, key: str) -> Entry | None:
        """Return an entry that is whole, by the hash of each file; a damaged one is logged and counts as missing."""
        folder = self.folder(key)
        path = folder / RESULT
        try:
            raw = path.read_bytes()
        except OSError:
            if folder.exists():
                log.warning("cache entry %s has no readable %s; it is built again", folder, RESULT)
            return None
        try:
            result = codec.loads(Result, raw, where=str(path))
            _check(result, key, folder)
            self._check_outside(result, key, folder)
        except RecordError as error:
            log.warning("cache entry is damaged and is built again: %s", error)
            return None
        with contextlib.suppress(OSError):  # a read-only cache serves all the same
            os.utime(path)
        return Entry(folder, result)

    def _check_outside(self, result: Result, key: str, folder: Path) -> None:
        """Check what an entry points to in others: they are whole, and what it stands on is what it was."""
        for name in result.outside:
            path = Path(os.path.normpath(folder / name))
            other = self.key_of(path)
            if not path.exists() or other is None or (other != key and self.get(other) is None):
                raise RecordError(f"{folder} points to {name}, which is gone")
        named = result.value.get("path") if isinstance(result.value, dict) else None
        if named is None or not (result.outside and result.sha256):
            return
        if intact.content_sha256(Path(os.path.normpath(folder / named))) != result.sha256:
            raise RecordError(f"{folder} points to {named}, which was built anew since")

    @contextlib.contextmanager
    def staging(self) -> Generator[Path, None, None]:
        """Give an empty folder that ``publish`` can take; what is not published is removed."""
        staging = Staging(self._tmp)
        try:
            yield staging.folder
        finally:
            staging.release()

    def publish(self, staged: Path, result: Result) -> Entry:
        """Make a staged folder the entry of its key. The first of several builders wins; the others get its entry."""
        sizes, digests = {}, {}
        for path in _files(staged):
            name = path.relative_to(staged).as_posix()
            path.chmod(0o444)  # later steps share it
            _sync(path)
            sizes[name], digests[name] = path.stat().st_size, codec.file_sha256(path)
        whole = replace(result, files=sizes, sha256s=digests)
        codec.write_whole(staged / RESULT, codec.dumps(whole, indent=1))
        _sync(staged)
        folder = self.folder(result.key)
        folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            staged.rename(folder)
        except OSError as error:
            return self._lost(staged, folder, result.key, error)
        _sync(folder.parent)
        return Entry(folder, whole)

    def _lost(self, staged: Path, folder: Path, key: str, error: OSError) -> Entry:
        """Another builder's entry is there: use it, or put ours in place of a corrupt one."""
        if not folder.exists():
            raise HarnessError(f"cache entry {folder} cannot be written: {error}") from error
        existing = self.get(key)
        if existing is not None:
            return existing
        self._discard(folder)
        with contextlib.suppress(OSError):  # a third builder may have been quicker
            staged.rename(folder)
        entry = self.get(key)
        if entry is None:
            raise HarnessError(f"cache entry {folder} cannot be written: {error}") from error
        return entry

    def _discard(self, folder: Path) -> None:
        """Take an entry away whole: renamed first, so that nobody meets half of it."""
        with self.staging() as trash, contextlib.suppress(FileNotFoundError):
            folder.rename(trash / "entry")

    def sweep(self, *, log_days: float = 7) -> int:
        """Remove what dead builders left, and old logs; return how many folders went."""
        removed = 0
        for path in sorted(self._tmp.glob("*.lock")) if self._tmp.exists() else []:
            lock = _try_lock(path)
            if lock is None:
                continue
            removed += path.with_suffix("").exists()
            _remove(path.with_suffix(""))
            path.unlink(missing_ok=True)
            os.close(lock)
        self._sweep_logs(time.time() - log_days * 86_400)
        return removed

    def _sweep_logs(self, before: float) -> None:
        for path in self.logs.glob("*.log"):
            with contextlib.suppress(OSError):
                if path.stat().st_mtime < before:
                    path.unlink()

    def entries(self) -> Iterator[Path]:
        """Yield the folders of all entries."""
        for prefix in sorted(self.root.glob("[0-9a-f][0-9a-f]")):
            yield from (folder for folder in sorted(prefix.iterdir()) if folder.is_dir())

    def show(self) -> Usage:
        """Count entries and bytes."""
        folders = list(self.entries())
        return Usage(self.root, len(folders), sum(_bytes(folder) for folder in folders))

    def prune(self, *, older_than_s: float | None = None, max_bytes: int | None = None) -> Usage:
        """Remove entries not used for so long, then the longest unused until the rest fits.

        Returns:
            What was removed.
        """
        now = time.time()
        kept = sorted((_used(folder), folder) for folder in self.entries())
        total = sum(_bytes(folder) for _used_at, folder in kept)
        count = freed = 0
        for used_at, folder in kept:
            too_old = older_than_s is not None and now - used_at > older_than_s
            too_big = max_bytes is not None and total - freed > max_bytes
            if too_old or too_big:
                freed += _bytes(folder)
                count += 1
                self._discard(folder)
        return Usage(self.root, count, freed)

    def clear(self) -> Usage:
        """Remove every entry, and what dead builders left."""
        removed = self.prune(max_bytes=-1)
        self.sweep(log_days=0)
        return removed


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in _files(folder))


def _used(folder: Path) -> float:
    try:
        return (folder / RESULT).stat().st_mtime
    except OSError:
        return 0.0


def _check(result: Result, key: str, folder: Path) -> None:
    if result.schema != SCHEMA or result.key != key:
        raise RecordError(f"{folder / RESULT} is of schema {result.schema}, key {result.key}")
    if set(result.sha256s) != set(result.files):
        raise RecordError(f"{folder} was written before files were hashed")
    there = {path.relative_to(folder).as_posix() for path in _files(folder)} - {RESULT}
    for name in sorted(there ^ set(result.files)):
        raise RecordError(f"{folder / name} {'was not written with the entry' if name in there else 'is gone'}")
    for name, digest in result.sha256s.items():
        try:
            whole = intact.file_sha256(folder / name) == digest
        except OSError as error:
            raise RecordError(f"{folder / name} cannot be read: {error}") from error
        if not whole:
            raise RecordError(f"{folder / name} does not hold what was written")
