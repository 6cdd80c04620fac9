"""Records to one tidy table, and every view of it."""

from __future__ import annotations

from harness.leaderboard.aggregate import Overall, geometric_mean, overall
from harness.leaderboard.columns import COLUMNS, Column, columns_markdown
from harness.leaderboard.gates import Gate, parse_gate
from harness.leaderboard.overall_views import overall_table, render_overall
from harness.leaderboard.pareto import mark_pareto
from harness.leaderboard.seconds import where_time_went
from harness.leaderboard.table import SORTS, sort_rows, table
from harness.leaderboard.techniques import technique_table
from harness.leaderboard.terminal import terminal
from harness.leaderboard.views import FORMATS, render
from harness.leaderboard.where import group_columns, parse_where, where

__all__ = [
    "COLUMNS",
    "FORMATS",
    "SORTS",
    "Column",
    "Gate",
    "Overall",
    "columns_markdown",
    "geometric_mean",
    "group_columns",
    "mark_pareto",
    "overall",
    "overall_table",
    "parse_gate",
    "parse_where",
    "render",
    "render_overall",
    "sort_rows",
    "table",
    "technique_table",
    "terminal",
    "where",
    "where_time_went",
]
