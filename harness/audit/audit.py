"""Hold a run against every demand."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

from harness.audit import launches, records
from harness.profiles import profile_named
from harness.store import Problem, Run, layout, load_run, verify_loaded
from harness.types import Options

SLACK_S = 1.0  # times are written to the second


def audit(path: Path) -> list[Problem]:
    """Return every breach in a run; an empty list means that its numbers may be published.

    Raises:
        RecordError: There is no run in this folder.
    """
    run = load_run(path)
    found = [Problem(item.file, item.what, "integrity") for item in verify_loaded(run)]
    claims = _claims(run)
    for name, item in sorted(run.sets.items()):
        found += [Problem(layout.set_file(name), what, code) for code, what in launches.breaches(name, item, claims)]
    found += [Problem(layout.set_file(name), what, "repeated-samples") for name, what in launches.repeated(run.sets)]
    found += list(_times(run))
    for record in run.records:
        file = layout.cell_file(record.cell_id)
        found += [Problem(file, what, code) for code, what in records.breaches(run, record)]
    return found


def _claims(run: Run) -> launches.Claims:
    options: dict[str, Options] = {record.cell_id: record.cell.options for record in run.records}
    cores = run.info.host_facts.get("cores_logical", "") if run.info else ""
    profile = profile_named(run.info.profile if run.info else "quick")
    elsewhere = frozenset(record.cell_id for record in run.records if "runs_on" in record.provenance)
    return launches.Claims(profile, options, int(cores) if cores.isdigit() else None, elsewhere)


def _seconds(utc: str) -> float:
    moment = datetime.fromisoformat(utc)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _times(run: Run) -> Iterator[Problem]:
    """Yield what does not fit on the run's time line, and cells that were measured and have no record."""
    spans = sorted(
        (_seconds(item.started_utc), _seconds(item.started_utc) + item.seconds, name) for name, item in run.sets.items()
    )
    for (_, end, name), (start, _, following) in pairwise(spans):
        if start + SLACK_S < end:
            yield Problem(layout.set_file(following), f"began {end - start:.0f} s before {name} ended", "overlap")
    if run.info is None:
        return
    begin = _seconds(run.info.started_utc)
    finish = _seconds(run.info.finished_utc) if run.info.finished_utc else None
    for start, end, name in spans:
        if start + SLACK_S < begin or (finish is not None and end > finish + SLACK_S):
            yield Problem(layout.set_file(name), "was measured outside the run's own time", "outside-run")
    for record in run.records:
        moment = _seconds(record.finished_utc)
        if moment + SLACK_S < begin or (finish is not None and moment > finish + SLACK_S):
            yield Problem(layout.cell_file(record.cell_id), "was finished outside the run's own time", "outside-run")
    if finish is not None:
        measured = {cell_id for item in run.sets.values() for cell_id in item.members}
        for cell_id in sorted(measured - set(run.by_cell)):
            yield Problem(layout.cell_file(cell_id), "was measured and has no record", "missing-record")
