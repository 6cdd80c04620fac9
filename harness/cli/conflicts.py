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
        todo, seen, said = [(root, "")], set[tuple[str, str]](), dict[str, None]()
        todo += [(root, extra) for extra in self._extras(root)]
        while todo:
            name, extra = todo.pop(0)
            if (name, extra) in seen or name not in self.found:
                continue
            seen.add((name, extra))
            for wanted in self._requirements(name, extra):
                optional = name == root and bool(extra)
                said |= dict.fromkeys(self._broken(name, extra, wanted, optional=optional))
                todo += [(_normal(wanted.name), item) for item in ("", *sorted(wanted.extras))]
        return list(said)

    def _broken(self, name: str, extra: str, wanted: Requirement, *, optional: bool) -> Iterator[str]:
        here = self.found.get(_normal(wanted.name))
        who = f"{name}[{extra}]" if extra else f"{name} {self.found[name][0]}"
        asked = f"{wanted.name}{wanted.specifier}"
        if here is None:
            if not optional:
                yield f"{who} requires {asked}, which is not installed: pip install '{asked}'"
        elif not _fits(wanted, here[0]):
            yield f"{who} requires {asked}, and {here[0]} is installed: pip install '{asked}'"

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
