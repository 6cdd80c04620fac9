"""A run held against another one of the same host: do its cells come out again (MEASUREMENT.md section 5)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from harness.errors import PlanError
from harness.store import Problem, Run, layout
from harness.types import Interval, Record

MARGIN = 0.05  # of an interval, each way; MLPerf's audits allow 10 %


@dataclass(frozen=True)
class Repetition:
    """What became of the cells that both runs measured.

    Attributes:
        same: Cells that came out again.
        problems: Cells that did not.
        undecided: Cells and why nothing follows: noise, or no interval.
    """

    same: tuple[str, ...]
    problems: tuple[Problem, ...]
    undecided: tuple[str, ...]


def repetition(first: Run, second: Run) -> Repetition:
    """Compare the latencies of the cells that two runs share, and their ratios where absolute times are disturbed.

    A cell comes out again where both intervals, widened by 5 %, meet.

    Raises:
        PlanError: The runs share no cell with the same inputs on the same host.
    """
    same: list[str] = []
    problems: list[Problem] = []
    undecided: list[str] = []
    for ours, theirs in _pairs(first, second):
        name = f"{ours.labels.get('method')} on {ours.labels.get('target')}"
        verdict, what = _verdict(ours, theirs)
        if verdict == "same":
            same.append(name)
        elif verdict == "differs":
            problems.append(Problem(layout.cell_file(ours.cell_id), f"{what} in {second.path.name}", "reproduction"))
        else:
            undecided.append(f"{name}: {what}")
    if not (same or problems or undecided):
        raise PlanError(
            f"{first.path.name} and {second.path.name} share no cell of the same artifact on the same host",
            hint="'harness compare' sets runs of other hosts or software side by side",
        )
    return Repetition(tuple(same), tuple(problems), tuple(undecided))


def meet(now: tuple[float, float], before: tuple[float, float]) -> bool:
    """Tell whether two intervals meet once the earlier one is widened by 5 % each way."""
    return now[0] <= before[1] * (1 + MARGIN) and now[1] >= before[0] * (1 - MARGIN)


def _pairs(first: Run, second: Run) -> Iterator[tuple[Record, Record]]:
    for ours in first.records:
        theirs = second.by_cell.get(ours.cell_id)
        if theirs is not None and ours.inputs_sha256 == theirs.inputs_sha256 and ours.latency and theirs.latency:
            yield ours, theirs


def _verdict(ours: Record, theirs: Record) -> tuple[str, str]:
    mine, other = ours.latency, theirs.latency
    if mine is None or other is None:
        return "undecided", "has no latency"
    calm = mine.noise == "ok" and other.noise == "ok"
    if calm:
        return _meet("p50", mine.p50_ns, other.p50_ns, 1e-6, " ms")
    if mine.ratio is not None and other.ratio is not None and "noisy" not in {mine.noise, other.noise}:
        return _meet("time over the anchor's", mine.ratio, other.ratio, 1.0, "")
    return "undecided", f"its launches were {mine.noise} and {other.noise}"


def _meet(what: str, mine: Interval, other: Interval, scale: float, unit: str) -> tuple[str, str]:
    if mine.low is None or mine.high is None or other.low is None or other.high is None:
        return "undecided", f"{what} has no interval"
    if meet((other.low, other.high), (mine.low, mine.high)):
        return "same", ""
    spans = [f"{item.point * scale:.4g}{unit}" for item in (mine, other)]
    return "differs", f"{what} was {spans[0]}, and is {spans[1]}"
