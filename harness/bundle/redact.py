"""Take the paths of a machine out of what a run says of itself; what a cell's identity holds cannot be."""

from __future__ import annotations

import re
from dataclasses import replace

from harness.store import RunInfo

_PATH = re.compile(
    r"(?<![\w.\N{HORIZONTAL ELLIPSIS}])(?:~?/|[A-Za-z]:[\\/])(?:[^\s\"',:=;/\\]+[/\\])+([^\s\"',:=;/\\]*)"
)
MARK = "\N{HORIZONTAL ELLIPSIS}/"


def shorten(text: str) -> str:
    """Return a text in which each absolute path is reduced to its last part."""
    return _PATH.sub(lambda found: MARK + found[1], text)


def redact(info: RunInfo) -> RunInfo:
    """Return what a run says of itself without the paths in its command and its request."""
    request = replace(
        info.request,
        workloads=tuple(map(shorten, info.request.workloads)),
        methods=tuple(map(shorten, info.request.methods)),
        targets=tuple(map(shorten, info.request.targets)),
        python={name: shorten(path) for name, path in info.request.python.items()},
        meter=shorten(info.request.meter),
    )
    return replace(info, command=tuple(map(shorten, info.command)), request=request)
