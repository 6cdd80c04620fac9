"""What each step of a pipeline contributed: its cell against the pipeline that ends one step before."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from harness import stats
from harness.codec import sha256
from harness.errors import RecordError
from harness.grammar import format_step
from harness.leaderboard.digits import UNKNOWN, plain, ranged
from harness.leaderboard.rows import inverse
from harness.stats.dismiss import dismiss_noisy
from harness.types import Interval

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from harness.store import Run
    from harness.types import Record, Step

Row = Mapping[str, Any]
STAGES_HEADER = ("stage", "target", "after", "own drop", "own speed-up", "own size ratio")


def stage_effects(run: Run) -> dict[str, dict[str, Any]]:
    """Return cell_id -> its own stage's columns, of a run that was asked for stages.

    The stage before is the pipeline without its last step, for the first step the anchor.
    """
    if run.info is None or not run.info.request.stages:
        return {}
    okay = [record for record in run.records if record.status == "ok"]
    by_place = {_place(record, record.cell.pipeline): record for record in okay}
    found: dict[str, dict[str, Any]] = {}
    for record in okay:
        steps = record.cell.pipeline
        before = by_place.get(_place(record, steps[:-1])) if len(steps) > 1 else run.by_cell.get(record.anchor or "")
        if record.cell_id != record.anchor and before is not None and before.status == "ok":
            found[record.cell_id] = {
                "stage_step": format_step(steps[len(steps) - 1]),
                "stage_after": before.labels.get("method", ""),
                **_bounds("own_drop", _drop(record, before, run)),
                **_bounds("own_speedup", _speedup(record, before, run)),
                "own_compression": _size(record, before),
            }
    return found


def _place(record: Record, pipeline: tuple[Step, ...]) -> str:
    return sha256([record.cell.workload, record.cell.target, record.cell.options, pipeline])


def _bounds(name: str, interval: Interval | None) -> dict[str, float | None]:
    if interval is None:
        return {}
    return {name: interval.point, f"{name}_low": interval.low, f"{name}_high": interval.high}


def _drop(record: Record, before: Record, run: Run) -> Interval | None:
    """Return how much worse the stage made it: paired by item where items are right or wrong, else the difference."""
    mine, theirs = record.quality, before.quality
    if mine is None or theirs is None or mine.value is None or theirs.value is None:
        return None
    scale = 100.0 if mine.unit == "%" else 1.0
    sign = -scale if mine.higher_is_better else scale
    found = _paired(_scores(run, record), _scores(run, before), mine.unit)
    if found is None:
        return Interval(sign * (mine.value.point - theirs.value.point), None, None)
    ends = [sign * end for end in (found.low, found.high) if end is not None]
    return Interval(sign * found.point, min(ends, default=None), max(ends, default=None), found.level, found.method)


def _scores(run: Run, record: Record) -> NDArray[Any] | None:
    try:
        return run.scores(record.cell_id)
    except RecordError:  # the run's own problems name it
        return None


def _paired(mine: NDArray[Any] | None, theirs: NDArray[Any] | None, unit: str) -> Interval | None:
    """Return the paired difference of shares of right items; ``None`` where items are not simply right or wrong."""
    if mine is None or theirs is None or mine.shape != theirs.shape or unit != "%":
        return None
    columns = mine.reshape(len(mine), -1).shape[1]
    if columns != 1 or not (((mine == 0) | (mine == 1)).all() and ((theirs == 0) | (theirs == 1)).all()):
        return None
    return stats.quality(
        mine, theirs, metric="", unit=unit, higher_is_better=True, interval="wilson", items=len(mine),
        aggregate=lambda scores: float(scores.mean()),
    ).difference  # fmt: skip


def _speedup(record: Record, before: Record, run: Run) -> Interval | None:
    """Return t(before) / t(after the stage), from the rounds that both ran in, else from their ratios to the anchor."""
    try:
        kept = dismiss_noisy(run.sets_of(record), record.cell_id, before.cell_id)
        return inverse(stats.paired_ratio(kept, record.cell_id, before.cell_id)[0])
    except ValueError:
        mine, theirs = _ratio(record), _ratio(before)
        return Interval(theirs / mine, None, None) if mine and theirs else None


def _ratio(record: Record) -> float | None:
    if record.latency is None:
        return None
    return 1.0 if record.latency.verdict == "anchor" else record.latency.ratio.point if record.latency.ratio else None


def _size(record: Record, before: Record) -> float | None:
    mine, theirs = record.artifact, before.artifact
    return theirs.artifact_bytes / mine.artifact_bytes if mine and theirs and mine.artifact_bytes else None


def stage_lines(rows: Iterable[Row], unit: str) -> tuple[tuple[str, ...], ...]:
    """Return the section's lines, pipelines in order and each stage after the one before it."""
    known = [item for item in rows if item["stage_step"] is not None]
    known.sort(key=lambda item: (str(item["target"]), str(item["method"])))
    return tuple(
        (
            str(item["stage_step"]),
            str(item["target"]),
            str(item["stage_after"]),
            _figure(item, "own_drop", f" {unit}".rstrip()),
            _figure(item, "own_speedup"),
            UNKNOWN if item["own_compression"] is None else plain(item["own_compression"]),
        )
        for item in known
    )


def _figure(item: Row, name: str, unit: str = "") -> str:
    if item[name] is None:
        return UNKNOWN
    point, span = ranged(item[name], item[f"{name}_low"], item[f"{name}_high"])
    return f"{point}{unit} ({span})" if span else f"{point}{unit}"
