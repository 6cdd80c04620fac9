"""Stdout belongs to the answer alone: whatever else is printed in this process, by a plugin or a runtime, is talk."""

from __future__ import annotations

import os
import sys
from typing import TextIO

import click


class _Answer:
    """Where answers go.

    Attributes:
        armed: Whether this process is ours, so that its stdout may be moved.
        kept: What was stdout, once other code may print.
    """

    armed: bool = False
    kept: TextIO | None = None


def arm() -> None:
    """Allow ``keep`` to act: the process runs one command line and nothing else."""
    _Answer.armed = True


def keep() -> None:
    """Keep stdout for answers from now on; what is printed to it otherwise goes to stderr."""
    if not _Answer.armed or _Answer.kept is not None:
        return
    sys.stdout.flush()
    _Answer.kept = os.fdopen(os.dup(1), "w", encoding=sys.stdout.encoding, errors=sys.stdout.errors)
    os.dup2(sys.stderr.fileno(), 1)
    sys.stdout = sys.stderr


def stream() -> TextIO:
    """Return the stream of answers."""
    return _Answer.kept or sys.stdout


def echo(text: object = "", *, nl: bool = True) -> None:
    """Print a part of the answer."""
    click.echo(text, file=stream(), nl=nl)
