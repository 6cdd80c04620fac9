"""Join runs of machines that different people own into one tree: verified, whole, and each unit by itself."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness import codec
from harness.errors import PlanError, RecordError
from harness.store import files, layout, manifest
from harness.store.load import Problem, find_runs, load_run
from harness.store.units import new_unit, read_unit
from harness.store.verify import verify_run

Check = Callable[[Path], Sequence[Problem]]


@dataclass(frozen=True)
class Source:
    """Runs to merge.

    Attributes:
        path: A run, or a folder of runs.
        unit: The machine that they were measured on; empty takes the name of each run's host.
        stand_in: What the unit really is, where it only stands in for a machine.
    """

    path: Path
    unit: str = ""
    stand_in: str = ""


@dataclass(frozen=True)
class Merged:
    """What became of one run.

    Attributes:
        outcome: "merged", "already there", "replaced" (by the run as it went on) or "refused".
        reasons: Of a refusal, each naming its file.
    """

    run: str
    unit: str
    outcome: str
    reasons: tuple[str, ...] = ()


def merge(sources: Sequence[Source], out: Path, check: Check = verify_run) -> list[Merged]:
    """Copy runs below ``out`` as ``<unit>/<run>``; a run that ``check`` finds fault with is refused by name.

    Args:
        sources: Which runs, and whose.
        out: The tree; made where it is not there, added to where it is.
        check: Run folder -> what is wrong with it; the command line gives it every demand of ``harness verify``.

    Raises:
        PlanError: A source holds no run.
    """
    found: list[Merged] = []
    heads = dict(_heads(out)) if out.is_dir() else {}
    for source in sources:
        runs = find_runs(source.path)
        if not runs:
            raise PlanError(f"there is no run at {source.path}", hint="a run is a folder such as results/<host>/<run>")
        found += [_merge(run, source, out, heads, check) for run in runs]
    return found


def _heads(out: Path) -> Iterator[tuple[str, str]]:
    for run in find_runs(out):
        yield manifest.read(run).head, f"{run.parent.name}/{run.name}"


def _merge(folder: Path, source: Source, out: Path, heads: dict[str, str], check: Check) -> Merged:
    unit = source.unit
    try:
        run = load_run(folder)
        unit = unit or run.unit
        problems = [f"{problem.file}: {problem.what}" for problem in check(folder)]
        if run.info is None:
            problems = problems or [f"{layout.RUN}: cannot be read"]
        if problems or run.info is None:
            return Merged(str(folder), unit, "refused", tuple(problems))
        place = out / layout.safe(unit)
        wrong = _wrong_unit(place, run.info.host_id)
        if wrong:
            return Merged(str(folder), unit, "refused", (wrong,))
        merged = _placed(folder, place, heads)
        if merged in {"merged", "replaced"} and not (place / layout.UNIT).exists():
            made = new_unit(unit, run.info.host_id, run.info.host_facts, source.stand_in)
            codec.write_whole(place / layout.UNIT, files.encode(made, layout.UNIT))
    except RecordError as error:
        return Merged(str(folder), unit, "refused", (error.message,))
    if merged in {"merged", "replaced", "already there"}:
        return Merged(str(folder), unit, merged)
    return Merged(str(folder), unit, "refused", (merged,))


def _wrong_unit(place: Path, host_id: str) -> str:
    known = read_unit(place)
    if known is None or known.host_id == host_id:
        return ""
    return (
        f"unit {known.unit} is host {known.host_id[:8]}, this run is of host {host_id[:8]}: give it another unit name"
    )


def _placed(folder: Path, place: Path, heads: dict[str, str]) -> str:
    """Copy a run whole or not at all; return the outcome, or why it is refused."""
    target = place / folder.name
    head = manifest.read(folder).head
    if target.is_dir():
        theirs, ours = manifest.read(target).entries, manifest.read(folder).entries
        if theirs == ours:
            return "already there"
        if ours[: len(theirs)] != theirs:
            return f"{target} is another run of this name"
        _copy(folder, target)
        return "replaced"
    if head in heads:
        return f"is a copy of {heads[head]}: one measurement counts once, whoever sends it"
    _copy(folder, target)
    heads[head] = f"{place.name}/{folder.name}"
    return "merged"


def _copy(folder: Path, target: Path) -> None:
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        for name in (*layout.listed_files(folder), layout.MANIFEST):
            (partial / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / name, partial / name, follow_symlinks=False)
        if target.is_dir():
            shutil.rmtree(target)
        partial.replace(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def twins(out: Path) -> list[tuple[str, ...]]:
    """Return the units that share one fingerprint: machines of one SKU, or one machine twice."""
    groups: dict[str, list[str]] = {}
    for host in _hosts(out):
        unit = read_unit(host)
        if unit is not None:
            groups.setdefault(unit.host_id, []).append(unit.unit)
    return [tuple(sorted(names)) for names in groups.values() if len(names) > 1]


def _hosts(out: Path) -> Iterable[Path]:
    return sorted(file.parent for file in out.glob(f"*/{layout.UNIT}"))
