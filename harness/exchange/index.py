"""An index of a large tree: one Parquet row for each record, from its stored statistics.

A row says what the record says. That the record follows from its raw samples is what ``harness verify`` checks; the
index checks that each file is the one that the manifest lists.
"""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from harness.errors import MissingDependency, RecordError
from harness.store import find_runs, layout
from harness.types import SCHEMA, Cell, Interval

FILE = "index.parquet"
CHUNK = 50_000  # rows of one row group
HINT = "pip install 'compression-harness[report]'"


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


@dataclass(frozen=True)
class _Stored:
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


@dataclass(frozen=True)
class _Entry:
    path: str
    sha256: str


@dataclass(frozen=True)
class _Info:
    schema: int
    run_id: str
    host_id: str
    host_name: str = ""


@dataclass(frozen=True)
class Built:
    """What became of an index.

    Attributes:
        problems: Records that were left out, each by name with the reason.
    """

    file: Path
    records: int
    runs: int
    problems: tuple[str, ...] = field(default_factory=tuple)


_TEXTS = (
    "host", "run", "profile", "workload", "method", "target", "status", "kind", "reason", "metric", "metric_unit",
    "verdict", "noise", "precision", "anchor_precision", "flags", "cell_id", "host_id", "model_sha256", "finished_utc",
)  # fmt: skip
_NUMBERS = (
    "quality", "quality_low", "quality_high", "drop", "p50_ns", "p50_low_ns", "p50_high_ns", "p90_ns", "p99_ns",
    "throughput_per_s", "speedup", "speedup_low", "speedup_high",
)  # fmt: skip
_COUNTS = ("threads", "batch", "peak_memory_bytes", "artifact_bytes")
COLUMNS = (*_TEXTS, *_NUMBERS, *_COUNTS)

_decode = msgspec.json.Decoder(_Stored).decode
_entry = msgspec.json.Decoder(_Entry).decode


def arrow() -> Any:
    """Return pyarrow.

    Raises:
        MissingDependency: It is not installed.
    """
    try:
        for module in ("pyarrow.compute", "pyarrow.parquet"):
            importlib.import_module(module)  # part of the extra "report"
        return importlib.import_module("pyarrow")
    except ImportError as error:
        raise MissingDependency("the index is Parquet, which needs pyarrow", hint=HINT) from error


def build_index(root: Path, out: Path | None = None) -> Built:
    """Write the index of all runs below ``root``, whole or not at all.

    Args:
        root: A results tree.
        out: The file; ``None`` is ``root/index.parquet``.

    Raises:
        MissingDependency: pyarrow is not installed.
        RecordError: There is no run.
    """
    runs = find_runs(root)
    if not runs:
        raise RecordError(f"there is no run below {root}", hint="a run is a folder such as results/<host>/<run>")
    problems: list[str] = []
    target = out or root / FILE
    count = write_rows((row for run in runs for row in _rows(run, problems)), target)
    return Built(target, count, len(runs), tuple(problems))


def schema() -> Any:
    """Return the index's pyarrow schema; units are in the names, as in ``docs/columns.md``."""
    pa = arrow()
    text = pa.dictionary(pa.int32(), pa.string())
    kinds = [(_TEXTS, text), (_NUMBERS, pa.float64()), (_COUNTS, pa.int64())]
    return pa.schema([(name, kind) for names, kind in kinds for name in names])


def write_rows(rows: Iterator[tuple[Any, ...]], target: Path) -> int:
    """Write rows in the order of ``COLUMNS`` in row groups; return how many there were."""
    pa = arrow()
    kind, count = schema(), 0
    partial = target.with_name(f".{target.name}.partial")
    try:
        with pa.parquet.ParquetWriter(partial, kind, compression="zstd") as writer:
            for chunk in _chunks(rows):
                columns = zip(*chunk, strict=True)
                arrays = [pa.array(list(values), item.type) for values, item in zip(columns, kind, strict=True)]
                writer.write_batch(pa.record_batch(arrays, schema=kind))
                count += len(chunk)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    return count


def _chunks(rows: Iterator[tuple[Any, ...]]) -> Iterator[list[tuple[Any, ...]]]:
    chunk: list[tuple[Any, ...]] = []
    for row in rows:
        chunk.append(row)
        if len(chunk) == CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _rows(run: Path, problems: list[str]) -> Iterator[tuple[Any, ...]]:
    try:
        info = msgspec.json.decode((run / layout.RUN).read_bytes(), type=_Info)
        listed = _listed(run)
    except (msgspec.DecodeError, OSError) as error:
        problems.append(f"{run}: {error}")
        return
    unit = run.parent.name if (run.parent / layout.UNIT).is_file() else layout.host_folder(info.host_name, info.host_id)
    for name in sorted((run / layout.CELLS).glob("*.json")):
        path = f"{layout.CELLS}/{name.name}"
        raw = name.read_bytes()
        wrong = _wrong(raw, listed.get(path))
        if not wrong:
            try:
                record = _decode(raw)
            except msgspec.DecodeError as error:
                wrong = f"cannot be read: {error}"
            else:
                if record.schema <= SCHEMA:
                    yield _row(record, unit, info.run_id)
                    continue
                wrong = f"has schema {record.schema}, this harness reads up to {SCHEMA}"
        problems.append(f"{run / path}: {wrong}")


def _listed(run: Path) -> dict[str, str]:
    file = run / layout.MANIFEST
    lines = file.read_bytes().splitlines() if file.is_file() else []
    entries = (_entry(line) for line in lines if line.endswith(b"}"))
    return {entry.path: entry.sha256 for entry in entries}


def _wrong(raw: bytes, listed: str | None) -> str:
    if listed is None or hashlib.sha256(raw).hexdigest() == listed:
        return ""
    return "does not have the hash that the manifest lists: it was changed or damaged"


def _row(record: _Stored, unit: str, run_id: str) -> tuple[Any, ...]:
    labels, cell, latency, quality = record.labels, record.cell, record.latency, record.quality
    return (
        unit,
        run_id,
        record.profile,
        labels.get("workload", cell.workload.name),
        labels.get("method", ""),
        labels.get("target", cell.target.name),
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
        *_quality(quality),
        *_latency(latency),
        cell.options.threads,
        cell.options.batch,
        record.memory.peak_bytes if record.memory else None,
        record.artifact.artifact_bytes if record.artifact else None,
    )


def _quality(quality: _Quality | None) -> tuple[float | None, ...]:
    if quality is None or quality.value is None:
        return (None, None, None, None)
    scale = 100.0 if quality.unit == "%" else 1.0
    value, drop = quality.value, quality.difference
    sign = -scale if quality.higher_is_better else scale
    ends = [None if end is None else end * scale for end in (value.point, value.low, value.high)]
    return (*ends, None if drop is None else drop.point * sign)


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
