"""Speed-ups across targets: through the sets that interleave the anchors of all targets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from harness import stats
from harness.leaderboard.ranking import Evidence
from harness.leaderboard.rows import inverse

if TYPE_CHECKING:
    from harness.store import Run
    from harness.types import LaunchSet, Record


def cross_speedups(run: Run) -> Mapping[str, Mapping[str, Any]]:
    """Return cell_id -> its cross-target columns, for the cells whose anchor stands in a link set.

    The reference of a link group is the first target by name that has an ok anchor in it. Anchors that run in
    another precision than the reference's are left out: their ratios are not ranked together.
    """
    found: dict[str, Mapping[str, Any]] = {}
    for sets in _groups(run.links).values():
        anchors = _anchors(run, sets)
        if len(anchors) > 1:
            found |= _group(run, sets, anchors)
    return found


def _groups(links: Iterable[LaunchSet]) -> Mapping[str, list[LaunchSet]]:
    groups: dict[str, list[LaunchSet]] = {}
    for item in links:
        groups.setdefault(item.group, []).append(item)
    return groups


def _anchors(run: Run, sets: Sequence[LaunchSet]) -> list[Record]:
    """Return the ok anchors of a link group that run in the reference's precision, the reference first."""
    members = {cell_id for item in sets for cell_id in item.members}
    found = [run.by_cell[cell_id] for cell_id in members if cell_id in run.by_cell]
    okay = sorted((record for record in found if record.status == "ok"), key=_target)
    return [record for record in okay if record.anchor_precision == okay[0].anchor_precision]


def _target(record: Record) -> str:
    return record.labels.get("target", record.cell.target.name)


def _group(run: Run, links: Sequence[LaunchSet], anchors: Sequence[Record]) -> dict[str, Mapping[str, Any]]:
    reference, linked = anchors[0], {record.cell_id for record in anchors}
    found: dict[str, Mapping[str, Any]] = {}
    for record in run.records:
        if record.status != "ok" or record.anchor is None or record.anchor not in linked:
            continue
        ratio = stats.link_ratio(run.sets_of(record), links, record.cell_id, record.anchor, reference.cell_id)
        speed = inverse(ratio)
        if speed is not None:
            found[record.cell_id] = {
                "cross_speedup": speed.point,
                "cross_speedup_low": speed.low,
                "cross_speedup_high": speed.high,
                "cross_reference": _target(reference),
                "cross_evidence": _evidence(run, links, record, reference),
            }
    return found


def _evidence(run: Run, links: Sequence[LaunchSet], record: Record, reference: Record) -> Evidence | None:
    pair = [
        tuple(
            stats.link_logs(run.sets_of(record), links, record.cell_id, record.anchor or "", reference.cell_id, reduce)
        )
        for reduce in (stats.batch_median, stats.batch_low)
    ]
    return Evidence(pair[0], pair[1]) if all(pair) else None
