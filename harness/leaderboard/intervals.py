"""Intervals as columns."""

from __future__ import annotations

from typing import Any

from harness.types import Interval


def bounds(name: str, interval: Interval | None, scale: float = 1.0, end: str = "") -> dict[str, Any]:
    """Return the columns of a point and its bounds; none where there is no interval."""
    if interval is None:
        return {}
    low = None if interval.low is None else interval.low * scale
    high = None if interval.high is None else interval.high * scale
    return {f"{name}{end}": interval.point * scale, f"{name}_low{end}": low, f"{name}_high{end}": high}


def mirrored(interval: Interval | None) -> Interval | None:
    """Turn cell minus anchor of a metric of which more is better into how much worse the cell is."""
    if interval is None:
        return None
    low = None if interval.high is None else -interval.high
    high = None if interval.low is None else -interval.low
    return Interval(0.0 - interval.point, low, high, interval.level, interval.method)
