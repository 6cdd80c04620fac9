"""Records to one tidy table: one row per cell, whatever became of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from harness.errors import PlanError
from harness.leaderboard.columns import COLUMNS, LOW, METRIC
from harness.leaderboard.gates import Gate
from harness.leaderboard.link import cross_speedups
from harness.leaderboard.notes import noise_sentence
from harness.leaderboard.ranking import GATED, divide, evidence, rank
from harness.leaderboard.rows import Row, row
from harness.leaderboard.stages import stage_effects
from harness.leaderboard.vouched import sentences
from harness.params import suggest
from harness.store import Run

if TYPE_CHECKING:
    import pandas as pd

GROUP = ["host", "workload", "threads", "batch", "kind"]  # rows that one ranking compares; kinds never mix
LIKE = {  # orders by a ratio -> what rows share whose ratios are to like anchors; only those are ordered by it
    "speedup": ["target", "anchor_precision"],
    "cross": ["cross_reference", "run"],
}
SORTS = {  # how rows are ordered -> (column, the larger the better; None where the metric decides)
    "speedup": ("speedup", True),
    "cross": ("cross_speedup", True),
    "quality": ("quality", None),
    "p50": ("p50_ns", False),
    "memory": ("peak_memory_bytes", False),
    "size": ("artifact_bytes", False),
    "stored": ("stored_bytes", False),
    "throughput": ("throughput_per_s", True),
}


def table(runs: Run | Iterable[Run], *, sort: str = "speedup", gate: Gate | None = None) -> pd.DataFrame:
    """Return one row per cell; ``COLUMNS`` documents the columns, ``attrs["notes"]`` what to know before reading.

    A cell that was measured in several runs on one host counts once, as in the newest. Rows are sorted by
    host, workload and options; then the ranked ones by ``sort``, then other ok ones, then the rest with their reasons.
    Speed-ups are ratios to the anchor of a target: their order is one target after another, by name.
    With a gate, rows that pass it are the gated division and alone have ranks; the others follow.

    Raises:
        PlanError: ``sort`` is unknown.
    """
    all_runs = (runs,) if isinstance(runs, Run) else tuple(runs)
    rows = _newest([item for run in all_runs for item in _rows(run)])
    divide(rows, gate)
    rank(rows, gate)
    frame = sort_rows(_frame(rows), sort)
    notes = [*(text for run in all_runs for text in _notes(run)), *sentences(all_runs)]
    frame.attrs = {
        "notes": [text for text in dict.fromkeys([*notes, _crossed_note(rows), _gate_note(gate)]) if text],
        "problems": [f"{run.path.name}/{problem.file}: {problem.what}" for run in all_runs for problem in run.problems],
    }
    return frame


def _rows(run: Run) -> list[Row]:
    crossed, staged = cross_speedups(run), stage_effects(run)
    return [
        {
            **row(record, run),
            "evidence": evidence(record, run),
            **crossed.get(record.cell_id, {}),
            **staged.get(record.cell_id, {}),
        }
        for record in run.records
    ]


def _newest(rows: Sequence[Row]) -> list[Row]:
    kept: dict[tuple[str, str, str], Row] = {}
    for item in sorted(rows, key=lambda item: str(item["finished_utc"])):
        kept[item["host"], item["host_id"], item["cell_id"]] = item
    return list(kept.values())


def _frame(rows: Sequence[Row]) -> pd.DataFrame:
    import pandas as pd  # slow to import; only where a table is made

    data: dict[str, Any] = {}
    for column in COLUMNS:
        values = [item.get(column.name) for item in rows]
        data[column.name] = pd.Series(values, dtype=column.pandas_dtype)
    return pd.DataFrame(data)


def sort_rows(frame: pd.DataFrame, by: str = "speedup") -> pd.DataFrame:
    """Return the table with ranked rows best first in each group, then other ok rows, then the rest.

    A group's rows whose ratios are to unlike anchors (``LIKE``) stand one lot after another, never in one order.

    Raises:
        PlanError: ``by`` is none of ``SORTS`` and no column of numbers.
    """
    column, larger = _order(by)
    better = frame["higher_is_better"].fillna(value=True).astype("float64") if larger is None else float(larger)
    keyed = frame.assign(
        _place=3 - _sum(frame["status"] == "ok", frame["ranked"], frame["division"] == GATED),
        _key=frame[column].astype("float64") * (1 - 2 * better),
    )
    names = dict.fromkeys([*GROUP, "_place", *LIKE.get(by, ()), "_key", "target", "method"])
    ordered = keyed.sort_values(list(names), kind="stable", na_position="last")
    return ordered.drop(columns=["_place", "_key"]).reset_index(drop=True)


def _order(by: str) -> tuple[str, bool | None]:
    """Return the column of an order, and whether the larger is the better; ``None`` where the metric decides."""
    if by in SORTS:
        return SORTS[by]
    numbers = {column.name: column for column in COLUMNS if column.dtype in {"number", "count"}}
    if by not in numbers:
        raise PlanError(f"no leaderboard is sorted by {by!r}", hint=suggest(by, [*SORTS, *numbers], "order"))
    direction = numbers[by].direction
    return by, None if direction == METRIC else direction != LOW


def _sum(*flags: Any) -> Any:
    return sum(flag.astype(int) for flag in flags)


def _gate_note(gate: Gate | None) -> str:
    if gate is None:
        return ""
    how = "the worse end of its interval" if gate.form == "interval" else "its point estimate"
    return f"gated division: {gate.text}, a row passes by {how}; the others are open and have no rank"


def _notes(run: Run) -> Iterable[str]:
    yield noise_sentence(run.sets.values())
    if run.info is not None and run.info.profile == "quick":
        yield "quick profile: indicative figures; 'standard' is what rankings are made of"
    if run.info is not None and not run.info.finished_utc:
        yield f"run {run.info.run_id} is not finished; the same command resumes it"
    anchors = {str(record.anchor_precision) for record in run.records if record.anchor_precision}
    if len(anchors) > 1:
        names = ", ".join(sorted(anchors))
        yield f"the anchors run in different precisions ({names}): speed-ups compare within a target only"


def _crossed_note(rows: Sequence[Row]) -> str:
    known = sorted({(item["run"], item["cross_reference"]) for item in rows if item.get("cross_reference")})
    if len(known) > 1:
        names = ", ".join(f"{reference} in run {run}" for run, reference in known)
        return f"cross-target speed-ups are relative to unlike anchors ({names}): each line names its own"
    return "".join(
        f"cross-target speed-ups are relative to the anchor of {reference}, through the link sets"
        for _run, reference in known
    )
