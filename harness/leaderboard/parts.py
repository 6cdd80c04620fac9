"""What each part of a split network takes alone, and what running them one after another adds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from harness.leaderboard.digits import UNKNOWN, plain, ranged_in

if TYPE_CHECKING:
    from harness.types import Record

Row = Mapping[str, Any]
Unit = tuple[str, float]


def header(time: Unit, size: Unit) -> tuple[str, ...]:
    """Return the section's header."""
    return ("split network", "target", "part", "MACs", f"p50 {time[0]} alone", "of the parts' time", f"size {size[0]}")


def parts_text(record: Record) -> str | None:
    """Return ``p50_ns/low/high/bytes/macs`` of each part, separated by spaces; empty where a figure is not known."""
    latency, artifact = record.latency, record.artifact
    if latency is None or artifact is None or not latency.parts_ns or len(latency.parts_ns) != len(artifact.parts):
        return None
    effect = {key: value for step in record.lineage for key, value in step.effect.items()}
    found = []
    for at, (span, part) in enumerate(zip(latency.parts_ns, artifact.parts, strict=True), start=1):
        known = (span.point, span.low, span.high, part.artifact_bytes, effect.get(f"part_{at}_macs"))
        found.append("/".join("" if value is None else f"{value:.0f}" for value in known))
    return " ".join(found)


def part_lines(rows: Iterable[Row], time: Unit, size: Unit) -> tuple[tuple[str, ...], ...]:
    """Return the section's lines: the parts of each split network in order, then what they come to together.

    Args:
        rows: Of the table.
        time: Name of the unit, and nanoseconds in it.
        size: Name of the unit, and bytes in it.
    """
    listed = list(rows)
    by_id = {item["cell_id"]: item for item in listed}
    split = (item for item in listed if item["parts"])
    return tuple(line for item in split for line in _lines(item, by_id.get(item["anchor_id"]), time, size))


def _lines(item: Row, anchor: Row | None, time: Unit, size: Unit) -> Iterator[tuple[str, ...]]:
    parts = [[float(word) if word else None for word in text.split("/")] for text in item["parts"].split(" ")]
    whole = sum(part[0] or 0 for part in parts)
    macs = sum(part[4] or 0 for part in parts)
    name = (str(item["method"]), str(item["target"]))
    for at, (point, low, high, size_bytes, count) in enumerate(parts, start=1):
        yield (
            *name,
            f"{at} of {len(parts)}",
            _share(count, macs),
            _time(point, low, high, time),
            _share(point, whole),
            UNKNOWN if size_bytes is None else plain(size_bytes / size[1]),
        )
    known = [f"alone together {plain(whole / time[1])}", f"one after another {plain(item['p50_ns'] / time[1])}"]
    known += [f"unsplit {plain(anchor['p50_ns'] / time[1])}"] if anchor and anchor["p50_ns"] else []
    yield (*name, "all", "", "; ".join(known), "", plain(item["artifact_bytes"] / size[1]))


def _share(value: float | None, whole: float) -> str:
    return UNKNOWN if value is None or not whole else f"{100 * value / whole:.0f} %"


def _time(point: float | None, low: float | None, high: float | None, unit: Unit) -> str:
    if point is None:
        return UNKNOWN
    text, span = ranged_in(unit[1], point, low, high)
    return f"{text} ({span})" if span else text
