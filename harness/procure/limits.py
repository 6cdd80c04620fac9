"""What a configuration must keep: a latency limit and an accuracy, and how far the evidence decides either."""

from __future__ import annotations

import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from harness.errors import PlanError
from harness.stats import median_interval, percentile_support
from harness.stats.order import quantile
from harness.types import Interval, Launch, Quality

Kept = Literal["yes", "by estimate", "no", "not known"]
_SLO = re.compile(r"\s*(p\d{2}(?:\.\d+)?)\s*(<=?)\s*(\d+(?:\.\d+)?)\s*(ns|us|µs|ms|s)\s*")
_FLOOR = re.compile(r"\s*>=?\s*(\d+(?:\.\d+)?)\s*(%?)\s*")
_NS = {"ns": 1.0, "us": 1e3, "µs": 1e3, "ms": 1e6, "s": 1e9}


@dataclass(frozen=True)
class Slo:
    """A percentile of the latency that must stay below a limit.

    Attributes:
        share: Of the percentile, 0..1.
    """

    text: str
    name: str
    share: float
    limit_ns: float


@dataclass(frozen=True)
class Floor:
    """The least accuracy: a share of the fp32 anchor's (0..1), or a value in the metric's own unit."""

    text: str
    value: float
    relative: bool


@dataclass(frozen=True)
class Held:
    """How one limit is kept.

    Attributes:
        value: Of the percentile in ns, or of the accuracy (share of the anchor's, or in the metric's unit).
        worst: Of all launches, in ns; ``None`` for accuracy.
        reason: Why it is not a plain yes.
    """

    kept: Kept
    value: Interval | None
    reason: str = ""
    worst: float | None = None


def parse_slo(text: str) -> Slo:
    """Read a limit such as ``p99<10ms``.

    Raises:
        PlanError: It is none.
    """
    match = _SLO.fullmatch(text)
    share = float(match[1][1:]) / 100 if match else 0.0
    if match is None or not 0.5 <= share < 1:
        raise PlanError(f"--slo takes a limit such as 'p99<10ms'; got {text!r}", hint="p50, p90, p95, p99, p99.9")
    return Slo(text.strip(), match[1], share, float(match[3]) * _NS[match[4]])


def parse_floor(text: str) -> Floor:
    """Read an accuracy such as ``>=99%`` (of the anchor's) or ``>=97.5`` (in the metric's own unit).

    Raises:
        PlanError: It is none.
    """
    match = _FLOOR.fullmatch(text)
    if match is None:
        hint = "'>=99%' is a share of the fp32 anchor's, '>=97.5' a value in the metric's unit"
        raise PlanError(f"--accuracy takes a floor such as '>=99%'; got {text!r}", hint=hint)
    return Floor(text.strip(), float(match[1]) / (100 if match[2] else 1), bool(match[2]))


def hold_slo(launches: Sequence[Launch], slo: Slo) -> Held:
    """Judge a percentile: the median over launches with its interval, and the worst launch.

    A percentile needs ``percentile_support`` pooled queries (LoadGen's early stopping), each timed by itself.
    """
    values = [[ns for batch in launch.batches for ns in batch.ns] for launch in launches]
    pooled, needed = sum(map(len, values)), percentile_support(slo.share)
    if pooled < needed:
        return Held("not known", None, f"{slo.name} needs {needed} queries, {pooled} were timed: --profile standard")
    if any(launch.inner_loops > 1 for launch in launches) and slo.share > 0.5:
        return Held("not known", None, f"{slo.name} is not known of a model so short that queries were timed in groups")
    each = [quantile(item, slo.share) for item in values]
    found = median_interval(each)
    worst = max(each)
    if found.point > slo.limit_ns or (found.low is not None and found.low > slo.limit_ns):
        sure = found.low is not None and found.low > slo.limit_ns
        return Held("no", found, "" if sure else "by estimate", worst)
    if found.high is not None and found.high < slo.limit_ns:
        note = "" if worst < slo.limit_ns else "one launch was over the limit"
        return Held("yes" if not note else "by estimate", found, note, worst)
    why = "its interval reaches over the limit" if found.high is not None else f"no interval: {found.method}"
    return Held("by estimate", found, why, worst)


def hold_floor(quality: Quality | None, floor: Floor) -> Held:
    """Judge the accuracy by its estimate, as MLPerf does, and say where its interval leaves that open."""
    if quality is None or quality.value is None:
        return Held("not known", None, "its accuracy was not measured")
    value = _relative(quality) if floor.relative else _scaled(quality.value, 100.0 if quality.unit == "%" else 1.0)
    if value is None:
        return Held("not known", None, "it has no anchor to be a share of")
    if not floor.relative and not quality.higher_is_better:
        value = Interval(-value.point, _negative(value.high), _negative(value.low), value.level, value.method)
        floor = Floor(floor.text, -floor.value, relative=False)
    if value.point < floor.value:
        return Held("no", value, "" if value.high is not None and value.high < floor.value else "by estimate")
    if value.low is not None and value.low >= floor.value:
        return Held("yes", value)
    return Held("by estimate", value, f"its interval reaches below {floor.text}: {quality.items} items cannot tell")


def _negative(value: float | None) -> float | None:
    return None if value is None else -value


def _scaled(value: Interval, scale: float) -> Interval:
    low = None if value.low is None else value.low * scale
    high = None if value.high is None else value.high * scale
    return Interval(value.point * scale, low, high, value.level, value.method)


def _relative(quality: Quality) -> Interval | None:
    """Return the metric as a share of the anchor's, from the paired difference; above 1 is better."""
    value, difference = quality.value, quality.difference
    if value is None:
        return None
    if difference is None:
        return Interval(1.0, 1.0, 1.0, value.level, "is the anchor")
    anchor = value.point - difference.point
    if not anchor > 0 or difference.low is None or difference.high is None:
        return None
    ends = [(anchor + end) / anchor for end in (difference.low, difference.point, difference.high)]
    if not quality.higher_is_better:
        if min(ends) <= 0:
            return None
        ends = sorted(1 / end for end in ends)
    return Interval(ends[1], ends[0], ends[2], difference.level, difference.method)


def throughput_of(launches: Sequence[Launch]) -> Interval:
    """Return items per second, one inference after another: median over launches with its interval."""
    each = [
        launch.batch_size * 1e9 / statistics.fmean(ns for batch in launch.batches for ns in batch.ns)
        for launch in launches
    ]
    return median_interval(each)
