"""The models that a step is given: copies of its own, so that what it does to them reaches no other cell."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TypeVar

from harness.build import intact, values
from harness.build.cache import Cache, Entry
from harness.codec import listed_sha256
from harness.errors import PluginError
from harness.types import Artifact, Model

T = TypeVar("T", Model, Artifact)


class Given:
    """Copies of cache entries for one step.

    Args:
        store: Where the entries are.
        folder: Gets the copies.
        owner: Who is given them, for messages.
    """

    def __init__(self, store: Cache, folder: Path, owner: str) -> None:
        self._store, self._folder, self._owner = store, folder, owner
        self._entries: dict[str, Entry] = {}

    def own(self, value: T) -> T:
        """Return a model, or an artifact, whose files are the step's own; those that lie in no entry stay.

        Raises:
            PluginError: An entry is gone or damaged.
        """
        return values.moved(value, self._own)  # type: ignore[no-any-return]  # as given

    def _own(self, path: Path) -> Path:
        key = self._store.key_of(path)
        if key is None:
            return path
        if key not in self._entries:
            self._entries[key] = copied(self._store, key, self._folder / key)
        return self._folder / key / path.relative_to(self._entries[key].folder)

    def home(self, value: T) -> T:
        """Return what a step gave with its copies turned back into what they are copies of.

        Raises:
            PluginError: The step gave what it was given, after it had changed or removed it.
        """
        return values.moved(value, self._home)  # type: ignore[no-any-return]  # as given

    def _home(self, path: Path) -> Path:
        real, mine = Path(os.path.realpath(path)), Path(os.path.realpath(self._folder))
        if not real.is_relative_to(mine):
            return path
        key, *names = real.relative_to(mine).parts
        entry = self._entries[key]
        inside = "/".join(names)
        if not real.exists() or intact.content_sha256(real) != _written(entry, inside):
            raise PluginError(
                f"{self._owner} gave the model that it was given, {real.name}, and had changed it in place; "
                "a step writes into job.out"
            )
        return entry.folder / inside


def copied(store: Cache, key: str, folder: Path) -> Entry:
    """Copy an entry's files into a folder, and check the copies by their hashes.

    Raises:
        PluginError: The entry is gone or damaged.
    """
    entry = store.get(key)
    if entry is None:
        raise PluginError(f"cache entry {store.folder(key)} is gone or damaged")
    for name, digest in entry.result.sha256s.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            intact.copy(entry.folder / name, target)
        except FileNotFoundError as error:
            raise PluginError(f"cache entry {entry.folder} lost {name} while it was copied") from error
        if intact.file_sha256(target) != digest:
            raise PluginError(f"cache entry {entry.folder} changed while it was copied")
    return entry


def _written(entry: Entry, inside: str) -> str:
    """Return the hash of a file or folder of an entry as it was written."""
    digests = entry.result.sha256s
    if inside in digests:
        return digests[inside]
    below = f"{inside}/" if inside else ""
    return listed_sha256({name.removeprefix(below): sha for name, sha in digests.items() if name.startswith(below)})
