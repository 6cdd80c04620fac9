"""Lines that compare this host with itself at another time: known work against its calibration, and reproduction."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness import codec
from harness.audit.again import MARGIN, meet
from harness.bench.records import utc_now
from harness.errors import RecordError
from harness.measure import Member, clean, fingerprint
from harness.selftest.floor import typical_ns
from harness.selftest.lab import Lab, canary_spread, judge, line
from harness.selftest.values import Line
from harness.stats import median_interval, paired_ratio
from harness.types import LaunchSet

BLOCKS = 40
SLOWED = 0.02  # of the calibration: what a changed clock does to known work


@dataclass(frozen=True)
class Known:
    """What known work took on this host.

    Attributes:
        clean_ns: The fastest launch that was ever seen: the calibration.
        low_ns, high_ns: The interval of the last self-test's launch medians.
        when: Of that self-test.
    """

    clean_ns: float
    low_ns: float
    high_ns: float
    when: str


def _path(host_id: str) -> Path:
    return clean.folder() / f"work-{host_id}-{BLOCKS}.json"


def recall(host_id: str) -> Known | None:
    """Return what earlier self-tests of this host left."""
    path = _path(host_id)
    try:
        return codec.loads(Known, path.read_bytes(), where=str(path))
    except (OSError, RecordError):
        return None


def known_work(lab: Lab) -> Iterator[Line]:
    """A fixed amount of computing takes what it took when this host was calibrated, or its launches say why not."""
    host_id = fingerprint().host_id
    before = recall(host_id)
    disturbed = lab.calm()
    members = [lab.member("work", "work", blocks=BLOCKS), lab.member("same", "work", blocks=BLOCKS)]
    count = lab.trials(6, 10)
    if before is None:
        lab.note("known work: calibrating this host first")
        clean_ns = min(typical_ns(lab.sets("calibration", members[:1], count), "work"))
    else:
        clean_ns = before.clean_ns
    sets = lab.sets("work", members, count)
    each = typical_ns(sets, "work")
    yield _absolute(sets, each, clean_ns, disturbed)
    yield _relative(sets, disturbed)
    yield _reproduction(lab, members, before, sets, disturbed)
    found = median_interval(each)
    if found.low is not None and found.high is not None:
        left = Known(min(clean_ns, *each), found.low, found.high, utc_now())
        try:
            codec.write_whole(_path(host_id), codec.dumps(left))
        except OSError as error:
            lab.note(f"the calibration could not be kept: {error}")


def _absolute(sets: Sequence[LaunchSet], each: Sequence[float], clean_ns: float, disturbed: str) -> Line:
    middle = statistics.median(each)
    off = middle / clean_ns - 1
    seen = f"{BLOCKS} blocks take {middle / 1e6:.4f} ms, calibrated {clean_ns / 1e6:.4f} ms: {off:+.1%} (within 2 %)"
    verdict = judge(abs(off) <= SLOWED, seen, disturbed=disturbed or unstable(sets), sets=sets)
    return line("known work: as calibrated", verdict, {"off": off}, sets)


def _relative(sets: Sequence[LaunchSet], disturbed: str) -> Line:
    found, _low = paired_ratio(sets, "same", "work")
    seen = f"equal work at whatever clock: ratio {found.point:.4f} (1 within 2 %)"
    verdict = judge(abs(found.point - 1) <= SLOWED, seen, disturbed=disturbed, sets=sets)
    return line("known work: ratio at any clock", verdict, {"ratio": found.point}, sets)


def _reproduction(
    lab: Lab, members: Sequence[Member], before: Known | None, sets: Sequence[LaunchSet], disturbed: str
) -> Line:
    """Measure the same again: against the last self-test, or, in the first one, against this one's beginning."""
    title = "reproduction"
    if before is None:
        first, when = median_interval(typical_ns(sets, "work")), "a moment ago"
        low, high = first.low, first.high
        again = lab.sets("work-again", members[:1], lab.trials(6, 10))
    else:
        low, high, when, again = before.low_ns, before.high_ns, before.when, list(sets)
    now = median_interval(typical_ns(again, "work"))
    if low is None or high is None or now.low is None or now.high is None:
        return line(title, ("not-evaluable", "too few launches for an interval"), {}, again)
    ok = meet((now.low, now.high), (low, high))
    spans = f"{now.low / 1e6:.4f} to {now.high / 1e6:.4f} ms, {when} {low / 1e6:.4f} to {high / 1e6:.4f} ms"
    seen = f"known work takes {spans} (they meet within {MARGIN:.0%})"
    verdict = judge(ok, seen, disturbed=disturbed or unstable(again), sets=again)
    return line(title, verdict, {"now_ns": now.point}, again)


def unstable(sets: Sequence[LaunchSet]) -> str:
    """Say that the canary moved between launches, empty where it did not."""
    moved = canary_spread(sets)
    return f"the canary moved by {moved:.0%} between launches" if moved > 0.05 else ""
