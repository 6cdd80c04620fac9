"""The board over several workloads as text, Markdown, CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from harness import codec
from harness.leaderboard import escape
from harness.leaderboard.aggregate import FEWEST_TASKS, Mean, Overall
from harness.leaderboard.digits import UNKNOWN, plain, ranged
from harness.leaderboard.ranking import rank_text
from harness.types import SCHEMA

if TYPE_CHECKING:
    from rich.table import Table

HEADERS = (
    "rank", "method", "target", "threads", "batch", "workloads", "speed-up", "from-to", "smaller", "less memory",
    "least quality kept %", "keeps 99 %",
)  # fmt: skip
NOTE = (
    "speed-up, smaller and less memory are geometric means over workloads of the ratio to the target's float anchor; "
    f"an interval is a bootstrap over workloads, of which it takes {FEWEST_TASKS}; from-to is the least and the most"
)


def overall_cells(line: Overall) -> tuple[str, ...]:
    """Return the texts of a line, in the order of ``HEADERS``."""
    count = f"{line.workloads} of {line.of}" + (f", without {', '.join(line.missing)}" if line.missing else "")
    return (
        "" if line.rank is None else rank_text(*line.rank),
        line.method,
        line.target,
        str(line.threads),
        str(line.batch),
        count,
        _mean(line.speedup),
        f"{plain(line.speedup.least)} to {plain(line.speedup.most)}",
        _mean(line.smaller),
        _mean(line.memory),
        UNKNOWN if line.least_retained is None else plain(line.least_retained, 4),
        f"{line.passes} of {line.judged}",
    )


def _mean(mean: Mean | None) -> str:
    if mean is None:
        return UNKNOWN
    point, span = ranged(mean.point, mean.low, mean.high)
    return f"{point}\N{MULTIPLICATION SIGN}" + (f" ({span})" if span else "")


def overall_table(lines: Sequence[Overall]) -> Table:
    """Return the lines as a table for a terminal."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False, caption=NOTE, caption_justify="left")
    for name in HEADERS:
        grid.add_column(name, overflow="fold")
    for line in lines:
        grid.add_row(*(Text(escape.visible(text)) for text in overall_cells(line)))
    return grid


def render_overall(lines: Sequence[Overall], form: str) -> bytes:
    """Return the lines as "md", "csv" or "json"."""
    return {"md": _markdown, "csv": _csv, "json": _json}[form](lines).encode()


def _markdown(lines: Sequence[Overall]) -> str:
    rows = [HEADERS, ("---",) * len(HEADERS), *map(overall_cells, lines)]
    texts = ["| " + " | ".join(cell if cell == "---" else escape.markdown(cell) for cell in row) + " |" for row in rows]
    return "\n".join([f"> {NOTE}", "", *texts]) + "\n"


def _csv(lines: Sequence[Overall]) -> str:
    """Return plain figures, one column each: ratios as ratios, ranks as two counts."""
    rows = [dict(_flat(codec.to_data(line))) for line in lines]
    names = list(dict.fromkeys(name for row in rows for name in row))
    stream = io.StringIO()
    writer = csv.DictWriter(stream, names, lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def _flat(line: dict[str, Any]) -> Iterable[tuple[str, Any]]:
    for name, value in line.items():
        if isinstance(value, dict):
            yield from ((name if end == "point" else f"{name}_{end}", item) for end, item in value.items())
        elif name == "rank":
            yield from zip(("rank_best", "rank_worst"), value or (None, None), strict=True)
        elif isinstance(value, list | tuple):
            yield name, escape.csv(", ".join(map(str, value)))
        else:
            yield name, escape.csv(value) if isinstance(value, str) else value


def _json(lines: Sequence[Overall]) -> str:
    return json.dumps(codec.to_data({"schema": SCHEMA, "note": NOTE, "rows": list(lines)}), indent=1) + "\n"
