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
from harness.exchange.rows import COUNTS, NUMBERS, TEXTS, Stored, row_of
from harness.store import find_runs, layout
from harness.types import SCHEMA, Loaded

FILE = "index.parquet"
CHUNK = 50_000  # rows of one row group
HINT = "pip install 'compression-harness[report]'"


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
    loaded: Mapping[str, Loaded] = field(default_factory=dict)


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


_decode = msgspec.json.Decoder(Stored).decode
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
    kinds = [(TEXTS, text), (NUMBERS, pa.float64()), (COUNTS, pa.int64())]
    return pa.schema([(name, kind) for names, kind in kinds for name in names])


def write_rows(rows: Iterator[tuple[Any, ...]], target: Path) -> int:
    """Write rows in the order of ``rows.COLUMNS`` in row groups; return how many there were."""
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
                    yield row_of(record, unit, info.run_id, info.loaded)
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
