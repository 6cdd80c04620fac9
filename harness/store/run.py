"""Write a run: every finished thing is on disk, and in the manifest, before the next one starts."""

from __future__ import annotations

import contextlib
import itertools
import logging
import platform
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from harness import codec
from harness.config import dump_config
from harness.errors import RecordError
from harness.explain import brief, log_name, pointing
from harness.store import files, layout, manifest
from harness.store.documents import Part, decode_file, is_whole, read_listed
from harness.store.lock import RunLock
from harness.types import SCHEMA, Failure, LaunchSet, Loaded, Record

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from harness.measure.host import Fingerprint

T = TypeVar("T")
log = logging.getLogger("harness")


class RunStore:
    """The folder of one run, open for writing by this process alone. Use it as a context manager."""

    def __init__(self, folder: Path, *, resumed: bool = True) -> None:
        """Open an existing run folder, and heal what a kill left half done.

        Raises:
            HarnessError: Another process has it open.
            RecordError: Its manifest is broken, or run.json cannot be read.
        """
        self.folder, self.resumed = folder, resumed
        self._sets: dict[str, LaunchSet] = {}
        self._lock = RunLock(folder)
        try:
            self._manifest = manifest.Writer(folder)
            self._heal()
            self.info = self._decoded(layout.RunInfo, layout.RUN)
            self._put(layout.CONFIG, dump_config(self.info.request).encode())
        except BaseException:
            self.close()
            raise

    @classmethod
    def create(cls, root: Path, info: layout.RunInfo) -> Self:
        """Start a run below ``root``, named by its time and plan; a name that is taken gets a number."""
        info = replace(info, host_name=info.host_name or platform.node())
        host = root / layout.host_folder(info.host_name, info.host_id)
        host.mkdir(parents=True, exist_ok=True)
        base = info.run_id or layout.make_run_id(info.started_utc, info.plan_sha256)
        folder = _new_folder(host, layout.safe(base))
        info = replace(info, run_id=folder.name)
        codec.write_whole(folder / layout.RUN, files.encode(info, layout.RUN))
        return cls(folder, resumed=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let another process open the run."""
        self._lock.release()

    @staticmethod
    def set_name(value: LaunchSet) -> str:
        """Return the name of a launch-set, which ``Record.sets`` lists."""
        return layout.set_name(value.group, value.index)

    def write_set(self, value: LaunchSet) -> str:
        """Keep a launch-set's raw samples; return its name."""
        name = self.set_name(value)
        path = layout.set_file(name)
        self._put(path, files.pack(files.encode(value, path)))
        self._sets[path] = value
        return name

    def set_at(self, group: str, index: int) -> LaunchSet | None:
        """Return one stored launch-set, or None; a damaged one counts as not there."""
        path = layout.set_file(layout.set_name(group, index))
        if path not in self._sets:
            found = self._readable(LaunchSet, path)
            if found is None:
                return None
            self._sets[path] = found
        return self._sets[path]

    def sets(self, group: str | None = None) -> tuple[LaunchSet, ...]:
        """Return the stored launch-sets of one group, or all, by group and index."""
        names = [path.removeprefix(f"{layout.RAW}/").removesuffix(".json.gz") for path in self._listed(layout.RAW)]
        keys = [(head, int(index)) for head, _, index in (name.rpartition("-") for name in names)]
        found = [self.set_at(head, index) for head, index in keys if group in {None, head}]
        return tuple(item for item in found if item is not None)

    def write_record(self, record: Record) -> None:
        """Keep a finished cell, in place of an older record of it."""
        path = layout.cell_file(record.cell_id)
        self._put(path, files.encode(record, path))

    def record(self, cell_id: str) -> Record | None:
        """Return a cell's record, or None where there is none that can be read."""
        return self._readable(Record, layout.cell_file(cell_id))

    def records(self) -> tuple[Record, ...]:
        """Return all records that can be read, by cell."""
        found = [self._readable(Record, path) for path in self._listed(layout.CELLS)]
        return tuple(record for record in found if record is not None)

    def write_part(self, cell_id: str, name: str, value: object, *, inputs_sha256: str = "") -> None:
        """Keep a finished part of a cell under a name such as "memory", "quality", "placement"."""
        path = layout.part_file(cell_id, name)
        part = Part(SCHEMA, type(value).__name__, inputs_sha256, codec.to_data(value))
        raw = files.encode(part, path)
        codec.from_data(type(value), files.decode(Part, raw, path).value, where=path)
        self._put(path, raw)

    def part(self, cell_id: str, name: str, kind: type[T], *, inputs_sha256: str = "") -> T | None:
        """Return a stored part, or None where there is none of this kind made from these inputs."""
        part = self._readable(Part, layout.part_file(cell_id, name))
        if part is None or part.kind != kind.__name__ or part.inputs_sha256 != inputs_sha256:
            return None
        return codec.from_data(kind, part.value, where=layout.part_file(cell_id, name))

    def keep_details(self, failure: Failure) -> Failure:
        """Write what a failure's sentence leaves out to a file of this run, and name it in the sentence instead."""
        failure = brief(failure)
        if not failure.details:
            return failure
        path = f"{layout.LOGS}/{log_name(failure)}"
        codec.write_whole(self.folder / path, failure.details.encode(errors="replace"))
        return replace(failure, reason=pointing(failure.reason, path), details="")

    def write_scores(self, cell_id: str, scores: NDArray[Any]) -> None:
        """Keep per-item statistics of shape [n, k]: paired tests and ``verify`` need them."""
        self._put(layout.scores_file(cell_id), files.encode_scores(scores))

    def scores(self, cell_id: str) -> NDArray[Any] | None:
        """Return a cell's per-item statistics, or None."""
        path = layout.scores_file(cell_id)
        raw = self._bytes(path)
        return None if raw is None else files.decode_scores(raw, path)

    def note_loaded(self, target: str, found: Loaded) -> None:
        """Keep which shared objects a target loaded, beside those that its other cells loaded."""
        known = self.info.loaded.get(target, Loaded())
        objects = tuple(sorted({*known.objects, *found.objects}, key=lambda item: (item.path, str(item.build_id))))
        both = Loaded(objects, "" if objects else found.reason)
        if both != self.info.loaded.get(target):
            self.info = replace(self.info, loaded={**self.info.loaded, target: both})
            self._put(layout.RUN, files.encode(self.info, layout.RUN))

    def ask(self, info: layout.RunInfo) -> None:
        """Take over what is asked for now, and what is installed now: the records of a resumed run follow from it."""
        self.info = replace(
            self.info,
            request=info.request,
            command=info.command,
            packages=info.packages,
            package_records=info.package_records,
            plugins=info.plugins,
            host_facts={**self.info.host_facts, **info.host_facts},  # the facts of a device that came since
        )
        self._put(layout.RUN, files.encode(self.info, layout.RUN))
        self._put(layout.CONFIG, dump_config(self.info.request).encode())

    def finish(self, host: Fingerprint) -> None:
        """Mark the run as complete, with the host as it is now: the same plan starts a new run from here on."""
        self.info = replace(
            self.info,
            finished_utc=datetime.now(UTC).isoformat(timespec="seconds"),
            host_id_after=host.host_id,
            host_state_after=dict(host.state),
            host_facts_changed={
                name: value for name, value in host.facts.items() if self.info.host_facts.get(name, value) != value
            },
        )
        self._put(layout.RUN, files.encode(self.info, layout.RUN))

    def _put(self, path: str, raw: bytes) -> None:
        sha256 = manifest.digest(raw)
        listed = self._manifest.hashes.get(path)
        if listed is None:
            codec.write_whole(self.folder / path, raw)
            self._manifest.append(path, sha256)
            return
        # A file that is replaced is announced first: whatever a kill leaves then has one of the listed hashes,
        # so that a half-done replacement can be told from damage.
        if listed[-1] != sha256:
            self._manifest.append(path, sha256)
        codec.write_whole(self.folder / path, raw)

    def _bytes(self, path: str) -> bytes | None:
        return read_listed(self.folder, path, self._manifest.hashes.get(path, ()))

    def _decoded(self, kind: type[T], path: str) -> T:
        raw = self._bytes(path)
        if raw is None:
            raise RecordError(f"{self.folder / path} is missing or damaged")
        return decode_file(kind, path, raw)

    def _readable(self, kind: type[T], path: str) -> T | None:
        try:
            return self._decoded(kind, path) if path in self._manifest.hashes else None
        except RecordError as error:
            log.warning("%s", error.message)
            return None

    def _listed(self, place: str) -> list[str]:
        return sorted(path for path in self._manifest.hashes if path.startswith(f"{place}/"))

    def _heal(self) -> None:
        for leftover in self.folder.rglob(".*.partial"):
            leftover.unlink()
        for path in layout.listed_files(self.folder):
            found = codec.file_sha256(self.folder / path)
            listed = self._manifest.hashes.get(path, [])
            whole = found in listed if listed else is_whole(self.folder, path)
            if whole and manifest.mismatch(found, listed):
                self._manifest.append(path, found)


def _new_folder(host: Path, base: str) -> Path:
    """Make a folder that no other process made at the same time."""
    names = itertools.chain([base], (f"{base}-{count}" for count in itertools.count(2)))
    for name in names:
        with contextlib.suppress(FileExistsError):
            (host / name).mkdir()
            return host / name
    raise AssertionError("the names never end")
