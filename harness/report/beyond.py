"""The part of a cell's page beyond accuracy and latency: robustness, calibration, fidelity, scenarios."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.leaderboard.beyond import beyond
from harness.leaderboard.columns import COLUMNS
from harness.leaderboard.digits import plain, ranged
from harness.leaderboard.escape import visible

if TYPE_CHECKING:
    from harness.types import Record


@dataclass(frozen=True)
class Grid:
    """A table: headers, rows of texts, and what to know about it."""

    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def beyond_page(record: Record) -> Grid:
    """Return a line for each figure that the record holds, with what it means."""
    return Grid(("figure", "value", "unit", "what it is"), (*_columns(record), *_corruptions(record)))


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
