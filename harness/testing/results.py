"""Results of checks, and how known gaps turn them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from harness.testing.catalogue import CHECKS

State = Literal["passed", "failed", "skipped", "gap"]


@dataclass(frozen=True)
class Result:
    """What one check said about one offer, on one test model where it needs one.

    Attributes:
        check: A name of ``CHECKS``.
        subject: Kind and name of the offer, such as "method 'zeros'".
        sample: Layer kind of the test model, with the precision where it is not float32; empty for none.
        state: "gap" is a failure that the spec declares in ``known_gaps``.
        expected, seen, fix: For failures; one sentence each. A skipped check has its reason in ``seen``.
    """

    check: str
    subject: str
    state: State
    sample: str = ""
    expected: str = ""
    seen: str = ""
    fix: str = ""

    @property
    def key(self) -> str:
        """The check with its test model, as ``known_gaps`` names it."""
        return f"{self.check}:{self.sample}" if self.sample else self.check

    def __str__(self) -> str:
        head = f"{self.subject}, {self.key}: {self.state}"
        if self.state == "passed":
            return head
        parts = (("expected", self.expected), ("seen", self.seen), ("fix", self.fix))
        return "\n".join([head, *(f"  {name}: {text}" for name, text in parts if text)])


@dataclass
class Judge:
    """Collects the results about one offer."""

    subject: str
    results: list[Result] = field(default_factory=list)

    def expect(self, check: str, holds: bool, *, expected: str, seen: str, fix: str, sample: str = "") -> bool:
        """Note whether a condition holds; return it."""
        result = Result(check, self.subject, "passed" if holds else "failed", sample)
        self.results.append(result if holds else replace(result, expected=expected, seen=seen, fix=fix))
        return holds

    def skip(self, check: str, reason: str, sample: str = "") -> None:
        """Note that a check could not be made, and why."""
        self.results.append(Result(check, self.subject, "skipped", sample, seen=reason))


def with_gaps(results: Iterable[Result], gaps: Mapping[str, str]) -> list[Result]:
    """Turn declared failures into gaps, and a declared gap that no longer fails into a failure.

    Args:
        results: Of one offer.
        gaps: "check" or "check:sample" -> reason.
    """
    found = list(results)
    turned = [_turned(result, gaps) for result in found]
    subject = found[0].subject if found else ""
    for name, reason in gaps.items():
        about = [result for result in found if name in {result.check, result.key}]
        known = name.partition(":")[0] in CHECKS
        if any(result.state == "failed" for result in about) or (known and _untold(about)):
            continue
        seen = "it passes" if known else "no check has this name"
        turned.append(
            Result(
                "known-gaps",
                subject,
                "failed",
                expected=f"the declared gap {name!r} ({reason}) shows",
                seen=seen,
                fix=f"take {name!r} out of known_gaps: the gap is closed"
                if known
                else "correct the name in known_gaps",
            )
        )
        found.append(turned[-1])
    return turned


def _untold(about: list[Result]) -> bool:
    return all(result.state == "skipped" for result in about)


def _turned(result: Result, gaps: Mapping[str, str]) -> Result:
    reason = gaps.get(result.key, gaps.get(result.check))
    if result.state != "failed" or reason is None:
        return result
    return replace(result, state="gap", seen=f"{result.seen} (known: {reason})")


@dataclass(frozen=True)
class Report:
    """All results about a plugin.

    Attributes:
        plugin: Entry point.
        results: In the order in which they were made.
    """

    plugin: str
    results: tuple[Result, ...]

    @property
    def failed(self) -> tuple[Result, ...]:
        """The checks that failed and are no declared gap."""
        return tuple(result for result in self.results if result.state == "failed")

    def count(self, state: State) -> int:
        """Return how many results have a state."""
        return sum(result.state == state for result in self.results)

    def raise_failures(self) -> None:
        """Fail a test with all that failed.

        Raises:
            AssertionError: A check failed; the message says what was expected, what was seen and how to fix it.
        """
        if self.failed:
            raise AssertionError("\n".join(["", *map(str, self.failed)]))
