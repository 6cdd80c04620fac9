"""Installed versions that do not go together, found from metadata alone: nothing is imported."""

from __future__ import annotations

import contextlib
import importlib.metadata
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from packaging.requirements import Requirement

OWN = "compression-harness"
_EXTRA = re.compile(r"""extra\s*==\s*["']([^"']+)["']""")


class Installed:
    """The distributions of this interpreter, by normalized name.

    Args:
        found: Name -> (version, requirement lines); ``None`` reads those of this interpreter.
    """

    def __init__(self, found: Mapping[str, tuple[str, tuple[str, ...]]] | None = None) -> None:
        self.found = dict(_here() if found is None else found)

    def clashes(self, root: str = OWN) -> list[str]:
        """Return a sentence for each requirement that does not hold, of ``root`` and of all that it stands on.

        What an extra of ``root`` asks for and is not installed is no clash: that extra is just not here.
        """
        todo, seen = [(root, item) for item in ("", *self._extras(root))], set[tuple[str, str]]()
        said: dict[tuple[str, str], list[str]] = {}
        while todo:
            name, extra = todo.pop(0)
            if (name, extra) in seen or name not in self.found:
                continue
            seen.add((name, extra))
            for wanted in self._requirements(name, extra):
                problem = self._problem(wanted, optional=name == root and bool(extra))
                if problem:
                    said.setdefault((name, problem), []).append(extra)
                todo += [(_normal(wanted.name), item) for item in ("", *sorted(wanted.extras))]
        return [f"{self._who(name, extras)} requires {problem}" for (name, problem), extras in said.items()]

    def _who(self, name: str, extras: list[str]) -> str:
        given = [extra for extra in extras if extra]
        return f"{name}[{','.join(given)}]" if given else f"{name} {self.found[name][0]}"

    def _problem(self, wanted: Requirement, *, optional: bool) -> str:
        """Say what is wrong with what is installed; empty where nothing is."""
        here = self.found.get(_normal(wanted.name))
        asked = f"{wanted.name}{wanted.specifier}"
        if here is None:
            return "" if optional else f"{asked}, which is not installed: pip install '{asked}'"
        if _fits(wanted, here[0]):
            return ""
        return f"{asked}, and {here[0]} is installed: pip install '{asked}'"

    def _extras(self, name: str) -> list[str]:
        markers = (str(wanted.marker or "") for wanted in self._parsed(name))
        return sorted({extra for text in markers for extra in _EXTRA.findall(text)})

    def _parsed(self, name: str) -> Iterator[Requirement]:
        from packaging.requirements import InvalidRequirement, Requirement

        for line in self.found.get(name, ("", ()))[1]:
            with contextlib.suppress(InvalidRequirement):  # of old packages; pip cannot hold to it either
                yield Requirement(line)

    def _requirements(self, name: str, extra: str) -> Iterator[Requirement]:
        """Yield what holds on this machine: always where ``extra`` is empty, else what that extra adds."""
        for wanted in self._parsed(name):
            plain = wanted.marker is None or wanted.marker.evaluate({"extra": ""})
            added = wanted.marker is not None and not plain and wanted.marker.evaluate({"extra": extra})
            if added if extra else plain:
                yield wanted


def _fits(wanted: Requirement, version: str) -> bool:
    from packaging.version import InvalidVersion

    try:
        return wanted.specifier.contains(version, prereleases=True)
    except InvalidVersion:
        return True  # a build of somebody's own; nothing can be said


def _here() -> dict[str, tuple[str, tuple[str, ...]]]:
    found: dict[str, tuple[str, tuple[str, ...]]] = {}
    for item in importlib.metadata.distributions():
        name = item.metadata["Name"]
        if name:  # the first on the path is the one that is imported
            found.setdefault(_normal(name), (item.version, tuple(item.requires or ())))
    return found


def _normal(name: str) -> str:
    from packaging.utils import canonicalize_name

    return canonicalize_name(name)
