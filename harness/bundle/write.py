"""Write a bundle: a run's folder reduced to one cell and its anchor, with what it takes to measure it again."""

from __future__ import annotations

import dataclasses
import html
import os
import shlex
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import harness
from harness import codec
from harness.build.packfile import Writer
from harness.bundle import values
from harness.bundle.hold import breaches, breaks, damage
from harness.bundle.redact import redact
from harness.bundle.render import report
from harness.bundle.values import SCHEMA, BundleInfo
from harness.compare.sides import label
from harness.config import dump_config
from harness.errors import MissingDependency, PlanError, RecordError
from harness.plan import Request
from harness.store import Run, RunInfo, files, layout, load_run, manifest

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from harness.build import Cache
    from harness.plugins import Registry
    from harness.types import Record

_SHOWN = 8  # characters of a cell_id, and cells in a hint


def find_cell(run: Run, text: str) -> Record:
    """Return the finished cell that is meant.

    Args:
        run: Where it is looked for.
        text: A cell_id, its beginning, or METHOD@TARGET.

    Raises:
        PlanError: None or several are meant, or it has no figures.
    """
    named = [item for item in run.records if f"{label(item, 'method')}@{label(item, 'target')}" == text]
    found = named or [item for item in run.records if text and item.cell_id.startswith(text)]
    if len(found) != 1:
        what = f"{len(found)} cells of {run.path} match {text!r}" if found else f"no cell of {run.path} is {text!r}"
        raise PlanError(what, hint=f"give one of {_listed(found or run.records)}")
    record = found[0]
    if record.status != "ok" or record.artifact is None or record.latency is None:
        raise PlanError(
            f"cell {text} is {record.status}, so it has no figures to prove: {record.reason or 'no reason'}"
        )
    return record


def _listed(records: Sequence[Record]) -> str:
    usable = [item for item in records if item.status == "ok"] or list(records)
    words = [
        f"{item.cell_id[:_SHOWN]} ({label(item, 'workload')} {label(item, 'method')}@{label(item, 'target')}"
        f" {item.cell.options.threads} thr batch {item.cell.options.batch})"
        for item in usable[:_SHOWN]
    ]
    more = len(usable) - len(words)
    return ", ".join(words) + (f" and {more} more" if more > 0 else "")


def request_of(record: Record, run: RunInfo) -> Request:
    """Return the part of a run's request that plans just this cell and its anchor.

    What a bundle is not judged by is left out: scenarios, and the energy that a meter of the machine read.
    """
    options = record.cell.options
    return dataclasses.replace(
        run.request,
        workloads=(label(record, "workload"),),
        methods=(label(record, "method"),),
        targets=(label(record, "target"),),
        profile=record.profile,
        threads=(str(options.threads),),
        batches=(options.batch,),
        seed=options.seed,
        stages=False,
        scenarios=(),
        energy=run.request.energy and not run.request.meter,
        meter="",
    )


def command_of(request: Request) -> str:
    """Return a request of one cell as a command line."""
    words = ["harness", "bench"]
    for option, value in (
        ("--workloads", request.workloads[0]), ("--methods", request.methods[0]), ("--targets", request.targets[0]),
        ("--threads", request.threads[0]), ("--batch", str(request.batches[0])), ("--profile", request.profile),
        ("--seed", str(request.seed)),
    ):  # fmt: skip
        words += [option, value]
    return shlex.join(words)


def write_bundle(
    folder: Path,
    cell: str,
    out: Path,
    *,
    with_artifacts: bool = False,
    cache: Cache | None = None,
    registry: Registry | None = None,
) -> BundleInfo:
    """Write all that a run knows about one cell into one file, whole or not at all; equal input gives equal bytes.

    Args:
        folder: A finished run.
        cell: See ``find_cell``.
        out: The file to write; ``.hev`` by custom.
        with_artifacts: Also pack the artifacts of the cell and its anchor, as ``harness pack`` does.
        cache: Where the artifacts are.
        registry: What plugins offer.

    Returns:
        What the bundle holds.

    Raises:
        PlanError: The run is not finished, or ``find_cell`` refuses the cell.
        RecordError: The evidence does not hold: a file is damaged, or a figure does not follow from its samples.
        HarnessError: The artifacts cannot be packed.
    """
    run = load_run(folder)
    record = find_cell(run, cell)
    if run.info is None:
        raise RecordError(f"{folder / layout.RUN} cannot be read: {run.problems[0].what if run.problems else ''}")
    if not run.info.finished_utc:
        raise PlanError(f"{folder} is not finished", hint="run the same 'harness bench' again; it resumes")
    own = request_of(record, run.info)
    with tempfile.TemporaryDirectory(prefix="harness-bundle-") as scratch:
        staged = Path(scratch) / values.RUN
        redacted = _stage(run, run.info, _names(run, record), staged)
        problems = breaches(staged)
        wrong = damage(problems)
        if wrong:
            raise RecordError(
                f"the evidence of {cell} does not hold: {folder}/{wrong}", hint=f"see all with: harness verify {folder}"
            )
        pack = Path(scratch) / "cell.hpk"
        if with_artifacts:
            from harness.build import pack as write_pack

            write_pack(folder, pack, cache=cache, registry=registry, request=own)
        page = _page(staged)
        info = dataclasses.replace(
            _info(run, run.info, record, dataclasses.replace(own, python={})),
            redacted=redacted,
            with_artifacts=with_artifacts,
            with_page=page is not None,
            breaks=breaks(problems),
        )
        _write(out, info, staged, (folder / layout.MANIFEST).read_bytes(), pack if with_artifacts else None, page)
    return info


def _info(run: Run, about: RunInfo, record: Record, request: Request) -> BundleInfo:
    return BundleInfo(
        schema=SCHEMA,
        harness=harness.__version__,
        cell_id=record.cell_id,
        anchor=record.anchor,
        labels={name: label(record, name) for name in ("workload", "method", "target")},
        request=request,
        command=command_of(request),
        run_id=run.path.name,
        unit=run.unit,
        host_id=about.host_id,
        manifest_head=manifest.read(run.path).head,
        artifact_sha256=record.artifact.sha256 if record.artifact else "",
        model_sha256=record.model_sha256,
    )


def _names(run: Run, record: Record) -> Iterable[str]:
    """Yield the files of a run that are about a cell or its anchor."""
    yield from (layout.RUN, layout.CONFIG)
    for cell_id in dict.fromkeys((record.cell_id, record.anchor or record.cell_id)):
        found = run.by_cell.get(cell_id)
        if found is None:
            raise RecordError(f"the record of {cell_id}, which {record.cell_id} is compared with, cannot be read")
        yield layout.cell_file(cell_id)
        yield layout.scores_file(cell_id)
        yield from (path.relative_to(run.path).as_posix() for path in run.path.glob(f"{layout.SCORES}/{cell_id}-*.npy"))
        yield from (path.relative_to(run.path).as_posix() for path in run.path.glob(f"{layout.PARTS}/{cell_id}-*.json"))
        yield from (layout.set_file(name) for name in found.sets)


def _stage(run: Run, info: RunInfo, names: Iterable[str], staged: Path) -> tuple[str, ...]:
    """Copy files and give them a manifest of their own; return those that paths were taken out of."""
    kept = redact(info)
    changed: dict[str, bytes] = {}
    if kept != info:
        changed = {layout.RUN: files.encode(kept, layout.RUN), layout.CONFIG: dump_config(kept.request).encode()}
    listed = manifest.read(run.path).hashes()
    staged.mkdir(parents=True)
    chain = manifest.Writer(staged)
    for name in sorted(set(names)):
        if not (run.path / name).is_file():
            continue  # a cell without labels has no scores; what must be there is asked for by the audit
        raw = (run.path / name).read_bytes()
        wrong = manifest.mismatch(manifest.digest(raw), listed.get(name, []))
        if wrong:
            raise RecordError(f"{run.path / name} {wrong}", hint=f"see all with: harness verify {run.path}")
        raw = changed.get(name, raw)
        codec.write_whole(staged / name, raw)
        chain.append(name, manifest.digest(raw))
    return tuple(sorted(changed))


def _page(staged: Path) -> bytes | None:
    """Return the cell and its anchor as one HTML page, or nothing where the report extra is not installed."""
    from harness.report import report as page

    try:
        made = page([load_run(staged)])
    except MissingDependency:
        return None
    return made.replace(html.escape(str(staged)).encode(), values.RUN.encode())  # as it lies in the bundle


def _write(out: Path, info: BundleInfo, staged: Path, chain: bytes, pack: Path | None, page: bytes | None) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
    try:
        writer = Writer(partial)
        writer.add_bytes(values.REPORT, report(info, load_run(staged)).encode())
        if page is not None:
            writer.add_bytes(values.PAGE, page)
        writer.add_json(values.INFO, info)
        writer.add_bytes(values.CONFIG, dump_config(info.request).encode())
        writer.add_bytes(values.CHAIN, chain)
        for name in (*layout.listed_files(staged), layout.MANIFEST):
            writer.add(f"{values.RUN}/{name}", staged / name)
        if pack is not None:
            writer.add(values.PACK, pack)
        writer.close()
        partial.replace(out)
    finally:
        partial.unlink(missing_ok=True)
