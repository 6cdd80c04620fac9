"""Pack a run: its exported models, artifacts, and the data to judge and to calibrate them, without torch."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING

import harness
from harness import codec
from harness.build import values
from harness.build.cache import RESULT, Cache, Entry
from harness.build.data import DataInfo
from harness.build.packfile import INFO, SCHEMA, PackedCell, PackInfo, Reader, Writer, is_pickle
from harness.build.plane import Built, build_plan
from harness.build.probe import probe_targets
from harness.errors import HarnessError
from harness.measure.cpus import effective_cores
from harness.plan import Plan, Request, make_plan, resolve_targets
from harness.types import Failure, Model, Record

if TYPE_CHECKING:
    from collections.abc import Mapping

    from harness.plugins import Registry

_SPLITS = ("calibration", "test")  # lowering elsewhere may calibrate; nothing trains there


def pack(
    run_folder: Path,
    out: Path,
    *,
    cache: Cache | None = None,
    registry: Registry | None = None,
    request: Request | None = None,
) -> Path:
    """Write what a finished run measured into one file.

    The run's plan is made again from its ``bench.toml``; its steps come from the cache, and are built where the cache
    has lost them. What differs from what the run measured is refused.

    Args:
        run_folder: A run in the results tree.
        out: The file to write; ``.hpk`` by custom.
        cache: Where the artifacts are.
        registry: What plugins offer; ``None`` loads it.
        request: A part of what the run was asked for; ``None`` for all of it.

    Returns:
        The file.

    Raises:
        HarnessError: The run has nothing to pack, or what is built now is not what it measured.
    """
    from harness.config import read_config
    from harness.plugins import load_registry

    cache, registry = cache or Cache(), registry or load_registry()
    part = request is not None
    request = request or read_config(run_folder / "bench.toml")
    states = probe_targets(resolve_targets(request, registry), request.python, timeout_s=request.timeout_s)
    plan = make_plan(request, registry, states, effective_cores())
    results = build_plan(plan, cache, registry=registry, states=states)
    return write_pack(plan, _measured(run_folder, results, part=part), cache, out)


def _measured(run_folder: Path, results: Mapping[str, Built | Failure], *, part: bool) -> Mapping[str, Built | Failure]:
    """Return what the run measured of what was built; artifacts that are not those that it measured are refused.

    Args:
        run_folder: The run.
        results: What was built now.
        part: Only some of the run's cells were to be built.
    """
    from harness.store import load_run

    records = [record for record in load_run(run_folder).records if record.artifact is not None]
    for record in records:
        built, name = results.get(record.cell_id), _name(record)
        if built is None and not part:
            raise HarnessError(
                f"{name} was measured, and is not planned now: what 'all' means changed since, such as the cores",
                hint="run 'harness bench' again and pack that run",
            )
        if isinstance(built, Failure):
            raise HarnessError(f"{name} was measured, and cannot be built now: {built.reason}")
        if built is not None and built.artifact.sha256 != _sha256(record):
            raise HarnessError(
                f"the artifact of {name} is not the one that the run measured",
                hint="plugins, packages or data changed since; run 'harness bench' again and pack that run",
            )
    return {record.cell_id: results[record.cell_id] for record in records if record.cell_id in results}


def _name(record: Record) -> str:
    options = record.cell.options
    return f"{' '.join(record.labels.values())} ({options.threads} threads, batch {options.batch})"


def _sha256(record: Record) -> str:
    return record.artifact.sha256 if record.artifact else ""


def write_pack(plan: Plan, results: Mapping[str, Built | Failure], cache: Cache, out: Path) -> Path:
    """Write built cells into a file, whole or not at all.

    Args:
        plan: Whose cells were built.
        results: From ``build_plan``.
        cache: Where the steps' entries are.
        out: The file to write.

    Raises:
        HarnessError: No cell was built that can be packed.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
    packer = _Packer(Writer(partial), cache)
    try:
        for planned in plan.cells:
            built = results.get(planned.cell_id)
            if isinstance(built, Built):
                packer.add(planned.cell_id, built)
        batches = tuple(dict.fromkeys(planned.cell.options.batch for planned in plan.cells))
        packer.close(dataclasses.replace(plan.request, batches=batches))  # a model's own tells only where its file is
        partial.replace(out)
    finally:
        partial.unlink(missing_ok=True)
    return out


class _Packer:
    def __init__(self, writer: Writer, cache: Cache) -> None:
        self.writer = writer
        self.cache = cache
        self.info = PackInfo(SCHEMA, harness.__version__, Request(), {}, {}, {}, {})
        self.cells: dict[str, PackedCell] = {}

    def _entry(self, key: str) -> Entry:
        entry = self.cache.get(key)
        if entry is None:
            raise HarnessError(f"cache entry {key} is gone", hint="run 'harness bench' with the same plan again")
        return entry

    def add(self, cell_id: str, built: Built) -> None:
        """Add a cell; one whose artifact or model can only be a pickle stays out."""
        lower = self._entry(built.keys["lower"][-1])
        pointed = (*values.pointed(built.artifact), *values.pointed(built.model))
        if any(is_pickle(file) for path in pointed for file in _files(path)):
            return
        data = self._data(self._entry(built.keys["data"][-1]))
        model = self._model(built.model)
        artifact = self._artifact(lower, built)
        seconds, reference = dict(built.seconds), self._reference(built)
        unreferenced = built.reference.reason
        self.cells[cell_id] = PackedCell(data, model, artifact, seconds, lower.result.inputs, reference, unreferenced)

    def _data(self, entry: Entry) -> str:
        name = f"data/{entry.result.key[:16]}"
        info = codec.from_data(DataInfo, entry.result.value, where=str(entry.folder))
        kept = dataclasses.replace(info, splits={key: info.splits[key] for key in _SPLITS if key in info.splits})
        for split, files in kept.splits.items():
            for file in files.files:
                self.writer.add(f"{name}/{split}/{file}", entry.folder / split / file)
        self.info = dataclasses.replace(self.info, data={**self.info.data, name: kept})
        return name

    def _model(self, model: Model) -> str:
        name = f"models/{codec.sha256(model)[:16]}"
        places = _places(model)
        for path, place in places.items():
            self._copy(path, f"{name}/{place.as_posix()}")

        def move(path: Path) -> Path:
            return places.get(path) or Path(model.path.name) / path.relative_to(model.path)

        kept = values.moved(model, move)
        self.info = dataclasses.replace(self.info, models={**self.info.models, name: kept})
        return name

    def _reference(self, built: Built) -> str:
        if not built.reference.files:
            return ""
        entry = self._entry(built.keys["reference"][-1])
        name = f"references/{entry.result.key[:16]}"
        for file in entry.result.files:
            if file != RESULT:
                self.writer.add(f"{name}/{file}", entry.folder / file)
        kept = built.reference.moved(lambda path: path.relative_to(entry.folder))
        self.info = dataclasses.replace(self.info, references={**self.info.references, name: kept})
        return name

    def _copy(self, path: Path, name: str) -> None:
        for file in _files(path):
            self.writer.add(name if file == path else f"{name}/{file.relative_to(path).as_posix()}", file)

    def _artifact(self, entry: Entry, built: Built) -> str:
        name = f"artifacts/{entry.result.key[:16]}"
        for file in entry.result.files:
            if file != RESULT and not is_pickle(entry.folder / file):
                self.writer.add(f"{name}/{file}", entry.folder / file)
        path = Path(os.path.relpath(built.artifact.path, entry.folder))
        if path.parts[0] == "..":  # the target runs the model's own file
            self.writer.add(f"{name}/{path.name}", built.artifact.path)
            kept = dataclasses.replace(built.artifact, path=Path(path.name))
        else:
            kept = values.moved(built.artifact, lambda part: Path(os.path.relpath(part, entry.folder)))
        self.info = dataclasses.replace(self.info, artifacts={**self.info.artifacts, name: kept})
        return name

    def close(self, request: Request) -> None:
        if not self.cells:
            raise HarnessError("there is nothing to pack: no cell of the run was built")
        own = dataclasses.replace(request, python={})  # interpreters are this host's
        self.writer.add_json(INFO, dataclasses.replace(self.info, request=own, cells=self.cells))
        self.writer.close()


def _files(path: Path) -> list[Path]:
    return sorted(item for item in path.rglob("*") if item.is_file()) if path.is_dir() else [path]


def _places(model: Model) -> dict[Path, Path]:
    """Return where a model's files lie in its element; those below its own folder keep their places in it.

    What its parts are calibrated with lies apart: the folder's hash is that of the parts alone, here as where it was
    made.
    """
    places = {model.path: Path(model.path.name)}
    if model.precision.encodings is not None:
        places[model.precision.encodings] = Path("encodings") / model.precision.encodings.name
    for at, part in enumerate(model.parts):
        if not part.path.is_relative_to(model.path):
            places[part.path] = Path("apart") / str(at) / part.path.name
        if part.feeds is not None:
            places[part.feeds] = Path("feeds") / str(at)
    return places


def pack_request(path: Path) -> Request:
    """Return what the packed run was asked for.

    Raises:
        BadModel: The file is refused.
    """
    reader = Reader(path)
    try:
        return reader.info.request
    finally:
        reader.close()
