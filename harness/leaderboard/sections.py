"""The table as people read it: per workload and options, the columns that matter, as plain text."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.explain import sentence_of
from harness.leaderboard.beyond import scenario_lines, sustained_order, trust_lines
from harness.leaderboard.claimed import claim_lines
from harness.leaderboard.digits import UNKNOWN, fixed, plain, ranged_in, unknown
from harness.leaderboard.extras import Extra, chosen
from harness.leaderboard.notes import meaning
from harness.leaderboard.oracles import agreement, lost_slice
from harness.leaderboard.parts import header, part_lines
from harness.leaderboard.ranking import rank_text
from harness.leaderboard.stages import stage_lines
from harness.leaderboard.table import GROUP
from harness.profiles import PROFILES

if TYPE_CHECKING:
    import pandas as pd

Row = Mapping[str, Any]
NOISE_MARKS = {"ok": "", "suspect": "?", "noisy": "!"}
UNDERPOWERED = "†"
FRONT = "◆"
TIMES = "×"  # noqa: RUF001  the sign that a ratio is read with
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True)
class Shown:
    """One row as text; an empty text is not known.

    Attributes:
        rank: Ranks that the evidence allows on its target, such as 2-4; empty for rows that have none.
        gate: The highest standard gate that it passes, with ? where only its point estimate does.
        quality_span, drop_span: Intervals of the figures before them.
        marks: Letters of the flags, explained in the legend.
        key: Name of the row's page, for views that have pages.
        extras: Both lines of each optional column.
        shared: The host's cores are shared (tier T2): absolute times are shown faint, ratios are what counts.
    """

    rank: str
    gate: str
    method: str
    target: str
    quality: str
    quality_span: str
    drop: str
    drop_span: str
    flips: str
    p50: str
    p50_span: str
    p90: str
    speedup: str
    speedup_span: str
    verdict: str
    throughput: str
    memory: str
    size: str
    stored: str
    coverage: str
    marks: str
    ranked: bool = True
    key: str = ""
    extras: tuple[tuple[str, str], ...] = ()
    shared: bool = False


@dataclass(frozen=True)
class Lost:
    """Rows without figures: what became of them, and why; those of one target with one reason stand together."""

    methods: tuple[str, ...]
    target: str
    status: str
    where: str
    reason: str


@dataclass(frozen=True)
class Section:
    """One workload with one choice of options on one host.

    Attributes:
        quality_name, drop_unit, time_unit, memory_unit, size_unit: What the columns are given in.
        remarks: "method on target" -> what the figures come to, where that is little.
        stages: What each step of a pipeline contributed, of runs that were asked for it.
        parts: What each part of a split network takes, under a header.
        scenarios: What a load generator measured, of runs that were asked for it.
        claims: What each method was asked for, and what it did.
        trust: Robustness to corruption and calibration error, of runs that were asked for robustness.
        crossed: The fastest cells over all targets: a line for each reference that link sets compare with.
        extras: Headers of the optional columns.
    """

    title: str
    quality_name: str
    drop_unit: str
    time_unit: str
    memory_unit: str
    size_unit: str
    rows: tuple[Shown, ...]
    lost: tuple[Lost, ...]
    overhead: str
    remarks: tuple[tuple[str, str], ...]
    crossed: tuple[str, ...]
    legend: tuple[str, ...]
    stages: tuple[tuple[str, ...], ...] = ()
    extras: tuple[tuple[str, str], ...] = ()
    parts: tuple[tuple[str, ...], ...] = ()
    scenarios: tuple[tuple[str, ...], ...] = ()
    trust: tuple[tuple[str, ...], ...] = ()
    claims: tuple[tuple[str, ...], ...] = ()


def sections(frame: pd.DataFrame) -> list[Section]:
    """Cut the table into sections, in its order."""
    several_hosts = frame["host"].nunique() > 1
    asked = tuple(frame.attrs.get("show", ()))
    return [_section(rows, asked, several_hosts=several_hosts) for rows in section_frames(frame)]


def section_frames(frame: pd.DataFrame) -> list[list[Row]]:
    """Return the rows of each section, with None for what is not known."""
    grouped = frame.groupby([*GROUP, *frame.attrs.get("group", ())], sort=False, dropna=False)
    return [[_clean(item) for item in rows.to_dict("records")] for _key, rows in grouped]


def _clean(values: Mapping[Any, Any]) -> Row:
    """Turn every kind of "not known" that a table can hold into None."""
    return {str(name): None if unknown(value) else value for name, value in values.items()}


def _section(rows: Sequence[Row], asked: Sequence[str], *, several_hosts: bool) -> Section:
    okay = [item for item in rows if item["status"] == "ok" and not item["overhead"]]
    units = _Units.of(okay)
    letters = _letters(okay)
    extras = chosen(okay, asked)
    shown = tuple(_shown(item, units, letters, extras) for item in okay)
    parts = part_lines(okay, units.time, units.size)
    return Section(
        title=_title(rows, several_hosts=several_hosts),
        quality_name=units.quality,
        drop_unit=units.drop,
        time_unit=units.time[0],
        memory_unit=units.memory[0],
        size_unit=units.size[0],
        rows=shown,
        lost=_lost([item for item in rows if item["status"] != "ok"]),
        overhead=_overhead([item for item in rows if item["status"] == "ok" and item["overhead"]]),
        remarks=tuple(_remarks(okay)),
        legend=(*_legend(okay, letters), *(extra.legend for extra in extras)),
        stages=stage_lines(okay, units.drop),
        extras=tuple(extra.header for extra in extras),
        parts=(header(units.time, units.size), *parts) if parts else (),
        crossed=(*agreement([item for item in rows if not item["overhead"]]), *_crossed(okay), *sustained_order(okay)),
        scenarios=scenario_lines(okay),
        trust=trust_lines(okay, units.drop),
        claims=claim_lines(okay),
    )


def _remarks(rows: Iterable[Row]) -> Iterable[tuple[str, str]]:
    for item in rows:
        noted = "; ".join(part for part in (lost_slice(item), item["note"]) if part)
        said = "; what ran: ".join(part for part in (noted, item["why"]) if part)
        if said:
            yield f"{item['method']} on {item['target']}", said


def _title(rows: Sequence[Row], *, several_hosts: bool) -> str:
    first = rows[0]
    threads, batch = first["threads"], first["batch"]
    cores = "1 thread" if threads == 1 else f"{threads} threads"
    parts = [first["workload"], cores, f"batch {batch}", _profiles(rows)]
    parts += [first["kind"]] if first["kind"] != "measured" else []
    return " · ".join([*parts, first["host"]] if several_hosts else parts)


def _profiles(rows: Sequence[Row]) -> str:
    """Name every profile that the rows were measured in: several runs on one board may differ."""
    order = list(PROFILES)
    found = {item["profile"] for item in rows}
    names = sorted(found, key=lambda name: (order.index(name) if name in order else len(order), str(name)))
    return f"{' and '.join(map(str, names))} profile{'s' if len(names) > 1 else ''}"


@dataclass(frozen=True)
class _Units:
    time: tuple[str, float]
    size: tuple[str, float]
    memory: tuple[str, float]
    quality: str
    drop: str

    @classmethod
    def of(cls, rows: Sequence[Row]) -> _Units:
        first = next((item for item in rows if item["quality"] is not None), None)
        agreement = any(item["top1_agreement"] is not None for item in rows)
        absent = ("agreement" if agreement else "quality", "%")
        name, unit = (first["metric"], first["metric_unit"]) if first else absent
        return cls(
            _unit(rows, "p50_ns", (("µs", 1e3), ("ms", 1e6), ("s", 1e9))),
            _unit(rows, "artifact_bytes", (("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30))),
            _unit(rows, "peak_memory_bytes", (("MiB", 1 << 20), ("GiB", 1 << 30))),
            f"{name} {unit}".strip(),
            "pp" if unit == "%" else unit,
        )


def _unit(rows: Sequence[Row], name: str, units: Sequence[tuple[str, float]]) -> tuple[str, float]:
    """Choose the unit in which the middle value has one to three digits before the point."""
    values = sorted(item[name] for item in rows if item[name])
    middle = values[len(values) // 2] if values else units[0][1]
    return next((unit for unit in reversed(units) if middle >= unit[1]), units[0])


def _letters(rows: Iterable[Row]) -> dict[str, str]:
    """Give each flag that occurs a letter, in order; those that have a mark of their own get none."""
    flags = dict.fromkeys(flag for item in rows for flag in (item["flags"] or "").split())
    named = [flag for flag in flags if flag not in {"noisy", "suspect", "underpowered"}]
    return {flag: _LETTERS[at % 26] * (at // 26 + 1) for at, flag in enumerate(named)}


def _span(item: Row, name: str, scale: float = 1.0, end: str = "") -> tuple[str, str]:
    point, low, high = item[f"{name}{end}"], item[f"{name}_low{end}"], item[f"{name}_high{end}"]
    if point is None:
        return UNKNOWN, ""
    return ranged_in(scale, point, low, high)


def _shown(item: Row, units: _Units, letters: Mapping[str, str], extras: Sequence[Extra]) -> Shown:
    mark = NOISE_MARKS.get(item["noise"] or "ok", "!")
    p50, p50_span = _span(item, "p50", units.time[1], "_ns")
    drop, drop_span = _span(item, "drop")
    quality, quality_span = _quality(item)
    speedup, speedup_span = _speedup(item)
    stored = item["stored_bytes"] is not None and item["stored_bytes"] != item["artifact_bytes"]
    return Shown(
        rank=_rank(item),
        gate=_gate(item),
        method=item["method"],
        target=item["target"] + (f" {FRONT}" if item.get("pareto") else ""),
        quality=quality,
        quality_span=quality_span,
        drop=drop if item["drop"] is None else drop + (UNDERPOWERED if item["underpowered"] else ""),
        drop_span=drop_span,
        flips=_percent(item["flips"], 2),
        p50=p50 + (mark if p50 != UNKNOWN else ""),
        p50_span=p50_span,
        p90=_scaled(item["p90_ns"], units.time[1]),
        speedup=speedup + (mark if speedup else ""),
        speedup_span=speedup_span,
        verdict=item["verdict"] or "",
        throughput=_scaled(item["throughput_per_s"], 1),
        memory=_scaled(item["peak_memory_bytes"], units.memory[1]),
        size=_scaled(item["artifact_bytes"], units.size[1]),
        stored=_scaled(item["stored_bytes"], units.size[1]) if stored else "",
        coverage="unknown" if item["coverage_by"] == "unknown" else _percent(item["coverage"], 2),
        marks=" ".join(letters[flag] for flag in (item["flags"] or "").split() if flag in letters),
        ranked=bool(item["ranked"]),
        extras=tuple(extra.cell(item) for extra in extras),
        shared=item["host_tier"] == "T2",
    )


def _rank(item: Row) -> str:
    return "" if item["rank_best"] is None else rank_text(item["rank_best"], item["rank_worst"])


def _gate(item: Row) -> str:
    """Name the highest gate that a row passes by its interval, else by its point estimate, then with a ?."""
    names = (("99.9", "pass_99_9"), ("99", "pass_99"))
    maybe = next((f"{text}?" for text, name in names if item[name]), "")
    return next((text for text, name in names if item[f"{name}_interval"]), maybe)


def _quality(item: Row) -> tuple[str, str]:
    if item["quality"] is not None:
        return _span(item, "quality")
    if item["top1_agreement"] is not None:
        return _span(item, "top1_agreement", 0.01)
    return (f"{plain(item['sqnr_db'])} dB", "") if item["sqnr_db"] is not None else (UNKNOWN, "")


def _speedup(item: Row) -> tuple[str, str]:
    if item["speedup"] is None or item["verdict"] == "anchor":
        return "", ""
    point, span = _span(item, "speedup")
    return f"{point}{TIMES}", span


def _scaled(value: float | None, unit: float) -> str:
    return UNKNOWN if value is None else plain(value / unit)


def _percent(share: float | None, digits: int) -> str:
    if share is None:
        return UNKNOWN
    places = max(0, digits - 1 - math.floor(math.log10(100 * share))) if 0 < share < 0.1 else 0
    return f"{fixed(100 * share, min(2, places))} %"


def _lost(rows: Sequence[Row]) -> tuple[Lost, ...]:
    """Group the rows that ended alike; of reasons that differ in the file that they name, one is shown."""
    grouped: dict[tuple[str, str, str, str], list[str]] = {}
    shown: dict[str, str] = {}
    for item in rows:
        where = ", ".join(part for part in (item["stage"], item["blame"]) if part)
        reason = item["reason"] or "no reason was recorded"
        alike = sentence_of(reason)
        shown.setdefault(alike, reason)
        grouped.setdefault((item["target"], item["status"], where, alike), []).append(item["method"])
    return tuple(Lost(tuple(methods), *key[:3], shown[key[3]]) for key, methods in grouped.items())


def _overhead(rows: Sequence[Row]) -> str:
    timed = [item for item in rows if item["p50_ns"] is not None]
    if not timed:
        return ""
    best = min(timed, key=lambda item: float(item["p50_ns"]))
    point, span = _span(best, "p50", 1e3, "_ns")
    figure = f"{point} µs ({span})" if span else f"{point} µs"
    return f"harness overhead: {figure} per inference, measured with the {best['target']} target"


def _crossed(rows: Sequence[Row], most: int = 3) -> Iterable[str]:
    """Name the fastest cells over all targets, where link sets tell: per run and reference, as only those compare."""
    known = [item for item in rows if item["cross_speedup"] is not None]
    groups = sorted({(item["run"], item["cross_reference"]) for item in known})
    for run, reference in groups:
        alike = [item for item in known if (item["run"], item["cross_reference"]) == (run, reference)]
        linked = [item for item in alike if not (item["is_anchor"] and item["target"] == reference)]
        if all(item["target"] == reference for item in linked):
            continue
        found = sorted(linked, key=lambda item: -float(item["cross_speedup"]))
        texts = [f"{item['method']} on {item['target']} {_cross_text(item)}" for item in found[:most]]
        where = f" in run {run}" if len(groups) > 1 else ""
        yield f"across targets, against {reference}'s anchor{where}: {', '.join(texts)}"


def _cross_text(item: Row) -> str:
    point, span = _span(item, "cross_speedup")
    figure = f"{point}{TIMES}{NOISE_MARKS.get(item['noise'] or 'ok', '!')}"
    return f"{figure} ({span})" if span else figure


def _legend(rows: Sequence[Row], letters: Mapping[str, str]) -> Iterable[str]:
    noise = {item["noise"] for item in rows}
    if any(item["rank_best"] is not None for item in rows):
        yield "rank: by speed on its target; all ranks of a range fit the evidence (95 % for all rows together)"
    if any(item["pass_99"] for item in rows):
        yield "gate: % of the float anchor's quality that is kept; ? by the point estimate, not by its whole interval"
    if "suspect" in noise:
        yield "? suspect: the latency may have been disturbed"
    if "noisy" in noise:
        yield "! noisy: the latency was disturbed, or its interval is too wide; do not rely on it"
    if any(item["underpowered"] and item["drop"] is not None for item in rows):
        yield f"{UNDERPOWERED} underpowered: too few test items to tell the drop that a 99 % gate allows"
    if any(item.get("pareto") for item in rows):
        energy = ", energy" if all(item["energy_j"] is not None for item in rows if item["ranked"]) else ""
        yield f"{FRONT} on the Pareto front of its target: quality, p50, peak memory, artifact size{energy}"
    if any(item["verdict"] == "unresolved" for item in rows):
        yield "unresolved: the interval allows faster and slower; it does not mean the same"
    if any(item["host_tier"] == "T2" for item in rows):
        yield "times (faint) are of a host that shares its cores (tier T2): only ratios to the anchor count"
    if any(item["kind"] != "measured" for item in rows):
        yield "rows that were not measured are not ranked"
    for reason in dict.fromkeys(item["energy_reason"] for item in rows if item["energy_reason"]):
        yield f"energy is not available: {reason}"
    for flag, letter in letters.items():
        yield f"{letter} {flag}" + (f": {meaning(flag)}" if meaning(flag) else "")


__all__ = ["Lost", "Section", "Shown", "section_frames", "sections"]
