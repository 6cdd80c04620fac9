"""Read a bundle without trust: its members, the chain of its run, and every figure against its samples."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.build.packfile import Container, Reader
from harness.bundle import values
from harness.bundle.hold import breaches, breaks, damage
from harness.bundle.values import BundleInfo
from harness.codec import listed_sha256
from harness.errors import BadModel, RecordError
from harness.store import Run, layout, load_run, manifest
from harness.types import Record


class BundleReader(Container[BundleInfo]):
    """A bundle whose list of members was checked.

    Raises:
        RecordError: Not a bundle, one of another schema, or one with members that its manifest does not list.
    """

    kind = "bundle"
    info_name = values.INFO
    info_class = BundleInfo
    schema = values.SCHEMA
    error = RecordError


@dataclass(frozen=True)
class Opened:
    """A bundle whose evidence holds, unpacked.

    Attributes:
        run: The cell and its anchor, as a run.
        pack: Their artifacts; ``None`` where the bundle has none.
    """

    path: Path
    info: BundleInfo
    run: Run
    record: Record
    pack: Path | None


def open_bundle(path: Path, folder: Path) -> Opened:
    """Unpack a bundle into an empty folder and verify it.

    Raises:
        RecordError: A member is damaged, a file is not the one that the run's chain lists, or the evidence breaks a
            demand of ``harness verify`` without telling; the sentence names the file.
    """
    reader = BundleReader(path)
    try:
        reader.extract(values.RUN, folder / values.RUN)
        chain = manifest.parse(reader.read(values.CHAIN))
        reader.extract(str(Path(values.PACK).parent), folder)
        for name in (values.REPORT, values.CONFIG, *((values.PAGE,) if reader.info.with_page else ())):
            reader.read(name)
    finally:
        reader.close()
    info, inside = reader.info, folder / values.RUN
    wrong = _chained(chain, info, inside)
    if wrong:
        raise _refused(path, wrong)
    run = load_run(inside)
    problems = breaches(inside)
    wrong = damage(problems)
    if wrong or breaks(problems) != info.breaks:
        told = next((text for text in breaks(problems) if text not in info.breaks), "")
        raise _refused(path, wrong or told or f"{values.INFO} tells of breaches that are not there")
    record = run.by_cell.get(info.cell_id)
    wrong = _described(info, run, record)
    if wrong or record is None:
        raise _refused(path, wrong)
    pack = folder / Path(values.PACK).name
    if not pack.is_file():
        return Opened(path, info, run, record, None)
    wrong = _packed(pack, run)
    if wrong:
        raise _refused(path, f"{values.PACK}: {wrong}")
    return Opened(path, info, run, record, pack)


def _refused(path: Path, why: str) -> RecordError:
    return RecordError(f"{path} is refused: {why}", hint="ask for the bundle again; its evidence does not hold")


def _chained(chain: manifest.Chain, info: BundleInfo, folder: Path) -> str:
    """Say which file is not the one that the run's own manifest lists."""
    if chain.wrong or chain.torn:
        return f"{values.CHAIN}: {chain.wrong or 'the last line was cut short'}"
    if chain.head != info.manifest_head:
        return f"{values.CHAIN} does not end as {values.INFO} says"
    hashes = chain.hashes()
    for name in layout.listed_files(folder):
        wrong = manifest.mismatch(manifest.digest((folder / name).read_bytes()), hashes.get(name, []))
        if wrong and not (name in info.redacted and name in {layout.RUN, layout.CONFIG}):
            return f"{name} {wrong}"
    return ""


def _packed(pack: Path, run: Run) -> str:
    """Say which packed artifact is not the one that its record names."""
    try:
        reader = Reader(pack)
    except BadModel as error:
        return error.message
    try:
        for record in run.records:
            cell = reader.info.cells.get(record.cell_id)
            artifact = reader.info.artifacts.get(cell.artifact) if cell else None
            if cell is None or artifact is None:
                return f"it does not hold {record.cell_id}"
            name = f"{cell.artifact}/{artifact.path.as_posix()}"
            said = record.artifact.sha256 if record.artifact else ""
            if artifact.sha256 != said or said not in _digests(reader, cell.artifact, name):
                return f"{name} is not the artifact that the record of {record.cell_id} names"
    except BadModel as error:
        return error.message
    finally:
        reader.close()
    return ""


def _digests(reader: Reader, element: str, name: str) -> Iterator[str]:
    """Yield the hashes that an artifact can have: of its file, of it and the files beside it, of a folder's files."""
    members = reader.names(element)
    if name in members:
        yield reader.digest(name)
        together = hashlib.sha256()
        for member in (name, *(other for other in members if other != name)):  # an IR's weights come after its graph
            together.update(reader.read(member))
        yield together.hexdigest()
        return
    inside = {member.removeprefix(f"{name}/"): reader.digest(member) for member in reader.names(name)}
    yield listed_sha256(inside)


def _described(info: BundleInfo, run: Run, record: Record | None) -> str:
    """Say where the bundle's own words are not those of the record."""
    if record is None or run.info is None:
        return f"it holds no record of {info.cell_id}" if record is None else f"{layout.RUN} cannot be read"
    if record.status != "ok" or record.artifact is None or record.latency is None:
        return f"the record of {info.cell_id} is {record.status} and has no figures"
    said = (info.artifact_sha256, info.model_sha256, info.anchor, info.host_id)
    if said != (record.artifact.sha256, record.model_sha256, record.anchor, record.host_id):
        return f"{values.INFO} says another artifact, model, anchor or host than the record"
    asked = (info.request.workloads, info.request.methods, info.request.targets)
    named = tuple((info.labels.get(name, ""),) for name in ("workload", "method", "target"))
    if asked != named or info.request.profile != record.profile:
        return f"the request in {values.INFO} is not that of the cell"
    return ""
