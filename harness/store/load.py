"""Read a run: what cannot be read is a problem by name, and the rest still loads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import RecordError
from harness.store import files, layout, manifest
from harness.store.documents import Part, decode_file, kind_of
from harness.store.layout import RunInfo
from harness.types import LaunchSet, Record

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Problem:
    """A file of a run that is missing, damaged, or says something that its neighbours contradict.

    Attributes:
        demand: Name of what it breaks, as ``harness.audit`` lists them.
    """

    file: str
    what: str
    demand: str = ""


@dataclass(frozen=True)
class Run:
    """A run as read from its folder.

    Attributes:
        info: ``None`` where run.json cannot be read.
        sets: Raw launch-sets by name, as ``Record.sets`` lists them.
        problems: Files that were left out.
    """

    path: Path
    info: RunInfo | None
    records: tuple[Record, ...]
    sets: Mapping[str, LaunchSet]
    problems: tuple[Problem, ...] = ()

    @cached_property
    def unit(self) -> str:
        """Name of the machine: of its folder in a merged tree, else made from the host's name and identity."""
        if (self.path.parent / layout.UNIT).is_file() or self.info is None:
            return self.path.parent.name
        return layout.host_folder(self.info.host_name, self.info.host_id)

    @cached_property
    def links(self) -> tuple[LaunchSet, ...]:
        """The sets that interleave the anchors of all targets."""
        return tuple(item for item in self.sets.values() if item.purpose == "link")

    @cached_property
    def by_cell(self) -> Mapping[str, Record]:
        """Records by cell_id."""
        return {record.cell_id: record for record in self.records}

    def sets_of(self, record: Record) -> tuple[LaunchSet, ...]:
        """Return the launch-sets that a record's latency was summarised from, where they could be read."""
        return tuple(self.sets[name] for name in record.sets if name in self.sets)

    def block_of(self, record: Record) -> tuple[LaunchSet, ...]:
        """Return a record's own launch-sets, and those of its block that hold only its company.

        Its anchor's launches in the latter count too where launches are compared without pairing them.
        """
        groups = {name.rpartition("-")[0] for name in record.sets}
        return tuple(
            item
            for name, item in sorted(self.sets.items())
            if name in record.sets
            or (item.group in groups and all(launch.cell_id != record.cell_id for launch in item.launches))
        )

    def scores(self, cell_id: str) -> NDArray[Any] | None:
        """Return a cell's per-item statistics, or None where there are none.

        Raises:
            RecordError: The file is damaged.
        """
        path = layout.scores_file(cell_id)
        file = self.path / path
        return files.decode_scores(file.read_bytes(), path) if file.is_file() else None


def load_run(path: Path) -> Run:
    """Read a run folder.

    Raises:
        RecordError: There is no run in this folder.
    """
    if not (path / layout.RUN).is_file() and not (path / layout.CELLS).is_dir():
        raise RecordError(f"{path} holds no run", hint="a run is a folder such as results/<host>/<run>")
    chain = manifest.read(path)
    problems = [Problem(layout.MANIFEST, chain.wrong)] if chain.wrong else []
    info: RunInfo | None = None
    records: list[Record] = []
    sets: dict[str, LaunchSet] = {}
    for name, value in _values(path, chain, problems).items():
        if isinstance(value, RunInfo):
            info = value
        elif isinstance(value, Record):
            records.append(value)
        elif isinstance(value, LaunchSet):
            sets[Path(name).name.removesuffix(".json.gz")] = value
    return Run(path, info, tuple(records), sets, tuple(problems))


def _values(path: Path, chain: manifest.Chain, problems: list[Problem]) -> dict[str, object]:
    """Decode every JSON file; a file that fails goes to ``problems``."""
    values: dict[str, object] = {}
    hashes = chain.hashes()
    for name in sorted({*layout.listed_files(path), *hashes}):
        kind = kind_of(name)
        if kind is None or kind is Part:
            continue
        try:
            values[name] = decode_file(kind, name, _checked(path, name, hashes.get(name, []), chain))
        except RecordError as error:
            problems.append(Problem(name, error.message))
    return values


def _checked(folder: Path, name: str, listed: list[str], chain: manifest.Chain) -> bytes:
    file = folder / name
    if not file.is_file():
        raise RecordError(f"{name} is listed in the manifest and missing")
    raw = file.read_bytes()
    found = manifest.digest(raw)
    # One that is not listed may be what a kill left between file and line; behind a broken chain nothing is known.
    if listed and not chain.wrong and found not in listed:
        raise RecordError(f"{name} {manifest.mismatch(found, listed)}")
    return raw


def find_runs(root: Path) -> tuple[Path, ...]:
    """Return the run folders at or below ``root``, oldest first by name."""
    if (root / layout.RUN).is_file():
        return (root,)
    folders = (file.parent for file in root.glob(f"**/{layout.RUN}"))
    return tuple(sorted(folders, key=lambda path: (path.name, str(path))))
