"""Speed-ups across targets: through the sets that interleave the anchors of all targets."""

from __future__ import annotations

import math

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from harness import stats
from harness.leaderboard.rows import inverse
from harness.store import Run
from harness.types import Interval, LaunchSet, Record


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


def _group(run: Run, sets: Sequence[LaunchSet], anchors: Sequence[Record]) -> dict[str, Mapping[str, Any]]:
    reference = anchors[0]
    links = {record.cell_id: _link(sets, record.cell_id, reference.cell_id) for record in anchors}
    found: dict[str, Mapping[str, Any]] = {}
    for record in run.records:
        link = links.get(record.anchor or "")
        if record.status != "ok" or record.latency is None or link is None:
            continue
        speed = inverse(_chain(record, link))
        if speed is not None:
            found[record.cell_id] = {
                "cross_speedup": speed.point,
                "cross_speedup_low": speed.low,
                "cross_speedup_high": speed.high,
                "cross_reference": _target(reference),
            }
    return found


def _link(sets: Sequence[LaunchSet], cell_id: str, reference: str) -> Interval | None:
    if cell_id == reference:
        return Interval(1.0, 1.0, 1.0, method="reference")
    try:
        return stats.paired_ratio(sets, cell_id, reference)[0]
    except ValueError:  # no round in which both ran
        return None


def _chain(record: Record, link: Interval) -> Interval | None:
    """Return t(cell) / t(reference) = t(cell) / t(anchor) x t(anchor) / t(reference)."""
    if record.cell_id == record.anchor:
        return link
    ratio = record.latency.ratio if record.latency else None
    return None if ratio is None else product(ratio, link)


def product(first: Interval, second: Interval) -> Interval:
    """Multiply two independent ratios; on the log scale their half-widths add in quadrature."""
    point = first.point * second.point
    bounds = [value for item in (first, second) for value in (item.low, item.high)]
    if any(value is None or value <= 0 for value in bounds):
        return Interval(point, None, None, min(first.level, second.level), "product of ratios")
    below = math.hypot(math.log(first.point / (first.low or 1)), math.log(second.point / (second.low or 1)))
    above = math.hypot(math.log((first.high or 1) / first.point), math.log((second.high or 1) / second.point))
    low, high = point * math.exp(-below), point * math.exp(above)
    return Interval(point, low, high, min(first.level, second.level), "product of ratios")
