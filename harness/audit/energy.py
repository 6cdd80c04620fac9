"""Demands on the energy of a record."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import pairwise

from harness import codec
from harness.audit.launches import Breach
from harness.stats.energy import energy
from harness.store import Run
from harness.store.verify import differences
from harness.types import Record

SLACK_S = 1.0  # times of a run are written to the second


def breaches(run: Run, record: Record) -> Iterator[Breach]:
    """Yield what a record breaks."""
    found = record.energy
    if found is None:
        return
    if found.level == "E0":
        if not found.reason:
            yield "energy", "is not available, without a reason"
        if found.joules is not None or found.watts is not None:
            yield "energy", "claims joules at level E0"
        return
    if found.level == "E1" or not found.source:
        yield "energy", f"level {found.level} by {found.source or 'nothing'} is no measurement"
    again = energy(found.level, found.source, found.windows, found.idle)
    for where in differences(codec.to_data(found), codec.to_data(again)):
        yield "energy", f"does not follow from its windows: {where}"
    spans = sorted((w.begin_utc_ns / 1e9, w.begin_utc_ns / 1e9 + w.seconds) for w in (*found.windows, *found.idle))
    for (_begin, end), (following, _end) in pairwise(spans):
        if following + 0.01 < end:
            yield "energy", f"its windows overlap by {end - following:.2f} s"
    begin = _moment(run.info.started_utc) if run.info else None
    finish = _moment(run.info.finished_utc) if run.info and run.info.finished_utc else None
    if (begin is not None and spans and spans[0][0] < begin - SLACK_S) or (
        finish is not None and spans and spans[-1][1] > finish + SLACK_S
    ):
        yield "energy", "was read outside the run's own time"


def _moment(utc: str) -> float:
    moment = datetime.fromisoformat(utc)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
