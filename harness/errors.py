"""Errors that are raised on purpose: each carries an exit code and may carry a hint."""

from __future__ import annotations


class HarnessError(Exception):
    """Say in one sentence what went wrong; the command line prints it without a traceback.

    Args:
        message: What, and where; lower case, no full stop.
        hint: What to do instead, printed on a line of its own.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message}\n  hint: {self.hint}"


class PlanError(HarnessError):
    """What was asked for cannot be planned: an unknown name, a bad parameter, an illegal order."""

    exit_code = 2


class PluginError(HarnessError):
    """A plugin that was asked for is broken."""

    exit_code = 3


class RecordError(HarnessError):
    """A stored record is corrupt, truncated, or of a newer schema."""

    exit_code = 4


class MissingDependency(HarnessError):
    """A package that this needs is not installed; the hint is the command that installs it."""

    exit_code = 5


class Interrupted(HarnessError):
    """The user stopped the run; the hint says how to resume it."""

    exit_code = 130


class Unsupported(HarnessError):
    """Raised by plugins: this combination cannot be, for the reason given. It becomes a row, not a failure."""


class BadModel(HarnessError):
    """A model or data file from the user that is refused, with the reason."""

    exit_code = 2
