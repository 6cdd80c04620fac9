"""What an index keeps of a record: its columns, and the row that they make."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from harness.types import Cell, Interval, Layers, Loaded, Robustness

TEXTS = (
    "host", "run", "profile", "workload", "method", "target", "status", "kind", "reason", "metric", "metric_unit",
    "verdict", "noise", "precision", "anchor_precision", "flags", "cell_id", "host_id", "model_sha256", "finished_utc",
    "runtime", "host_tier", "loaded", "worst_layer", "worst_layer_op",
)  # fmt: skip
NUMBERS = (
    "quality", "quality_low", "quality_high", "drop", "p50_ns", "p50_low_ns", "p50_high_ns", "p90_ns", "p99_ns",
    "throughput_per_s", "speedup", "speedup_low", "speedup_high", "top1_agreement", "top1_agreement_low",
    "top1_agreement_high", "sqnr_db", "corrupted_quality", "corrupted_drop", "worst_layer_db",
)  # fmt: skip
COUNTS = ("threads", "batch", "peak_memory_bytes", "artifact_bytes")
COLUMNS = (*TEXTS, *NUMBERS, *COUNTS)


@dataclass(frozen=True)
class _Latency:
    p50_ns: Interval
    throughput_per_s: float
    verdict: str
    noise: str
    p90_ns: float | None = None
    p99_ns: float | None = None
    ratio: Interval | None = None


@dataclass(frozen=True)
class _Memory:
    peak_bytes: int


@dataclass(frozen=True)
class _Artifact:
    artifact_bytes: int
    realised: str
    sha256: str


@dataclass(frozen=True)
class _Quality:
    metric: str
    unit: str
    higher_is_better: bool
    value: Interval | None = None
    difference: Interval | None = None
    fidelity: Mapping[str, float] = field(default_factory=dict)
    agreement: Mapping[str, Interval] = field(default_factory=dict)


@dataclass(frozen=True)
class Stored:
    """The fields of a record that a row is made from; decoding skips the rest."""

    schema: int
    cell_id: str
    status: str
    host_id: str
    profile: str
    cell: Cell
    labels: Mapping[str, str]
    kind: str = "measured"
    reason: str | None = None
    anchor: str | None = None
    anchor_precision: str | None = None
    artifact: _Artifact | None = None
    latency: _Latency | None = None
    memory: _Memory | None = None
    quality: _Quality | None = None
    flags: tuple[str, ...] = ()
    model_sha256: str | None = None
    finished_utc: str = ""
    provenance: Mapping[str, str] = field(default_factory=dict)
    robustness: Robustness | None = None
    layers: Layers | None = None


def row_of(record: Stored, unit: str, run_id: str, loaded: Mapping[str, Loaded]) -> tuple[Any, ...]:
    """Return a record's values in the order of ``COLUMNS``.

    Args:
        record: As it is stored.
        unit: Folder name of its host.
        run_id: Of its run.
        loaded: Target -> shared objects, as its run lists them.
    """
    labels, cell, latency, quality = record.labels, record.cell, record.latency, record.quality
    target = labels.get("target", cell.target.name)
    worst = record.layers.outputs[0] if record.layers and record.layers.outputs else None
    return (
        unit,
        run_id,
        record.profile,
        labels.get("workload", cell.workload.name),
        labels.get("method", ""),
        target,
        record.status,
        record.kind,
        record.reason,
        quality.metric if quality else None,
        quality.unit if quality else None,
        latency.verdict if latency else None,
        latency.noise if latency else None,
        record.artifact.realised if record.artifact else None,
        record.anchor_precision,
        " ".join(record.flags),
        record.cell_id,
        record.host_id,
        record.model_sha256,
        record.finished_utc,
        record.provenance.get("runtime"),
        record.provenance.get("host_tier", "").partition(":")[0] or None,
        _builds(loaded.get(target)),
        worst.name if worst else None,
        worst.op if worst else None,
        *_quality(quality),
        *_latency(latency),
        *_fidelity(quality),
        *_corrupted(record.robustness, quality),
        worst.sqnr_db if worst else None,
        cell.options.threads,
        cell.options.batch,
        record.memory.peak_bytes if record.memory else None,
        record.artifact.artifact_bytes if record.artifact else None,
    )


def _quality(quality: _Quality | None) -> tuple[float | None, ...]:
    if quality is None or quality.value is None:
        return (None, None, None, None)
    value, scale = quality.value, _scale(quality)
    ends = [None if end is None else end * scale for end in (value.point, value.low, value.high)]
    return (*ends, _drop(quality.difference, quality))


def _scale(quality: _Quality) -> float:
    return 100.0 if quality.unit == "%" else 1.0


def _drop(difference: Interval | None, quality: _Quality) -> float | None:
    """Return by how much a cell is worse than its anchor, in the unit that is shown."""
    if difference is None:
        return None
    return difference.point * _scale(quality) * (-1.0 if quality.higher_is_better else 1.0)


def _latency(latency: _Latency | None) -> tuple[float | None, ...]:
    if latency is None:
        return (None,) * 9
    p50, ratio = latency.p50_ns, latency.ratio
    if latency.verdict == "anchor":
        speed: tuple[float | None, ...] = (1.0, None, None)
    elif ratio is None or ratio.point <= 0:
        speed = (None, None, None)
    else:
        speed = (1 / ratio.point, 1 / ratio.high if ratio.high else None, 1 / ratio.low if ratio.low else None)
    return (p50.point, p50.low, p50.high, latency.p90_ns, latency.p99_ns, latency.throughput_per_s, *speed)


def _builds(loaded: Loaded | None) -> str | None:
    """Return each shared object as path@build-id, in order; the build-id is empty where the file has none."""
    if loaded is None or not loaded.objects:
        return None
    return " ".join(sorted(f"{item.path}@{item.build_id or ''}" for item in loaded.objects))


def _fidelity(quality: _Quality | None) -> tuple[float | None, ...]:
    if quality is None:
        return (None,) * 4
    known, ends = quality.fidelity, quality.agreement.get("top1_agreement")
    top1 = (ends.point, ends.low, ends.high) if ends else (known.get("top1_agreement"), None, None)
    return (*top1, known.get("sqnr_db"))


def _corrupted(found: Robustness | None, quality: _Quality | None) -> tuple[float | None, ...]:
    if found is None or found.value is None or quality is None:
        return (None, None)
    return (found.value.point * _scale(quality), _drop(found.difference, quality))
