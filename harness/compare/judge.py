"""From evidence to changes with simultaneous intervals."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.compare.evidence import Evidence, Logs
from harness.compare.sides import Side
from harness.compare.values import Change, Word
from harness.stats.order import LEVEL
from harness.stats.proportions import newcombe_paired
from harness.stats.quality import GATE, paired_bootstrap
from harness.stats.ratio import MARGIN, MARGINS, verdict
from harness.stats.shift import Bounds
from harness.stats.simultaneous import Estimate, Sample, simultaneous
from harness.types import Interval, NoiseVerdict, Record

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Aggregate = Callable[[NDArray[Any]], float]

ALPHA = (1 - LEVEL) / 2  # of each side, over all cells
MEMORY_BYTES, MEMORY_SHARE = 1 << 20, 0.02  # what readings of one cell may differ by (MEASUREMENT 2)
_WORST: dict[NoiseVerdict, int] = {"ok": 0, "suspect": 1, "noisy": 2}


@dataclass(frozen=True)
class Judge:
    """A metric of a cell.

    Attributes:
        doubt: Why nothing may be decided whatever the bounds say.
    """

    change: Change
    doubt: str = ""


def margin_of(profile: str) -> float:
    """Return the margin of equivalence of a profile."""
    return MARGINS.get(profile, MARGIN)


def time_changes(found: Mapping[str, Evidence], records: Mapping[str, tuple[Record, Record]]) -> dict[str, Judge]:
    """Judge the latency of all cells at once, B against A.

    One cell alone has the exact interval of its ranks; several have max-t intervals over launch-sets.

    Args:
        found: Evidence by cell.
        records: A's and B's record by cell.
    """
    compared = {name: item for name, item in found.items() if not item.yardstick}
    medians = _intervals({name: item.medians for name, item in compared.items()}, compared)
    lows = _intervals({name: item.lows for name, item in compared.items()}, compared)
    judged = {name: _time(found[name], medians[name], lows[name], *records[name]) for name in compared}
    return judged | {name: _yardstick(found[name], *records[name]) for name in found if name not in compared}


def _intervals(logs: Mapping[str, Logs], evidence: Mapping[str, Evidence]) -> dict[str, Interval]:
    """Return ratios t(B) / t(A) with bounds that hold for all of them at once."""
    if len(logs) == 1:
        return {name: _ratio(*item.interval(), f"exact, {item.replicates}") for name, item in logs.items()}
    samples = [Sample(item.second, item.first, evidence[name].block) for name, item in logs.items()]
    estimates = zip(logs.items(), simultaneous(samples, LEVEL), strict=True)
    return {name: _max_t(item, found, len(logs)) for (name, item), found in estimates}


def _max_t(logs: Logs, found: Estimate, cells: int) -> Interval:
    ends = None if found.low is None or found.high is None else (found.low, found.high)
    return _ratio(found.point, ends, f"max-t, {logs.replicates}, {cells} cells at once")


def _ratio(point: float, ends: Bounds, method: str) -> Interval:
    low, high = (None, None) if ends is None else (math.exp(ends[0]), math.exp(ends[1]))
    return Interval(math.exp(point), low, high, LEVEL, method)


def _time(found: Evidence, medians: Interval, lows: Interval, first: Record, second: Record) -> Judge:
    noise = max(_noise(first), _noise(second), key=_WORST.__getitem__)
    word, why = verdict(medians, lows, noise, margin_of(first.profile))
    reason = "; ".join(why)
    if medians.low is None:
        reason = f"{found.medians.replicates} carry no interval"
    change = _time_change(found, medians, first, second, _WORDS[word], reason)
    return Judge(change, reason if reason.startswith("estimator_disagree") else "")


def _yardstick(found: Evidence, first: Record, second: Record) -> Judge:
    interval = _ratio(*found.medians.interval(), f"exact, {found.medians.replicates}")
    reason = "what the other cells are measured by; its own change is the host's"
    return Judge(_time_change(found, interval, first, second, "yardstick", reason), reason)


def _time_change(
    found: Evidence, ratio: Interval, first: Record, second: Record, word: Word, reason: str
) -> Change:  # fmt: skip
    low = None if ratio.low is None else ratio.low - 1
    high = None if ratio.high is None else ratio.high - 1
    change = Interval(ratio.point - 1, low, high, ratio.level, ratio.method)
    return Change("latency", change, word, "share", _p50(first), _p50(second), found.basis, reason)


_WORDS: dict[str, Word] = {
    "faster": "faster", "slower": "slower", "equivalent": "equivalent", "unresolved": "unresolved",
}  # fmt: skip


def _noise(record: Record) -> NoiseVerdict:
    return record.latency.noise if record.latency else "noisy"


def _p50(record: Record) -> float | None:
    return record.latency.p50_ns.point if record.latency else None


def memory_change(first: Record, second: Record) -> Judge | None:
    """Judge peak memory: readings that differ by less than two readings of one cell may are equivalent."""
    if first.memory is None or second.memory is None or not first.memory.peak_bytes:
        return None
    a, b = first.memory.peak_bytes, second.memory.peak_bytes
    slack = max(MEMORY_BYTES / a, MEMORY_SHARE)
    share = b / a - 1
    method = f"{second.memory.launches} readings, give or take {slack:.1%}"
    interval = Interval(share, share - slack, share + slack, LEVEL, method)
    word: Word = "equivalent" if abs(share) <= slack else "more" if share > 0 else "less"
    reason = "within what two readings of one cell differ by" if word == "equivalent" else ""
    change = Change("memory", interval, word, "share", a, b, "one reading each", reason)
    return Judge(change)


def size_change(first: Record, second: Record) -> Judge | None:
    """Judge the size of the artifact, which is exact."""
    if first.artifact is None or second.artifact is None or not first.artifact.artifact_bytes:
        return None
    a, b = first.artifact.artifact_bytes, second.artifact.artifact_bytes
    share = b / a - 1
    word: Word = "equivalent" if a == b else "more" if b > a else "less"
    return Judge(Change("size", Interval(share, share, share, LEVEL, "exact"), word, "share", a, b, "exact"))


def accuracy_change(
    a: Side, first: Record, b: Side, second: Record, cells: int, aggregate: Aggregate | None
) -> Judge | None:
    """Judge the task metric, paired by item; positive is better.

    Args:
        a: Side of ``first``.
        first: A's record.
        b: Side of ``second``.
        second: B's record.
        cells: Simultaneous comparisons.
        aggregate: Scores to metric, where the workload is installed; 0/1 statistics need none.
    """
    mine, theirs = first.quality, second.quality
    if mine is None or theirs is None or mine.value is None or theirs.value is None:
        return None
    scale = (100.0 if mine.unit == "%" else 1.0) * (1 if mine.higher_is_better else -1)
    point = (theirs.value.point - mine.value.point) * scale
    scores = (a.run.scores(first.cell_id), b.run.scores(second.cell_id)) if _same_items(first, second) else (None, None)
    bounds, method = _accuracy_bounds(*scores, first, aggregate)
    allowed = (1 - GATE) * abs(mine.value.point * scale)
    raw = bounds(ALPHA / cells)
    ends = None if raw is None else (min(end * scale for end in raw), max(end * scale for end in raw))
    word, reason = _accuracy_word(ends, allowed)
    low, high = ends or (None, None)
    change = Change(
        metric="accuracy",
        change=Interval(point, low, high, LEVEL, f"{method}, {cells} cells at once"),
        word=word,
        unit="points" if mine.unit == "%" else mine.unit,
        a=mine.value.point * abs(scale),
        b=theirs.value.point * abs(scale),
        basis="paired by item",
        reason=reason or ("" if ends else method),
    )
    return Judge(change)


def _same_items(first: Record, second: Record) -> bool:
    """Tell whether two records were judged on the same data, as far as they say; older ones do not."""
    data = [record.provenance.get("evaluation_sha256", "") for record in (first, second)]
    return not all(data) or data[0] == data[1]


def _accuracy_word(ends: Bounds, allowed: float) -> tuple[Word, str]:
    if ends is None:
        return "unresolved", ""
    if ends == (0.0, 0.0):
        return "equivalent", "every item scored the same"
    if ends[1] < 0:
        return "worse", ""
    if ends[0] > 0:
        return "better", ""
    if -allowed <= ends[0] and ends[1] <= allowed:
        return "equivalent", f"within {allowed:.2g}, which a 99 % gate allows"
    return "unresolved", "the interval reaches over 0 and over what a 99 % gate allows"


def _accuracy_bounds(
    mine: NDArray[Any] | None, theirs: NDArray[Any] | None, record: Record, aggregate: Aggregate | None
) -> tuple[Callable[[float], Bounds], str]:
    """Return bounds of metric(B) - metric(A) in the metric's own scale, and how they are made."""
    if mine is None or theirs is None or mine.shape != theirs.shape:
        return (lambda _alpha: None), "the items of the two cannot be paired"
    if bool((mine == theirs).all()):
        return (lambda _alpha: (0.0, 0.0)), "every item scored the same"
    method = record.quality.value.method if record.quality and record.quality.value else ""
    if method.lower().startswith("wilson"):
        ours, others = mine.reshape(len(mine), -1)[:, 0] > 0.5, theirs.reshape(len(theirs), -1)[:, 0] > 0.5
        both, gained = int((ours & others).sum()), int((others & ~ours).sum())
        lost, neither = int((ours & ~others).sum()), int((~ours & ~others).sum())
        return (lambda alpha: newcombe_paired(both, gained, lost, neither, 1 - 2 * alpha)), "Newcombe paired"
    if aggregate is None:
        return (lambda _alpha: None), "the workload that aggregates these items is not installed"

    def resampled(alpha: float) -> Bounds:
        found = paired_bootstrap(theirs, mine, aggregate, 0, level=1 - 2 * alpha)
        return None if found.low is None or found.high is None else (found.low, found.high)

    return resampled, "paired bootstrap over items"
