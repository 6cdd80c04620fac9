"""What two runs loaded under one name and version, and is not the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from harness.store import RunInfo
from harness.types import Loaded, SharedObject

_SHOWN = 3


def other_builds(a: RunInfo | None, b: RunInfo | None) -> Iterator[str]:
    """Yield a sentence for each target that loaded other builds of its packages though they have equal versions.

    Objects that only one side loaded say nothing: other cells, or other hardware, load other kernels.

    Args:
        a: One run; ``None`` where it does not say.
        b: The other.
    """
    if a is None or b is None:
        return
    for target in sorted({*a.loaded, *b.loaded}):
        ours, theirs = (_by_path(info.loaded.get(target, Loaded())) for info in (a, b))
        other = [
            path
            for path in sorted({*ours} & {*theirs})
            if ours[path] != theirs[path] and _version(a, path) == _version(b, path) != ""
        ]
        if other:
            more = f" and {len(other) - _SHOWN} more" if len(other) > _SHOWN else ""
            named = ", ".join(other[:_SHOWN])
            yield f"{target} loaded other builds under equal package versions: {named}{more}"


def _by_path(found: Loaded) -> Mapping[str, SharedObject]:
    return {item.path: item for item in found.objects if item.size_bytes is not None}


def _version(info: RunInfo, path: str) -> str:
    """Return the version of the package whose folder holds an object, such as numpy's of "numpy.libs/…"."""
    package = path.partition("/")[0].partition(".")[0].lower()
    return info.packages.get(package, info.packages.get(package.replace("_", "-"), ""))
