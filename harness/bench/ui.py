"""What a run tells its audience while it works."""

from __future__ import annotations

from typing import Protocol


class Ui(Protocol):
    """Progress and talk; results never go here."""

    def stage(self, name: str, total: int) -> None:
        """Begin a stage of ``total`` units."""
        ...

    def advance(self, stage: str, done: float, text: str) -> None:
        """Report the units done so far, and what is at hand."""
        ...

    def note(self, text: str) -> None:
        """Say one line."""
        ...

    def close(self) -> None:
        """End all drawing."""
        ...


class Silent:
    """A Ui that shows nothing."""

    def stage(self, name: str, total: int) -> None:
        """Show nothing."""

    def advance(self, stage: str, done: float, text: str) -> None:
        """Show nothing."""

    def note(self, text: str) -> None:
        """Show nothing."""

    def close(self) -> None:
        """Do nothing."""
