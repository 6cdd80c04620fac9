"""Records to one tidy table, and every view of it."""

from __future__ import annotations

from harness.leaderboard.columns import COLUMNS, Column, columns_markdown
from harness.leaderboard.pareto import mark_pareto
from harness.leaderboard.seconds import where_time_went
from harness.leaderboard.table import SORTS, sort_rows, table
from harness.leaderboard.terminal import terminal
from harness.leaderboard.views import FORMATS, render

__all__ = [
    "COLUMNS",
    "FORMATS",
    "SORTS",
    "Column",
    "columns_markdown",
    "mark_pareto",
    "render",
    "sort_rows",
    "table",
    "terminal",
    "where_time_went",
]
