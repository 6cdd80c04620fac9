"""Progress on stderr: bars with the time left in a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

EVERY_S = 5.0  # least time between two plain lines of one stage


def clock(seconds: float) -> str:
    """Write seconds as 0:07, 12:34 or 1:02:03."""
    minutes, rest = divmod(round(max(0.0, seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


@dataclass
class Bars:
    """A Ui that draws; the bar of a stage that is done stays, with the time that it took."""

    stream: TextIO
    progress: Progress = field(init=False)
    tasks: dict[str, TaskID] = field(default_factory=dict)
    totals: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Start drawing at once: the first sign of life must not wait for a stage."""
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            Progress,
            TaskProgressColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        # Drawn twice a second: the parent must not compete with a timed loop for a core.
        self.progress = Progress(
            TextColumn("{task.description}"), BarColumn(bar_width=24), TaskProgressColumn(), TimeElapsedColumn(),
            TextColumn("left"), TimeRemainingColumn(), TextColumn("{task.fields[text]}", markup=False),
            console=Console(file=self.stream, highlight=False), refresh_per_second=2,
        )  # fmt: skip
        self.progress.start()

    def stage(self, name: str, total: int) -> None:
        """Begin a stage, or change its total."""
        self.totals[name] = total
        if name in self.tasks:
            self.progress.update(self.tasks[name], total=total)
        else:
            self.tasks[name] = self.progress.add_task(name, total=total, text="")

    def advance(self, stage: str, done: float, text: str) -> None:
        """Move a bar."""
        if stage not in self.tasks:
            self.stage(stage, max(1, round(done)))
        self.progress.update(self.tasks[stage], completed=done, text=text)

    def note(self, text: str) -> None:
        """Print a line above the bars."""
        self.progress.console.print(text, markup=False)

    def close(self) -> None:
        """Stop drawing."""
        self.progress.stop()


@dataclass
class _Line:
    total: float
    started: float
    said: float = float("-inf")
    text: str = ""
    finished: bool = False


@dataclass
class Lines:
    """A Ui for logs: a line when a stage starts and ends, and at most every few seconds between."""

    stream: TextIO
    stages: dict[str, _Line] = field(default_factory=dict)

    def _say(self, text: str) -> None:
        self.stream.write(f"{text}\n")
        self.stream.flush()

    def stage(self, name: str, total: int) -> None:
        """Begin a stage, or change its total."""
        if name in self.stages:
            self.stages[name].total = total
            return
        self.stages[name] = _Line(total, time.monotonic())
        self._say(f"{name}: {total} to do")

    def advance(self, stage: str, done: float, text: str) -> None:
        """Say how far a stage is, if it is time."""
        if stage not in self.stages:
            self.stage(stage, max(1, round(done)))
        line, now = self.stages[stage], time.monotonic()
        spent = now - line.started
        if done >= line.total:
            if not line.finished:
                self._say(f"{stage}: done in {clock(spent)}")
            line.finished = True
        elif now - line.said >= EVERY_S:
            line.said = now
            left = f", {clock(spent / done * (line.total - done))} left" if done > 0 else ""
            self._say(f"{stage}: {done:.3g}/{line.total:g} after {clock(spent)}{left}{f' - {text}' if text else ''}")

    def note(self, text: str) -> None:
        """Print a line."""
        self._say(text)

    def close(self) -> None:
        """Nothing is left to do."""


@dataclass
class Timed:
    """A Ui that passes everything on and notes how long each stage took, up to the next one's start."""

    inner: Bars | Lines
    spent: dict[str, float] = field(default_factory=dict)
    current: str = "starting"
    since: float = field(default_factory=lambda: time.monotonic())

    def _switch(self, name: str) -> None:
        now = time.monotonic()
        self.spent[self.current] = self.spent.get(self.current, 0.0) + now - self.since
        self.current, self.since = name, now

    def stage(self, name: str, total: int) -> None:
        """Begin a stage, or change its total."""
        self._switch(name)
        self.inner.stage(name, total)

    def advance(self, stage: str, done: float, text: str) -> None:
        """Move a stage on."""
        if stage != self.current:
            self._switch(stage)
        self.inner.advance(stage, done, text)

    def note(self, text: str) -> None:
        """Say one line."""
        self.inner.note(text)

    def close(self) -> None:
        """End all drawing."""
        self._switch(self.current)
        self.inner.close()

    def summary(self) -> str:
        """Say where the time went, once closed."""
        parts = [f"{name} {clock(seconds)}" for name, seconds in self.spent.items() if seconds >= 0.5]
        return f"time: {', '.join([*parts, f'together {clock(sum(self.spent.values()))}'])}"


def make_ui(stream: TextIO | None = None) -> Bars | Lines:
    """Return bars for a terminal, lines for anything else."""
    chosen: TextIO = sys.stderr if stream is None else stream
    return Bars(chosen) if chosen.isatty() else Lines(chosen)
