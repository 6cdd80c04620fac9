"""Runs to one HTML file: everything is rendered here, so that it reads without scripts; scripts add what moves."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from harness import __version__
from harness.errors import MissingDependency
from harness.leaderboard import mark_pareto, overall, table
from harness.leaderboard.beyond import SCENARIOS_HEADER, TRUST_HEADER
from harness.leaderboard.digits import unknown
from harness.leaderboard.escape import visible
from harness.leaderboard.gates import Gate
from harness.leaderboard.overall_views import HEADERS, NOTE, overall_cells
from harness.leaderboard.sections import Section, section_frames, sections
from harness.leaderboard.vouched import Vouched, reports
from harness.report.answers import Answer, answers
from harness.report.beyond import Grid
from harness.report.cells import CellPage, cell_page, key_of
from harness.report.plots import AXES, point, safe_json, samples
from harness.store import Run

if TYPE_CHECKING:
    import pandas as pd

    from harness.types import Loaded

HINT = "pip install 'compression-harness[report]'"
FACTS = ("cpu_model_name", "cores_physical", "cores_logical", "ram_bytes", "caches", "kernel", "hypervisor", "governor")
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Part:
    """A section of the report: the board's own section with the key of each row, and what its plots draw."""

    number: int
    section: Section
    rows: tuple[tuple[str, Row], ...]
    answers: tuple[Answer, ...]
    scenarios: Grid | None = None
    trust: Grid | None = None


def report(runs: Sequence[Run], *, gate: Gate | None = None, sort: str = "speedup", title: str = "") -> bytes:
    """Return one self-contained page: no file beside it, and no request to any host.

    Raises:
        MissingDependency: plotly or Jinja2 is not installed.
        PlanError: ``sort`` is unknown.
    """
    frame = mark_pareto(table(runs, sort=sort, gate=gate))
    parts = _parts(frame)
    pages = _pages(runs, frame)
    script, plotly = _text("script.js"), _plotly()
    page: bytes = (
        _template()
        .render(
            title=visible(title) or _title(frame),
            version=__version__,
            runs=[_run(run) for run in runs],
            notes=[visible(text) for text in frame.attrs["notes"]],
            problems=[visible(text) for text in frame.attrs["problems"]],
            parts=parts,
            pages=pages,
            over=_overall(frame),
            selftests=[(visible(made.sentence), _selftest(made)) for made in reports(runs)],
            rows={key: row for part in parts for key, row in part.rows},
            shown={shown.key: (shown, part.section) for part in parts for shown in part.section.rows},
            gated=gate is not None,
            style=_text("style.css"),
            script=script,
            plotly=plotly,
            data=safe_json(_data(parts, runs)),
            policy=_policy(script, plotly),
        )
        .encode()
    )
    return page


def _selftest(made: Vouched) -> Grid:
    rows = [(line.verdict, line.kind, visible(line.name), visible(line.reason)) for line in made.lines]
    return Grid(("verdict", "on", "line", "what was seen"), tuple(rows))


def _overall(frame: pd.DataFrame) -> Grid | None:
    """Return the methods over all workloads, where there are several."""
    lines = overall(frame) if frame["workload"].nunique() > 1 else []
    rows = tuple(tuple(visible(text) for text in overall_cells(line)) for line in lines if line.of > 1)
    return Grid(HEADERS, rows, NOTE) if rows else None


def _template() -> Any:
    try:
        import jinja2  # an extra
    except ImportError as error:
        raise MissingDependency("a report needs Jinja2, which is not installed", hint=HINT) from error
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_text), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["visible"] = lambda value: visible(str(value))
    return environment.get_template("report.html")


def _text(name: str) -> str:
    return files("harness.report").joinpath(name).read_text(encoding="utf-8")


def _plotly() -> str:
    try:
        from plotly.offline import get_plotlyjs  # an extra
    except ImportError as error:
        raise MissingDependency("a report needs plotly, which is not installed", hint=HINT) from error
    return str(get_plotlyjs())


def _policy(*scripts: str) -> str:
    """Return a content security policy: only these scripts run, and nothing is loaded from anywhere.

    Escaping keeps names harmless; this keeps them harmless should escaping ever fail.
    """
    hashes = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in scripts
    )
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )


def _title(frame: pd.DataFrame) -> str:
    okay = frame[frame["ranked"].fillna(value=False)]
    workloads = [visible(str(name)) for name in dict.fromkeys(okay["workload"])]
    return f"{', '.join(workloads[:3])}{' and more' if len(workloads) > 3 else ''}" if workloads else "no ranked cell"


def _parts(frame: pd.DataFrame) -> list[Part]:
    found = []
    for number, (section, rows) in enumerate(zip(sections(frame), section_frames(frame), strict=True)):
        okay = [
            (key_of(item["host_id"], item["cell_id"]), item)
            for item in rows
            if item["status"] == "ok" and not item["overhead"]
        ]
        keyed = _with_keys(section, [key for key, _row in okay])
        said = tuple(answers([row for _key, row in okay]))
        scenarios = _lines(SCENARIOS_HEADER, section.scenarios)
        found.append(Part(number, keyed, tuple(okay), said, scenarios, _lines(TRUST_HEADER, section.trust)))
    return found


def _lines(headers: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> Grid | None:
    return Grid(headers, tuple(tuple(visible(text) for text in row) for row in rows)) if rows else None


def _with_keys(section: Section, keys: Sequence[str]) -> Section:
    from dataclasses import replace

    return replace(section, rows=tuple(replace(row, key=key) for row, key in zip(section.rows, keys, strict=True)))


def _pages(runs: Iterable[Run], frame: pd.DataFrame) -> list[CellPage]:
    """Return the pages of the cells on the board, in its order."""
    okay = [(run, record) for run in runs for record in run.records if record.status == "ok"]
    made = {(record.host_id, record.cell_id, record.finished_utc): (record, run) for run, record in okay}
    wanted = frame[(frame["status"] == "ok") & ~frame["overhead"].fillna(value=False)]
    keys = zip(wanted["host_id"], wanted["cell_id"], wanted["finished_utc"], strict=True)
    return [cell_page(*made[key]) for key in keys]


def _run(run: Run) -> dict[str, Any]:
    info = run.info
    if info is None:
        return {"id": visible(run.path.name), "facts": (), "command": "", "packages": (), "loaded": ()}
    facts = [(name, info.host_facts[name]) for name in FACTS if info.host_facts.get(name)]
    return {
        "id": visible(info.run_id),
        "facts": [
            ("host", visible(info.host_name or info.host_id[:8])),
            ("profile", visible(info.profile)),
            ("started", visible(info.started_utc)),
            ("finished", visible(info.finished_utc) or "not finished"),
            ("harness", visible(info.harness_version)),
            *(
                (name.replace("_", " "), visible(value))
                for name, value in facts
                if not value.startswith("not available")
            ),
        ],
        "command": visible(" ".join(info.command)),
        "packages": sorted((visible(name), visible(value)) for name, value in info.packages.items()),
        "loaded": [
            (visible(target), _objects(found)) for target, found in sorted(info.loaded.items()) if found.objects
        ],
    }


def _objects(found: Loaded) -> list[str]:
    return [
        visible(
            f"{item.path} {item.build_id or item.reason}" + (f" {item.size_bytes} bytes" if item.size_bytes else "")
        )
        for item in found.objects
    ]


def _data(parts: Sequence[Part], runs: Sequence[Run]) -> dict[str, Any]:
    # A cell that stands in several runs is the newest one's, in its plots as in its row.
    wanted = {(row["host_id"], row["cell_id"], row["finished_utc"]) for part in parts for _key, row in part.rows}
    cells = {
        key_of(record.host_id, record.cell_id): found
        for run in runs
        for record in run.records
        if (record.host_id, record.cell_id, record.finished_utc) in wanted
        and (found := samples(record, run)) is not None
    }
    return {
        "axes": [list(item) for item in AXES],
        "parts": [
            {
                "points": [point(row, key) for key, row in part.rows],
                "quality": _quality(part),
            }
            for part in parts
        ],
        "anchors": {
            key: key_of(row["host_id"], row["anchor_id"])
            for part in parts
            for key, row in part.rows
            if not unknown(row["anchor_id"]) and not row["is_anchor"]
        },
        "names": {
            key: [visible(str(row["method"])), visible(str(row["target"]))] for part in parts for key, row in part.rows
        },
        "cells": cells,
    }


def _quality(part: Part) -> dict[str, Any]:
    known = next((row for _key, row in part.rows if not unknown(row["quality"])), None)
    if known is None:
        return {"name": "quality", "unit": "", "higher": True}
    return {
        "name": visible(str(known["metric"])),
        "unit": visible(str(known["metric_unit"])),
        "higher": bool(known["higher_is_better"]),
    }
