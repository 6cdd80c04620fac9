"""Which ranks the evidence allows each row, inside its division: 2-4, never 3 (MEASUREMENT 1.7)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness import stats
from harness.leaderboard.gates import Gate

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from harness.store import Run
    from harness.types import Record

    Array = NDArray[np.float64]

Row = dict[str, Any]
WITHIN = ("host", "kind", "workload", "threads", "batch", "target", "anchor_precision")
ACROSS = ("host", "kind", "workload", "threads", "batch", "cross_reference", "run")
OPEN, GATED = "open", "gated"


@dataclass(frozen=True)
class Evidence:
    """log(t(cell) / t(anchor)) of each set, from the batches' medians and from their p10."""

    medians: tuple[float, ...]
    lows: tuple[float, ...]


def evidence(record: Record, run: Run) -> Evidence | None:
    """Return what a row is ranked by; ``None`` where no set holds it beside its anchor."""
    if record.anchor is None or record.latency is None:
        return None
    sets = run.sets_of(record)
    pair = [
        tuple(stats.ratio_logs(sets, record.cell_id, record.anchor, reduce))
        for reduce in (stats.batch_median, stats.batch_low)
    ]
    return Evidence(pair[0], pair[1]) if all(pair) else None


def divide(rows: Iterable[Row], gate: Gate | None) -> None:
    """Write each ok row's division: gated where it passes, else open; without a gate all are open."""
    for row in rows:
        if row["status"] == "ok" and not row["overhead"]:
            row["division"] = GATED if gate is not None and gate.passes(row) else OPEN


def rank(rows: Sequence[Row], gate: Gate | None = None) -> None:
    """Write the rank sets, within a target and across targets, of the rows that take part.

    With a gate only its division is ranked. Ranks are by speed, the one figure whose differences are paired; rows
    without evidence take part in no ranking.
    """
    division = OPEN if gate is None else GATED
    entrants = [row for row in rows if row["ranked"] and row.get("division") == division]
    _rank_each(entrants, WITHIN, "evidence", "rank")
    _rank_each([row for row in entrants if row.get("cross_reference")], ACROSS, "cross_evidence", "cross_rank")


def _rank_each(rows: Iterable[Row], keys: Sequence[str], source: str, name: str) -> None:
    grouped: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
    for row in rows:
        if row.get(source) is not None:
            grouped[tuple(row.get(key) for key in keys)].append(row)
    for group in grouped.values():
        seen: list[Evidence] = [row[source] for row in group]
        for row, (best, worst) in zip(group, _ranks(group, seen), strict=True):
            row[f"{name}_best"], row[f"{name}_worst"], row[f"{name}_of"] = best, worst, len(group)


def _ranks(rows: Sequence[Row], seen: Sequence[Evidence]) -> list[tuple[int, int]]:
    import numpy as np  # only where ranks are made

    less = stats.certainly_less(_matrix([item.medians for item in seen]))
    lows = np.nanmedian(_matrix([item.lows for item in seen]), axis=0)
    quiet = np.array([row.get("noise") == "ok" for row in rows])
    agree = lows[:, None] < lows[None, :]
    # As for verdicts: where a cell was disturbed, both estimators must tell the same order.
    return stats.rank_sets(less & (agree | (quiet[:, None] & quiet[None, :])))


def _matrix(columns: Sequence[Sequence[float]]) -> Array:
    """Return [sets, entries]: replications side by side, in the order of their sets."""
    import numpy as np  # as above

    found = np.full((max(map(len, columns)), len(columns)), np.nan)
    for at, column in enumerate(columns):
        found[: len(column), at] = column
    return found


def rank_text(best: Any, worst: Any) -> str:
    """Write a rank set: "2", or "2" to "4" with a dash for a tie."""
    return f"{int(best)}" if best == worst else f"{int(best)}\N{EN DASH}{int(worst)}"


__all__ = ["ACROSS", "GATED", "OPEN", "WITHIN", "Evidence", "divide", "evidence", "rank", "rank_text"]
