"""The values of entries: what they point to is stored relative, so that a cache can be moved."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import codec
from harness.build.reference import Reference
from harness.errors import PluginError
from harness.types import Artifact, Model

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.build.cache import Entry


def pointed(value: Model | Artifact | Reference) -> tuple[Path, ...]:
    """Return the files that a value points to, those of its parts too."""
    if isinstance(value, Reference):
        return tuple(value.files.values())
    found = [value.path, *(path for part in value.parts for path in pointed(part))]
    if isinstance(value, Model):
        found += [path for path in (value.precision.encodings, value.feeds) if path is not None]
    return tuple(found)


def moved(value: Any, move: Callable[[Path], Path]) -> Any:
    """Return a Model or Artifact with other paths, those of its parts too.

    Args:
        value: What points to files.
        move: Old path -> new path.
    """
    changes: dict[str, Any] = {"path": move(value.path), "parts": tuple(moved(part, move) for part in value.parts)}
    if isinstance(value, Model) and value.precision.encodings is not None:
        encodings = move(value.precision.encodings)
        changes["precision"] = dataclasses.replace(value.precision, encodings=encodings)
    if isinstance(value, Model) and value.feeds is not None:
        changes["feeds"] = move(value.feeds)
    return dataclasses.replace(value, **changes)


def store(value: Model | Artifact, staged: Path, entry: Path, root: Path) -> tuple[Any, tuple[str, ...]]:
    """Return a value as JSON with paths relative to its future entry, and which of them lie in other entries.

    Args:
        value: What the step gave.
        staged: The folder that the step wrote.
        entry: Where that folder will be.
        root: The cache's root.

    Raises:
        PluginError: A path does not exist, or lies neither in the folder nor in the cache.
    """
    outside: list[str] = []

    def move(path: Path) -> Path:
        if not path.exists():
            raise PluginError(f"{path} does not exist")
        real = path.resolve()
        if real.is_relative_to(staged.resolve()):
            return real.relative_to(staged.resolve())
        if not real.is_relative_to(root.resolve()):
            raise PluginError(f"{path} lies outside the job's folder; a step writes only into job.out")
        relative = os.path.relpath(real, root.resolve() / entry.relative_to(root))
        outside.append(relative)
        return Path(relative)

    return codec.to_data(moved(value, move)), tuple(outside)


def load(entry: Entry, kind: type[Any]) -> Any:
    """Return an entry's Model or Artifact with absolute paths."""
    value = codec.from_data(kind, entry.result.value, where=str(entry.folder))
    return moved(value, lambda path: Path(os.path.normpath(entry.folder / path)))


def reference(entry: Entry) -> Reference:
    """Return an entry's reference outputs with absolute paths."""
    value = codec.from_data(Reference, entry.result.value, where=str(entry.folder))
    return value.moved(lambda path: entry.folder / path)
