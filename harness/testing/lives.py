"""Checks across sessions of one artifact, and of what they say about placement."""

from __future__ import annotations

import math
from typing import Any

from harness.specs import TargetSpec
from harness.testing.common import arrays, ended, error_of
from harness.testing.observed import Material, Ran
from harness.testing.results import Judge
from harness.types import Failure, Placement

SAME_TOLERANCE = 1e-4  # between batches or thread counts of one runtime
MOST_THREADS = 1.5  # worth of CPU time with threads=1: room for a runtime's housekeeping
SHARES = (0.95, 1.05)
MACS_TOLERANCE = 0.1


def judge_lives(judge: Judge, lives: dict[str, Ran | Failure], spec: TargetSpec[Any], at: str) -> None:
    """Compare the lives of one artifact: "one" item, a "batch", "two" threads, and "again"."""
    one = lives["one"]
    if not isinstance(one, Ran):
        return
    for name, check, doing in (
        ("again", "reopen", "a second session"),
        ("batch", "batch", "a session with a batch of 4"),
        ("two", "threads", "a session with two threads"),
    ):
        life = lives.get(name)
        if life is None or not ended(judge, life, doing, at) or isinstance(life, Failure):
            continue
        if life.raised is not None:
            if life.raised.unsupported:
                judge.skip(check, life.raised.message, at)
                continue
            judge.expect(
                check,
                False,
                expected=f"{doing} works",
                seen=f"{life.stage} raised {life.raised}",
                sample=at,
                fix="free everything in close, and keep no state in the module",
            )
        else:
            _compare(judge, one, life, check, at)
    if spec.ranked:
        _threads(judge, one, lives.get("two"), at)
    _left(judge, lives, at)


def _compare(judge: Judge, one: Ran, other: Ran, check: str, at: str) -> None:
    limit = 0.0 if check == "reopen" else SAME_TOLERANCE
    worst = max(
        (error_of(a, b) for a, b in zip(arrays(other.outputs), arrays(one.outputs), strict=False)), default=math.inf
    )
    if other.single is not None:
        rows = arrays(other.single)
        worst = max([worst, *(error_of(a, b[: len(a)]) for a, b in zip(rows, arrays(one.outputs), strict=False))])
    fixes = {
        "reopen": "keep no state between sessions",
        "batch": "look at ops that mix items, and at padding",
        "threads": "look at the order of reductions",
    }
    name = "repeatable" if check == "reopen" else check
    judge.expect(check, True, expected="", seen="", fix="", sample=at)
    judge.expect(
        name,
        worst <= limit,
        expected="the outputs of the first session" + (f", within {limit:g}" if limit else ""),
        seen=f"they differ by {worst:.2g} of the largest value",
        fix=fixes[check],
        sample=at,
    )


def _threads(judge: Judge, one: Ran, two: Ran | Failure | None, at: str) -> None:
    judge.expect(
        "threads-honoured",
        one.busy_threads <= MOST_THREADS,
        expected="one thread does the work",
        seen=f"{one.busy_threads:.1f} threads' worth of CPU time with threads=1",
        sample=at,
        fix="pass options.threads to every pool of the runtime (intra-op, inter-op, its linear algebra)",
    )
    for life, count in ((one, "1"), (two, "2")):
        told = life.effective.get("threads", "") if isinstance(life, Ran) else ""
        if told.isdecimal():
            judge.expect(
                "threads-honoured",
                told == count,
                expected=f"effective threads of {count}",
                seen=told,
                sample=at,
                fix="pass options.threads to the runtime; read back what is in force",
            )


def _left(judge: Judge, lives: dict[str, Ran | Failure], at: str) -> None:
    """Look for growth from one life to the next: what a runtime keeps once, for all sessions, is its own affair."""
    again = lives.get("again")
    if not isinstance(again, Ran):
        return
    watched = again.watched
    judge.expect(
        "threads-left",
        watched.after_threads <= watched.before_threads and not watched.left_threads,
        expected="close ends the session's threads",
        sample=at,
        seen=f"{watched.before_threads} threads before a second session, {watched.after_threads} after it"
        + (f" ({', '.join(watched.left_threads)})" if watched.left_threads else ""),
        fix="end the pool in close; drop every reference to the runtime's session",
    )
    judge.expect(
        "close",
        watched.left_files == 0,
        expected="close frees what the session opened",
        sample=at,
        seen=f"{watched.left_files} descriptors stay open after a second session",
        fix="close files and maps in close; drop every reference to the runtime's session",
    )


def judge_placements(judge: Judge, seen: Ran | Failure, material: Material, at: str) -> None:
    """Check what a session says about what ran where."""
    if not ended(judge, seen, "a session for placements", at) or isinstance(seen, Failure):
        return
    if seen.raised is not None:
        judge.expect(
            "placements",
            False,
            expected="placements after a run",
            seen=f"{seen.stage} raised {seen.raised}",
            fix="open with profiling on for purpose 'placement'",
            sample=at,
        )
        return
    if seen.placements_gave:
        judge.expect(
            "placements",
            False,
            expected="a tuple of Placement",
            seen=seen.placements_gave,
            sample=at,
            fix="return Placement(op, name, kernel, device, precision) per executed operator",
        )
        return
    if seen.placements is None:
        judge.skip("placements", "the session does not report placements: coverage will be unknown", at)
        return
    _sums(judge, seen.placements, material, at)


def _sums(judge: Judge, places: tuple[Placement, ...], material: Material, at: str) -> None:
    blank = [place.name or place.op for place in places if not (place.op and place.device and place.precision)]
    judge.expect(
        "placements",
        bool(places) and not blank,
        expected="op, device and precision of every operator",
        seen=f"blank in {', '.join(blank[:3])}" if blank else "no operator at all",
        fix="fill the fields from the runtime's own report",
        sample=at,
    )
    shares = [place.time_share for place in places if place.time_share is not None]
    if shares:
        fine = SHARES[0] <= sum(shares) <= SHARES[1] and all(0 <= share <= 1 for share in shares)
        judge.expect(
            "placements",
            fine,
            expected="time shares of 0..1 that sum up to 1",
            seen=f"sum {sum(shares):.3g}",
            fix="divide each operator's time by the sum over all operators",
            sample=at,
        )
    macs = [place.macs for place in places if place.macs]
    counted = material.examined.macs
    if macs and counted:
        fine = abs(sum(macs) - counted) <= MACS_TOLERANCE * counted
        judge.expect(
            "placements",
            fine,
            expected=f"{counted} MACs per item in all, as in the model",
            seen=f"{sum(macs)}",
            fix="count at batch 1, each operator once, fused ones with what they fuse; None where unknown",
            sample=at,
        )
