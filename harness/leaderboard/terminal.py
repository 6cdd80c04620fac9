"""The leaderboard on a terminal: two lines a row, so that all that matters fits into 100 columns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from harness.leaderboard.beyond import SCENARIOS_HEADER, TRUST_HEADER
from harness.leaderboard.claimed import HEADER as CLAIMS_HEADER
from harness.leaderboard.digits import UNKNOWN
from harness.leaderboard.escape import visible
from harness.leaderboard.sections import Lost, Section, Shown, sections
from harness.leaderboard.stages import STAGES_HEADER

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console, RenderableType
    from rich.table import Table
    from rich.text import Text

_VERDICTS = {"faster": "green", "slower": "red", "unresolved": "yellow"}
_LONGEST = 22  # of a method's name in one line
_STATUS = {"not-applicable": "dim", "unavailable": "dim"}


def terminal(table: pd.DataFrame, console: Console) -> None:
    """Draw the leaderboard: notes, then one table for each workload, with legend, remarks and lost rows below."""
    for text in table.attrs.get("notes", ()):
        console.print(_text(text, "yellow" if "noisy" in text else "dim"))
    for problem in table.attrs.get("problems", ()):
        console.print(_text(f"left out: {problem}", "red"))
    for section in sections(table):
        console.print()
        for part in _parts(section):
            console.print(part)
    if table.empty:
        console.print(_text("no cell was planned", "dim"))


def _text(text: str, style: str = "") -> Text:
    from rich.text import Text  # only where something is drawn

    return Text(visible(text), style=style)


def _parts(section: Section) -> Iterable[RenderableType]:
    yield _text(section.title, "bold")
    if section.rows:
        yield _board(section)
    yield from map(_text, section.crossed)
    for line in (section.overhead, *section.legend):
        if line:
            yield _text(line, "dim")
    if section.stages:
        yield ""
        yield _list(STAGES_HEADER, section.stages)
    if section.parts:
        yield ""
        yield _list(section.parts[0], section.parts[1:])
    for header, lines in ((SCENARIOS_HEADER, section.scenarios), (TRUST_HEADER, section.trust)):
        if lines:
            yield ""
            yield _list(header, lines)
    if section.claims:
        yield ""
        yield _list(CLAIMS_HEADER, section.claims)
    if section.remarks:
        yield ""
        yield _list(["remark on", "what the figures come to"], section.remarks)
    if section.lost:
        yield ""
        yield _list(["no figures for", "status", "reason"], [_lost(item) for item in section.lost])


def _lost(item: Lost) -> tuple[str, str, str]:
    reason = f"{item.reason} ({item.where})" if item.where else item.reason
    return f"{item.target}: {', '.join(item.methods)}", item.status, reason


def _grid() -> Table:
    from rich import box
    from rich.table import Table

    return Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=0, show_edge=False, header_style="bold")


def _list(names: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    grid = _grid()
    for at, name in enumerate(names):
        last = at == len(names) - 1
        grid.add_column(name, overflow="fold", max_width=None if last else 34)
    for row in rows:
        grid.add_row(*(_text(item, _STATUS.get(item, "")) for item in row))
    return grid


def _board(section: Section) -> Table:
    grid = _grid()
    grid.add_column("rank\ngate", no_wrap=True, min_width=5, overflow="ellipsis")
    grid.add_column("method\ntarget", overflow="fold", min_width=14)
    for header, width in _headers(section):
        grid.add_column(header, justify="right", no_wrap=True, min_width=width, overflow="ellipsis")
    for row in section.rows:
        grid.add_row(*_cells(row))
    return grid


def _headers(section: Section) -> tuple[tuple[str, int], ...]:
    return (
        (section.quality_name.replace(" ", "\n", 1), 8),
        (f"drop {section.drop_unit}\nflips", 7),
        (f"p50 {section.time_unit}\ninterval", 8),
        (f"p90 {section.time_unit}\nitems/s", 7),
        ("speed-up\ninterval", 9),
        (f"mem {section.memory_unit}\nsize {section.size_unit}", 8),
        ("stored\ncover", 6),
        *((f"{first}\n{second}", 7) for first, second in section.extras),
    )


def _cells(row: Shown) -> tuple[Text, ...]:
    faint = "" if row.ranked else "dim"
    shared = "dim" if row.shared else faint
    speed = f"{row.speedup} {row.verdict}".strip()
    return (
        _two(row.rank, row.gate, faint or "bold"),
        _two(_broken(row.method), row.target, faint or "bold", "cyan"),
        _two(row.quality, row.quality_span, faint),
        _two(row.drop, row.flips if row.flips != UNKNOWN else "", faint),
        _two(row.p50, row.p50_span, shared),
        _two(row.p90, row.throughput, shared, "dim" if row.shared else ""),
        _two(speed, row.speedup_span, faint or _VERDICTS.get(row.verdict, "")),
        _two(row.memory, row.size, faint, ""),
        _two(row.stored, " ".join(part for part in (row.coverage, row.marks) if part != ""), faint, ""),
        *(_two(first, second, faint, "") for first, second in row.extras),
    )


def _broken(method: str) -> str:
    """Break a pipeline that is too long for its column where people read it: after a step."""
    return method if len(method) <= _LONGEST else method.replace("+", "+\n")


def _two(first: str, second: str, style: str = "", below: str = "dim") -> Text:
    from rich.text import Text

    lines = "\n".join(visible(line) for line in first.split("\n"))
    return Text.assemble((lines, style), "\n", (visible(second), below))
