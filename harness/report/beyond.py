"""The part of a cell's page beyond accuracy and latency: robustness, calibration, fidelity, scenarios."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.leaderboard.beyond import beyond
from harness.leaderboard.columns import COLUMNS
from harness.leaderboard.digits import fixed, plain, ranged
from harness.leaderboard.escape import visible

if TYPE_CHECKING:
    from harness.types import Record


MOST_LAYERS = 400


@dataclass(frozen=True)
class Grid:
    """A table: headers, rows of texts, and what to know about it."""

    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def beyond_page(record: Record) -> Grid:
    """Return a line for each figure that the record holds, with what it means."""
    return Grid(("figure", "value", "unit", "what it is"), (*_columns(record), *_corruptions(record)))


def layers_page(record: Record) -> Grid:
    """Return how far each operator's output is from the anchor's, the worst first."""
    found = record.layers
    if found is None or found.reason:
        return Grid((), ())
    rows = tuple(
        (visible(item.name), visible(item.op), str(item.place), f"{fixed(item.sqnr_db, 1)} dB")
        for item in found.outputs[:MOST_LAYERS]
    )
    left = len(found.outputs) - len(rows)
    notes = [f"over {found.items} test items; places are in running order"]
    notes += [f"{found.unmatched} outputs of the anchor have no counterpart here"] if found.unmatched else []
    notes += [f"{left} better ones are left out here; the record has them"] if left else []
    return Grid(("output", "operator", "place", "SQNR"), rows, "; ".join(notes))


def _columns(record: Record) -> Iterable[tuple[str, ...]]:
    found = beyond(record)
    unit = record.quality.unit if record.quality is not None else ""
    for column in COLUMNS:
        value = found.get(column.name)
        if value is None or column.name.endswith(("_low", "_high")):
            continue
        text = visible(value) if isinstance(value, str) else plain(value)
        if f"{column.name}_low" in found and not isinstance(value, str):
            point, span = ranged(value, found[f"{column.name}_low"], found[f"{column.name}_high"])
            text = f"{point} ({span})" if span else point
        yield column.name, text, visible(unit) if column.unit == "metric_unit" else column.unit, column.meaning


def _corruptions(record: Record) -> Iterable[tuple[str, ...]]:
    if record.robustness is None or record.quality is None:
        return
    scale = 100.0 if record.quality.unit == "%" else 1.0
    for name, value in record.robustness.corrupted.items():
        kind, _, severity = name.partition(":")
        means = f"under {kind} of severity {severity}"
        yield name, plain(value * scale), visible(record.quality.unit), f"{visible(record.quality.metric)} {means}"
