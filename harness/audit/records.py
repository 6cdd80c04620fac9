"""Demands on one record, against its run and the evidence that lies beside it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from harness import codec, stats
from harness.audit import energy, extras, floor
from harness.audit.launches import Breach
from harness.bench.layers import LayersPart
from harness.bench.records import CheckPart, MemoryPart
from harness.codec import sha256
from harness.errors import RecordError
from harness.plan.values import ANCHOR
from harness.profiles import profile_named
from harness.stats import coverage as cover
from harness.store import Run, layout
from harness.store.documents import Part, decode_file
from harness.store.verify import differences
from harness.types import REPLICATION, Precision, Quality, Record

_MEASURED = ("artifact", "memory", "latency")
_HASH = re.compile(r"[0-9a-f]{64}")


def breaches(run: Run, record: Record) -> Iterator[Breach]:
    """Yield what a record breaks."""
    yield from _request(run, record)
    if record.status != "ok":
        return
    yield from _whole(record)
    yield from _anchor(run, record)
    yield from _parts(run, record)
    yield from _proof(record)
    yield from _answers(record)
    yield from _flags(record)
    yield from floor.breaches(record)
    yield from energy.breaches(run, record)
    yield from _quality(run, record)
    yield from extras.breaches(run, record)


def _request(run: Run, record: Record) -> Iterator[Breach]:
    if run.info is not None and record.profile != run.info.profile:
        yield "profile", f"claims profile {record.profile}, the run is {run.info.profile}"
    named = [part.partition(":")[0] for part in record.labels.get("method", "").split("+")]
    steps = [step.name for step in record.cell.pipeline]
    if named != steps:
        yield "label", f"is labelled {'+'.join(named)}, its pipeline is {'+'.join(steps)}"
    for step in record.lineage:
        if run.info is not None and step.seed != run.info.seed:
            yield "seed", f"{step.stage} {step.name} ran with seed {step.seed}, the run has {run.info.seed}"
    if record.status == "ok" and record.kind == "measured":
        asked = profile_named(record.profile).sets
        replications = {int(name.rpartition("-")[2]) // REPLICATION for name in record.sets}
        if len(replications) < asked:
            yield "sets", f"{len(replications)} launch-sets, profile {record.profile} asks for {asked}"


def _whole(record: Record) -> Iterator[Breach]:
    elsewhere = "runs_on" in record.provenance  # memory is this host's; what is emulated has no latency either
    named = ("artifact", "latency") if elsewhere else _MEASURED
    due = named if record.kind == "measured" else ("artifact",)
    lacks = [name for name in due if getattr(record, name) is None]
    if lacks:
        yield "incomplete", f"is ok and has no {' and no '.join(lacks)}"
    artifact, memory = record.artifact, record.memory
    if artifact is not None:
        if not _HASH.fullmatch(artifact.sha256) or artifact.artifact_bytes <= 0 or artifact.stored_bytes <= 0:
            yield (
                "artifact",
                f"hash {artifact.sha256!r}, {artifact.artifact_bytes} bytes, stored {artifact.stored_bytes}",
            )
        elif artifact.stored_bytes < artifact.artifact_bytes and not artifact.stored_as:
            yield "artifact", f"stored in {artifact.stored_bytes} of {artifact.artifact_bytes} bytes without saying how"
    if memory is not None:
        if memory.peak_bytes < max(memory.load_peak_bytes, memory.run_peak_bytes):
            yield "memory", f"peak {memory.peak_bytes} bytes is below that of a phase"
        if not 0 < memory.floor_bytes <= memory.peak_bytes or memory.steady_bytes > memory.peak_bytes:
            yield "memory", f"floor {memory.floor_bytes}, steady {memory.steady_bytes}, peak {memory.peak_bytes} bytes"


def _anchor(run: Run, record: Record) -> Iterator[Breach]:
    if record.anchor is None:
        if not record.anchor_reason:
            yield "anchor", "has no anchor and no reason"
        return
    anchor = run.by_cell.get(record.anchor)
    if anchor is None:
        yield "anchor", f"its anchor {record.anchor} has no record"
        return
    ours, theirs = record.cell, anchor.cell
    if (ours.workload, ours.target, ours.options) != (theirs.workload, theirs.target, theirs.options):
        yield "anchor", f"its anchor {record.anchor} is of another workload, target or options"
    elif [step.name for step in theirs.pipeline] != [ANCHOR]:
        yield "anchor", f"its anchor {record.anchor} is {anchor.labels.get('method')}, not {ANCHOR}"
    if anchor.artifact is not None and record.anchor_precision != anchor.artifact.realised:
        yield "anchor-precision", f"says {record.anchor_precision}, the anchor is {anchor.artifact.realised}"


def _parts(run: Run, record: Record) -> Iterator[Breach]:
    """Compare the record with what its untimed launches wrote."""
    memory = _part(run, record, "memory", MemoryPart)
    layers = _part(run, record, "layers", LayersPart)
    check = _part(run, record, "check", CheckPart)
    stored: dict[str, tuple[Any, Any]] = {}
    if memory is not None:
        stored["memory"] = (record.memory, memory[1].memory)
        if memory[0] != record.inputs_sha256:
            yield "inputs", "memory was taken of other inputs"
    if check is not None:
        stored["quality"] = (record.quality, check[1].quality)
        stored["placements"] = (record.placements, check[1].placements)
        stored["coverage"] = (record.coverage, check[1].coverage)
        stored["confidence"] = (record.confidence, check[1].confidence)
        stored["oracle"] = (record.oracle, check[1].oracle)
        anchor = run.by_cell.get(record.anchor or record.cell_id)
        if anchor is not None and check[0] != sha256([record.inputs_sha256, anchor.inputs_sha256]):
            yield "inputs", "quality and placement were taken of other inputs"
    if layers is not None or record.layers is not None:
        stored["layers"] = (record.layers, layers[1].layers if layers is not None else None)
    for name, (ours, theirs) in stored.items():
        found = next(differences(codec.to_data(ours), codec.to_data(theirs), name), None)
        if found:
            yield "part", f"differs from what its launch wrote: {found}"


def _part(run: Run, record: Record, name: str, kind: type[Any]) -> tuple[str, Any] | None:
    path = layout.part_file(record.cell_id, name)
    file = run.path / path
    try:
        part = decode_file(Part, path, file.read_bytes()) if file.is_file() else None
        if part is None or part.kind != kind.__name__:
            return None
        return part.inputs_sha256, codec.from_data(kind, part.value, where=path)
    except RecordError:
        return None  # told by the check of the files


def _proof(record: Record) -> Iterator[Breach]:
    found = record.coverage
    if not record.placements and (found is None or not found.reason):
        yield "no-proof", "shows no placement, and no reason for it"
    if found is None or not record.placements:
        return
    again = cover.coverage(record.placements, _float(found.wanted), found.reason)
    for name in ("by_op", "by_macs", "by_time"):
        ours, theirs = getattr(found, name), getattr(again, name)
        if (ours is None) != (theirs is None) or (ours is not None and abs(ours - theirs) > 1e-9):
            yield "coverage", f"{name} is {ours}, its placements give {theirs}"


def _float(name: str) -> Precision:
    return Precision(weights=name, activations=name, scheme="float")


def _answers(record: Record) -> Iterator[Breach]:
    """Hold the verdict on a cell's answers against the figures that it was made from."""
    found = record.oracle
    if found is None or found.due_db is None:
        return
    if found.wrong:
        yield "answers", f"is ok, and its answers are wrong: {found.wrong}"
    for name, item in found.outputs.items():
        if not found.wrong and item.equal is None and (item.sqnr_db < found.due_db or item.lost):
            yield (
                "answers",
                f"output {name!r} has {item.sqnr_db:.1f} dB and {item.lost_count} lost slices, and is right",
            )


def _flags(record: Record) -> Iterator[Breach]:
    due: dict[str, str] = {}
    if record.latency is not None and record.latency.noise != "ok":
        due[record.latency.noise] = "its latency is"
    if record.quality is not None and record.quality.underpowered:
        due["underpowered"] = "its quality is"
    if len({item.device for item in record.placements}) > 1:
        due["fallback"] = "its operators ran on several devices"
    if record.coverage is not None and cover.not_actually_quantised(record.coverage):
        due["not_actually_quantised"] = f"under half of it is {record.coverage.label or 'int8'}"
    if record.oracle is not None and any(item.lost_count for item in record.oracle.outputs.values()):
        due["output_slice_lost"] = "a part of an output died"
    for flag, why in due.items():
        if flag not in record.flags:
            yield "flag", f"lacks the flag {flag}: {why}"


def _quality(run: Run, record: Record) -> Iterator[Breach]:
    """Recompute all that follows from 0/1 statistics; other metrics need the workload's own aggregate."""
    quality = record.quality
    if quality is None or quality.value is None or quality.value.method != "Wilson":
        return
    try:
        ours = run.scores(record.cell_id)
        other = record.anchor if record.anchor != record.cell_id else None
        theirs = run.scores(other) if other is not None else None
    except RecordError:
        return  # told by the check of the files
    if ours is None or (theirs is not None and len(theirs) != len(ours)):
        return
    scale = 100.0 if quality.value.point > 1 else 1.0
    again: Quality = stats.quality(
        ours,
        theirs,
        metric=quality.metric,
        unit=quality.unit,
        higher_is_better=quality.higher_is_better,
        interval="wilson",
        items=quality.items,
        aggregate=lambda scores: float(np.mean(np.asarray(scores)[:, 0] > 0.5)) * scale,
        evaluation_batch=quality.evaluation_batch,
        fidelity=quality.fidelity,
    )
    known = replace(quality, agreement={})  # it is not of the scores: ``extras`` recomputes it
    for where in differences(codec.to_data(known), codec.to_data(again)):
        yield "quality", where
