"""What a self-test says: one line per check, and the report that stands beside the leaderboard."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["live", "simulated", "recorded"]
Verdict = Literal["pass", "fail", "not-evaluable"]


@dataclass(frozen=True)
class Line:
    """One check.

    Attributes:
        kind: "live": measured on this host now; "simulated": on raw data whose truth is known; "recorded": on raw
            data that ships with the package. The latter two are always evaluable.
        reason: Why it failed or could not be evaluated; for a pass, what was seen.
        figures: What was compared.
        noise: The noise verdict over its launches: how many were ok, suspect and noisy.
    """

    name: str
    kind: Kind
    verdict: Verdict
    reason: str
    figures: Mapping[str, float] = field(default_factory=dict)
    noise: Mapping[str, int] = field(default_factory=dict)
    seconds: float = 0.0


@dataclass(frozen=True)
class Report:
    """A whole self-test of one host."""

    schema: int
    harness_version: str
    host_id: str
    full: bool
    started_utc: str
    finished_utc: str
    lines: tuple[Line, ...]
    packages: Mapping[str, str] = field(default_factory=dict)

    @property
    def failed(self) -> tuple[str, ...]:
        """Names of the failing lines."""
        return tuple(line.name for line in self.lines if line.verdict == "fail")
