"""A bundle and its reproduction as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from harness.bundle.values import CHAIN, INFO, PACK, PAGE, RUN, title
from harness.leaderboard.digits import plain
from harness.leaderboard.escape import markdown as safe
from harness.stats import coverage as cover

if TYPE_CHECKING:
    from harness.bundle.values import BundleInfo, Reproduction
    from harness.store import Run
    from harness.types import Interval, Record

_MIB = 2**20
_HOST = (
    "cpu_model_name",
    "cores_physical",
    "cores_logical",
    "ram_bytes",
    "gpu_name",
    "hypervisor",
    "kernel",
    "governor",
)
HEAD = ("check", "outcome", "bundle", "here", "reason")


def report(info: BundleInfo, run: Run) -> str:
    """Return the page about a cell that lies in its bundle.

    Args:
        info: What the bundle holds.
        run: The cell and its anchor.
    """
    record, anchor = run.by_cell[info.cell_id], run.by_cell.get(info.anchor or "")
    lines = [
        f"# {safe(title(info.labels))}",
        "",
        _origin(info),
        "",
        "## Figures",
        "",
        *_table(("", "this cell", "anchor"), _figures(record, anchor)),
        "",
        *(f"- {safe(text)}" for text in _remarks(record)),
        "",
        "## Where",
        "",
        *_table(("fact", "value"), _where(record, run)),
        "",
        "## What is in this file",
        "",
        *(f"- {line}" for line in _content(info)),
        "",
        "## Again",
        "",
        "On any machine with this harness and the plugins that the cell names:",
        "",
        "```",
        f"harness reproduce THIS-FILE     # or: {info.command}",
        "```",
        "",
    ]
    return "\n".join(lines)


def _origin(info: BundleInfo) -> str:
    source = f"run {safe(info.run_id)} of {safe(info.unit)} by harness {safe(info.harness)}"
    return f"Evidence about cell `{info.cell_id}`, taken from {source}."


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield "| " + " | ".join(head) + " |"
    yield "|" + "---|" * len(head)
    yield from ("| " + " | ".join(map(safe, row)) + " |" for row in rows)


def _figures(record: Record, anchor: Record | None) -> Iterator[tuple[str, ...]]:
    pair = (record, anchor)
    yield "precision", *(item.artifact.realised if item and item.artifact else "-" for item in pair)
    yield "latency p50, ms", *(_span(item.latency.p50_ns, 1e-6) if item and item.latency else "-" for item in pair)
    ratio = record.latency.ratio if record.latency else None
    yield "time against the anchor", _span(ratio, 1.0) if ratio else "-", "1"
    yield "verdict", *(item.latency.verdict if item and item.latency else "-" for item in pair)
    yield "quality", *(_quality(item) for item in pair)
    difference = record.quality.difference if record.quality else None
    yield "quality against the anchor", _span(difference, 1.0) if difference else "-", "-"
    yield "peak memory, MiB", *(plain(item.memory.peak_bytes / _MIB) if item and item.memory else "-" for item in pair)
    yield "artifact, bytes", *(str(item.artifact.artifact_bytes) if item and item.artifact else "-" for item in pair)
    yield "artifact sha256", *(item.artifact.sha256 if item and item.artifact else "-" for item in pair)
    yield "model sha256", *((item.model_sha256 or "-") if item else "-" for item in pair)
    yield "noise", *(item.latency.noise if item and item.latency else "-" for item in pair)
    yield "launch-sets", *(str(len(item.sets)) if item else "-" for item in pair)


def _span(found: Interval, scale: float) -> str:
    ends = "" if found.low is None or found.high is None else (
        f" ({plain(found.low * scale)} to {plain(found.high * scale)})"
    )  # fmt: skip
    return f"{plain(found.point * scale)}{ends}"


def _quality(record: Record | None) -> str:
    if record is None or record.quality is None or record.quality.value is None:
        return "-"
    found = record.quality
    return f"{found.metric} {_span(record.quality.value, 1.0)}, {found.items} items"


def _remarks(record: Record) -> Iterator[str]:
    if record.artifact:
        yield f"how it was made: {record.artifact.how}"
    yield f"runtime: {record.provenance.get('runtime', 'not known')}"
    if record.coverage is not None:
        by, what = cover.share(record.coverage), cover.judged_by(record.coverage)
        of = {"macs": "multiply-accumulates", "weights": "the weights as stored"}.get(what, "")
        share = f"{by:.1%} of {of}" if by is not None else record.coverage.reason or "not known"
        yield f"as its label says ({record.coverage.label or record.coverage.wanted}): {share}"
    yield f"flags: {', '.join(record.flags) or 'none'}"
    if record.latency and record.latency.reasons:
        yield f"doubts: {'; '.join(record.latency.reasons)}"


def _where(record: Record, run: Run) -> Iterator[tuple[str, str]]:
    if run.info is None:
        return
    facts = run.info.host_facts
    yield from (
        (name, facts[name]) for name in _HOST if not facts.get(name, "not available").startswith("not available")
    )
    yield "measured", f"{run.info.started_utc} to {run.info.finished_utc}"
    yield "profile", record.profile
    yield "runtime", record.provenance.get("runtime") or "not known"
    plugins = {made.plugin: made.version for made in record.lineage}
    yield from ((f"plugin {name}", version) for name, version in plugins.items())
    yield "packages", f"{len(run.info.packages)}, all in {RUN}/run.json"


def _content(info: BundleInfo) -> Iterator[str]:
    yield f"`{RUN}/`: records of the cell and its anchor, all raw samples of their launch-sets, scores per item"
    yield f"`{RUN}/run.json`: versions of all packages, and the facts of the host"
    yield f"`{CHAIN}`: the manifest of the whole run; its last line has the hash `{info.manifest_head}`"
    yield f"`{INFO}` and `cell.toml`: the request of just this cell"
    if info.with_page:
        yield f"`{PAGE}`: samples over time, placement and lineage of both cells, for any browser, offline"
    if info.with_artifacts:
        yield f"`{PACK}`: the artifacts that were measured, their models, and the data of the test split"
    else:
        yield "no artifacts: they are built again from the recipe"
    yield from (f"**breaks a demand of `harness verify`**: {safe(text)}" for text in info.breaks)
    if info.redacted:
        yield f"paths of the machine were taken out of {', '.join(info.redacted)}"


def rows(found: Reproduction) -> list[tuple[str, ...]]:
    """Return a row for each check."""
    return [(item.name, item.outcome, item.packed, item.here, item.reason) for item in found.checks]


def headline(found: Reproduction) -> str:
    """Return the verdict in one sentence."""
    basis = f" ({found.basis}, {'same machine' if found.same_host else 'another machine'})" if found.basis else ""
    return f"{found.verdict}{basis}: {found.reason}"


def markdown(found: Reproduction) -> str:
    """Return a reproduction as Markdown."""
    lines = [f"## {safe(title(found.labels))}: {found.verdict}", "", safe(headline(found)), ""]
    if found.checks:
        lines += [*_table(HEAD, rows(found)), ""]
    lines += [f"- {safe(note)}" for note in found.notes]
    lines += ["", f"Bundle {safe(found.bundle)}, measured again in {safe(found.run)}.", ""]
    return "\n".join(lines)
