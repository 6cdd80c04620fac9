"""A cell's page: its figures, samples, placements, lineage, noise and command, as texts and plain numbers."""

from __future__ import annotations

import hashlib
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.leaderboard.digits import UNKNOWN, fixed, plain
from harness.leaderboard.escape import visible
from harness.leaderboard.notes import meaning
from harness.report import limits
from harness.report.beyond import Grid, beyond_page, layers_page

if TYPE_CHECKING:
    from harness.store import Run
    from harness.types import Artifact, Launch, Placement, Record, StepRecord

MOST_LAUNCHES = 60
MOST_OPERATORS = 400


@dataclass(frozen=True)
class CellPage:
    """All that the page of a cell shows beside its row.

    Attributes:
        key: Of the row and of the page in the file; hexadecimal.
        facts: Name and value.
        flags: Flag and meaning.
        by_operator: Kind of operator, count, precision, share of MACs and time.
        bars: Share of time (or MACs) by kind of operator, the largest first, 0..100.
        extras: Name, figure and small print of what some runs measure beside.
    """

    key: str
    facts: tuple[tuple[str, str], ...]
    flags: tuple[tuple[str, str], ...]
    lineage: Grid
    by_operator: Grid
    bars: tuple[tuple[str, float, str], ...]
    bars_are: str
    operators: Grid
    noise: Grid
    noise_reasons: tuple[str, ...]
    command: str
    replay: str
    beyond: Grid
    layers: Grid
    extras: tuple[tuple[str, str, str], ...] = ()


def key_of(host_id: str, cell_id: str) -> str:
    """Return a name that is safe in HTML whatever the two hold."""
    return "c" + hashlib.sha256(f"{host_id} {cell_id}".encode()).hexdigest()[:12]


def cell_page(record: Record, run: Run) -> CellPage:
    """Return the page of a finished cell."""
    launches = [
        (name, launch)
        for name in record.sets
        if name in run.sets
        for launch in run.sets[name].launches
        if launch.cell_id == record.cell_id
    ]
    bars, bars_are = _bars(record.placements)
    return CellPage(
        key=key_of(record.host_id, record.cell_id),
        facts=tuple((name, visible(value)) for name, value in _facts(record) if value),
        flags=tuple((visible(flag), meaning(flag)) for flag in record.flags),
        lineage=_lineage(record, run.by_cell.get(record.anchor or "")),
        by_operator=_by_operator(record.placements),
        bars=bars,
        bars_are=bars_are,
        operators=_operators(record.placements),
        noise=_noise(launches),
        noise_reasons=tuple(map(visible, record.latency.reasons)) if record.latency else (),
        command=visible(_command(record, run)),
        beyond=beyond_page(record),
        layers=layers_page(record),
        replay=visible(f"harness bench -c {shlex.quote(str(run.path / 'bench.toml'))}"),
        extras=tuple(limits.figures(record)),
    )


def _facts(record: Record) -> Iterable[tuple[str, str]]:
    yield "runtime", record.provenance.get("runtime", "")
    if record.artifact is not None:
        yield "precision", record.artifact.realised
        yield "how it was quantized", record.artifact.how
        yield "stored as", record.artifact.stored_as
        yield "artifact sha256", record.artifact.sha256
    yield "compared with", record.anchor_reason or ""
    yield "anchor's precision", record.anchor_precision or ""
    yield "kind of figures", record.kind
    yield "cell", record.cell_id
    yield "inputs sha256", record.inputs_sha256
    yield "finished", record.finished_utc
    yield from limits.facts(record)
    yield from sorted((f"in force: {name}", value) for name, value in record.effective.items())


def _command(record: Record, run: Run) -> str:
    options, labels = record.cell.options, record.labels
    words = ["harness", "bench"]
    for option, value in (
        ("--workloads", labels.get("workload", record.cell.workload.name)),
        ("--methods", labels.get("method", "+".join(step.name for step in record.cell.pipeline))),
        ("--targets", labels.get("target", record.cell.target.name)),
        ("--threads", str(options.threads)),
        ("--batch", str(options.batch)),
        ("--profile", record.profile),
        ("--seed", str(options.seed)),
    ):
        words += [option, value]
    if run.info is not None:
        words += [part for name, path in run.info.request.python.items() for part in ("--python", f"{name}={path}")]
    return shlex.join(words)


# lineage


def _lineage(record: Record, anchor: Record | None) -> Grid:
    headers = (
        "stage",
        "step",
        "parameters given",
        "asked for",
        "quality",
        "parameters",
        "MACs",
        "size",
        "time",
        "plugin",
    )
    rows: list[tuple[str, ...]] = []
    before: Mapping[str, float] = {}
    for made in record.lineage:
        rows.append(_step(made, before))
        before = {**before, **made.effect}
    if record.artifact is not None:
        rows.append(_lowering(record, record.artifact, anchor))
    note = "quality is the score on the selection split; what a step did not measure is left empty"
    return Grid(headers, tuple(rows), note if rows else "")


def _step(made: StepRecord, before: Mapping[str, float]) -> tuple[str, ...]:
    params = ", ".join(f"{name}={value}" for name, value in made.params.items())
    effect = made.effect
    shown = "nonzero_parameters" if effect.get("nonzero_parameters") != effect.get("parameters") else "parameters"
    return (
        made.stage,
        visible(made.name),
        visible(params),
        _score(effect.get("selection_score"), before.get("selection_score")),
        _change(effect.get(shown), before.get("nonzero_parameters")) + (" nonzero" if shown != "parameters" else ""),
        _change(effect.get("macs"), before.get("macs")),
        "",
        _seconds(made.seconds),
        visible(f"{made.plugin} {made.version}"),
        visible(made.asked.words if made.asked is not None else ""),
    )


def _lowering(record: Record, made: Artifact, anchor: Record | None) -> tuple[str, ...]:
    theirs = anchor.artifact.artifact_bytes if anchor and anchor.artifact else 0
    size = f"{plain(made.artifact_bytes / 1024)} KiB"
    if theirs and made.artifact_bytes and anchor is not record:
        size += f" ({plain(theirs / made.artifact_bytes)}\N{MULTIPLICATION SIGN} smaller than the anchor)"
    quality = record.quality
    drop = ""
    if quality is not None and quality.difference is not None:
        drop = f"{_signed(quality.difference.point * (100 if quality.unit == '%' else 1))} on the test split"
    time = _seconds(record.seconds.get("lower"))
    return ("lower", visible(made.realised), visible(made.how), drop, "", "", size, time, "", "")


def _score(value: float | None, before: float | None) -> str:
    if value is None:
        return ""
    return plain(value, 4) + (f" ({_signed(value - before)})" if before is not None else "")


def _signed(change: float) -> str:
    return ("+" if change > 0 else "") + (fixed(change, 4) if change else "no change")


def _change(value: float | None, before: float | None) -> str:
    if value is None:
        return ""
    text = f"{round(value):,}".replace(",", "\N{NARROW NO-BREAK SPACE}")
    return f"{text} ({fixed(100 * (value / before - 1), 0)} %)" if before and value != before else text


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{plain(value)} s"


# placements


def _operators(placements: Sequence[Placement]) -> Grid:
    timed = any(item.time_share is not None for item in placements)
    rows = tuple(
        (
            visible(item.op),
            visible(item.name),
            visible(item.kernel),
            visible(item.device),
            visible(item.precision),
            _count(item.macs),
            _percent(item.time_share),
        )
        for item in placements[:MOST_OPERATORS]
    )
    left = len(placements) - len(rows)
    notes = [] if timed or not rows else ["this runtime gives no time per operator"]
    notes += [f"{left} more operators are left out here; the record has them"] if left else []
    return Grid(("operator", "name", "kernel", "device", "precision", "MACs", "time"), rows, "; ".join(notes))


def _by_operator(placements: Sequence[Placement]) -> Grid:
    groups: dict[tuple[str, str, str], list[Placement]] = {}
    for item in placements:
        groups.setdefault((item.op, item.precision, item.device), []).append(item)
    total = sum(item.macs or 0 for item in placements)
    rows = [
        (
            visible(op),
            str(len(same)),
            visible(precision),
            visible(device),
            _percent(sum(item.macs or 0 for item in same) / total if total else None),
            _percent(_time(same)),
        )
        for (op, precision, device), same in groups.items()
    ]
    return Grid(("operator", "count", "precision", "device", "share of MACs", "share of time"), tuple(rows))


def _bars(placements: Sequence[Placement]) -> tuple[tuple[tuple[str, float, str], ...], str]:
    timed = any(item.time_share is not None for item in placements)
    shares: Counter[tuple[str, str]] = Counter()
    for item in placements:
        shares[item.op, item.precision] += (item.time_share if timed else item.macs) or 0  # type: ignore[assignment]
    total = sum(shares.values())
    if not total:
        return (), ""
    most = [(visible(op), 100 * share / total, visible(kind)) for (op, kind), share in shares.most_common(8) if share]
    return tuple(most), "time" if timed else "multiply-accumulates"


def _time(placements: Iterable[Placement]) -> float | None:
    known = [item.time_share for item in placements if item.time_share is not None]
    return sum(known) if known else None


def _count(value: int | None) -> str:
    return UNKNOWN if value is None else f"{value:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def _percent(share: float | None) -> str:
    return UNKNOWN if share is None else f"{100 * share:.1f} %"


# noise


def _noise(launches: Sequence[tuple[str, Launch]]) -> Grid:
    headers = (
        "set", "place", "verdict", "why", "CPU / wall", "hiccups", "canary GFLOP/s", "steal", "switches/s",
        "load ms", "warm-up", "batches",
    )  # fmt: skip
    rows = tuple(_launch(name, launch) for name, launch in launches[:MOST_LAUNCHES])
    left = len(launches) - len(rows)
    note = "one line for each fresh process; before and after the timed batches"
    return Grid(headers, rows, f"{note}; {left} more are left out here" if left else note)


def _launch(name: str, launch: Launch) -> tuple[str, ...]:
    noise = launch.noise
    why = "; ".join((*((f"discarded: {launch.discarded}",) if launch.discarded else ()), *noise.reasons))
    return (
        visible(name[-5:].lstrip("0") or "0"),
        str(launch.order + 1),
        noise.verdict,
        visible(why),
        f"{noise.cpu_wall:.3f}",
        f"{100 * noise.hiccup_before:.2f} % / {100 * noise.hiccup_after:.2f} %",
        f"{noise.canary_before_gflops:.1f} / {noise.canary_after_gflops:.1f}",
        _percent(noise.steal),
        f"{noise.involuntary_switches_per_s:.0f}",
        f"{launch.load_ns / 1e6:.1f}",
        f"{launch.warmup_iterations} iterations, {'steady' if launch.steady else 'not steady'}",
        str(len(launch.batches)),
    )
