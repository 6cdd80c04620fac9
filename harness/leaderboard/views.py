"""The table as a file: Markdown and CSV for people, JSON and Parquet for programs."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from harness import codec
from harness.errors import MissingDependency, PlanError
from harness.leaderboard import escape
from harness.leaderboard.beyond import SCENARIOS_HEADER, TRUST_HEADER
from harness.leaderboard.claimed import HEADER as CLAIMS_HEADER
from harness.leaderboard.columns import COLUMNS
from harness.leaderboard.digits import UNKNOWN, unknown
from harness.leaderboard.sections import Section, Shown, sections
from harness.leaderboard.stages import STAGES_HEADER
from harness.params import suggest
from harness.types import SCHEMA

if TYPE_CHECKING:
    import pandas as pd


def render(table: pd.DataFrame, format: str) -> bytes:  # noqa: A002  the field's own word
    """Return the table as a file of one of ``FORMATS``.

    Markdown shows the columns that matter; CSV, JSON and Parquet hold all of them, in base units. Names are escaped
    for the format: JSON is plain ASCII, and Parquet holds them as they are.

    Raises:
        PlanError: The format is unknown.
        MissingDependency: Parquet without pyarrow.
    """
    if format not in FORMATS:
        raise PlanError(f"there is no format {format!r}", hint=suggest(format, FORMATS, "format"))
    return FORMATS[format](table)


def _csv(table: pd.DataFrame) -> bytes:
    safe = table.copy()
    for name in _texts(table):
        safe[name] = [escape.csv(value) if isinstance(value, str) else value for value in table[name]]
    text: str = safe.to_csv(index=False, lineterminator="\n")
    return text.encode()


def _texts(table: pd.DataFrame) -> list[str]:
    named = {column.name for column in COLUMNS if column.dtype == "text"}
    return [name for name in table.columns if name in named]


def _json(table: pd.DataFrame) -> bytes:
    import json  # its ensure_ascii writes what cannot be seen as \uXXXX

    document = {
        "schema": SCHEMA,
        "notes": table.attrs.get("notes", []),
        "problems": table.attrs.get("problems", []),
        "columns": COLUMNS,
        "rows": [{name: _plain(value) for name, value in row.items()} for row in table.to_dict("records")],
    }
    return (json.dumps(codec.to_data(document), ensure_ascii=True, indent=1, allow_nan=False) + "\n").encode("ascii")


def _plain(value: Any) -> Any:
    if unknown(value):
        return None
    return value.item() if hasattr(value, "item") else value


def _parquet(table: pd.DataFrame) -> bytes:
    stream = io.BytesIO()
    try:
        table.to_parquet(stream, engine="pyarrow", index=False)
    except ImportError as error:
        hint = "pip install 'compression-harness[report]'"
        raise MissingDependency("Parquet needs pyarrow, which is not installed", hint=hint) from error
    return stream.getvalue()


def _markdown(table: pd.DataFrame) -> bytes:
    lines = [f"> {escape.markdown(text)}\n" for text in table.attrs.get("notes", ())]
    lines += [f"> left out: {escape.markdown(text)}\n" for text in table.attrs.get("problems", ())]
    for section in sections(table):
        lines += _markdown_section(section)
    return ("\n".join(lines).rstrip() + "\n").encode()


def _markdown_section(section: Section) -> Iterable[str]:
    yield f"### {escape.markdown(section.title)}\n"
    if section.rows:
        yield from _grid(_headers(section), [_cells(row) for row in section.rows])
    yield from (f"{escape.markdown(text)}  " for text in (section.overhead, *section.crossed, *section.legend) if text)
    yield ""
    if section.stages:
        yield from _grid(STAGES_HEADER, section.stages)
    if section.parts:
        yield from _grid(section.parts[0], section.parts[1:])
    for header, lines in ((SCENARIOS_HEADER, section.scenarios), (TRUST_HEADER, section.trust)):
        if lines:
            yield from _grid(header, lines)
    if section.claims:
        yield from _grid(CLAIMS_HEADER, section.claims)
    if section.remarks:
        yield from _grid(("remark on", "what the figures come to"), section.remarks)
    if section.lost:
        rows = [(", ".join(item.methods), item.target, item.status, item.where, item.reason) for item in section.lost]
        yield from _grid(("no figures for", "target", "status", "where", "reason"), rows)


def _grid(names: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterable[str]:
    yield "| " + " | ".join(escape.markdown(name) for name in names) + " |"
    yield "|" + "---|" * len(names)
    for row in rows:
        yield "| " + " | ".join(escape.markdown(text) for text in row) + " |"
    yield ""


def _headers(section: Section) -> tuple[str, ...]:
    return (
        "rank",
        "method",
        "target",
        section.quality_name,
        f"drop {section.drop_unit}",
        "gate",
        "flips",
        f"p50 {section.time_unit}",
        f"p90 {section.time_unit}",
        "speed-up",
        "verdict",
        "items/s",
        f"peak memory {section.memory_unit}",
        f"size {section.size_unit}",
        "stored",
        "coverage",
        *(f"{first}, {second}" for first, second in section.extras),
        "flags",
    )


def _cells(row: Shown) -> tuple[str, ...]:
    return (
        row.rank,
        row.method,
        row.target,
        _with(row.quality, row.quality_span),
        _with(row.drop, row.drop_span),
        row.gate,
        row.flips,
        _with(row.p50, row.p50_span),
        row.p90,
        _with(row.speedup, row.speedup_span) or UNKNOWN,
        row.verdict,
        row.throughput,
        row.memory,
        row.size,
        row.stored,
        row.coverage,
        *(f"{first}, {second}" if second else first for first, second in row.extras),
        row.marks,
    )


def _with(point: str, span: str) -> str:
    return f"{point} ({span})" if span else point


FORMATS: dict[str, Callable[[pd.DataFrame], bytes]] = {"md": _markdown, "csv": _csv, "json": _json, "parquet": _parquet}
