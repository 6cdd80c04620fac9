"""Versions that decide whether a cached step may be used, found without importing a framework."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import importlib.util
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

MISSING = "not installed"
# What a method or a workload may compute with; exporters add their extra, foreign plugins what they require.
LIBRARIES = (
    "torch", "numpy", "scipy", "scikit-learn", "torch-pruning", "torchvision", "timm", "transformers", "pillow",
)  # fmt: skip
_IMPORT = re.compile(r"^\s*(?:from|import)\s+(harness_\w+)", re.MULTILINE)
_REQUIREMENT = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)([^;]*);?(.*)$")
_EXTRA = re.compile(r"extra\s*==\s*['\"]([^'\"]+)['\"]")


@functools.cache
def version(distribution: str) -> str:
    """Return a distribution's installed version, or ``MISSING``."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return MISSING


def versions(distributions: Iterable[str]) -> Mapping[str, str]:
    """Return the installed version of each distribution."""
    return {name: version(name) for name in sorted(set(distributions))}


@functools.cache
def required(distribution: str, extra: str = "") -> tuple[str, ...]:
    """Return the names that a distribution requires: always where ``extra`` is empty, else by that extra."""
    try:
        lines = importlib.metadata.requires(distribution) or []
    except importlib.metadata.PackageNotFoundError:
        return ()
    found = (_REQUIREMENT.match(line) for line in lines)
    names = ((match[1], _EXTRA.search(match[3])) for match in found if match)
    return tuple(name for name, marker in names if (marker[1] if marker else "") == extra)


def _root(module: str) -> Path | None:
    try:
        spec = importlib.util.find_spec(module.partition(".")[0])
    except (ImportError, ValueError):
        return None
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin)
    return path.parent if path.name == "__init__.py" else path


@functools.cache
def source_sha256(module: str) -> str:
    """Hash the Python files of a plugin's package and of the ``harness_*`` libraries that they import.

    A plugin in an editable install keeps its version while its code changes, and so do the libraries it stands on.
    """
    digest = hashlib.sha256()
    todo, seen = [module.partition(".")[0]], set[str]()
    while todo:
        name = todo.pop()
        root = _root(name)
        if name in seen or root is None:
            continue
        seen.add(name)
        for path in sorted(root.rglob("*.py")) if root.is_dir() else [root]:
            raw = path.read_bytes()
            relative = path.relative_to(root).as_posix() if root.is_dir() else path.name
            digest.update(f"{name}/{relative}\0{len(raw)}\0".encode() + raw)
            todo += sorted(set(_IMPORT.findall(raw.decode(errors="replace"))), reverse=True)
    return digest.hexdigest()
