"""Whether the evidence about one cell holds, as far as one cell can be held against the demands on a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness.audit import audit
from harness.store import Problem, layout


def breaches(folder: Path) -> list[Problem]:
    """Return what a run of a cell and its anchor breaks.

    The launch-sets hold other cells too, whose records stay in the run that they were taken from; all else is
    asked as ``harness verify`` asks it.
    """
    packed = {*layout.listed_files(folder), layout.MANIFEST}
    return [problem for problem in audit(folder) if problem.demand != "missing-record" or problem.file in packed]


def damage(problems: Sequence[Problem]) -> str:
    """Return the first breach that no bundle may have: of the files, or of a figure that does not follow."""
    return next((f"{item.file}: {item.what}" for item in problems if item.demand == "integrity"), "")


def breaks(problems: Sequence[Problem]) -> tuple[str, ...]:
    """Return the other breaches in words: an older harness asked for less."""
    return tuple(f"{item.file}: {item.what} [{item.demand}]" for item in problems if item.demand != "integrity")
