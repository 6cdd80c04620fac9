"""Stdout belongs to the answer alone: whatever else is printed in this process, by a plugin or a runtime, is talk."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import TextIO

import click


@dataclass
class _Answer:
    """Where answers go.

    Attributes:
        armed: Whether this process is ours, so that its stdout may be moved.
        kept: What was stdout, once other code may print.
    """

    armed: bool = False
    kept: TextIO | None = None


_answer = _Answer()


def arm() -> None:
    """Allow ``keep`` to act: the process runs one command line and nothing else."""
    _answer.armed = True


def keep() -> None:
    """Keep stdout for answers from now on; what is printed to it otherwise goes to stderr."""
    if not _answer.armed or _answer.kept is not None or sys.stdout is None:
        return
    sys.stdout.flush()
    _answer.kept = os.fdopen(os.dup(1), "w", encoding=sys.stdout.encoding, errors=sys.stdout.errors)
    talk = sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123  as long as the process
    os.dup2(talk.fileno(), 1)
    sys.stdout = talk


def stream() -> TextIO:
    """Return the stream of answers."""
    return _answer.kept or sys.stdout


def echo(text: object = "", *, nl: bool = True) -> None:
    """Print a part of the answer."""
    click.echo(text, file=stream(), nl=nl)
