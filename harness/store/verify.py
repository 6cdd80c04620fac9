"""Check a run: the chain, the hashes, the schema, and every number against the raw samples that it came from."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import codec, stats
from harness.errors import HarnessError, RecordError
from harness.profiles import profile_named
from harness.store import files, layout, manifest
from harness.store.documents import Part, decode_file
from harness.store.load import Problem, Run, load_run

if TYPE_CHECKING:
    from harness.types import Record

TOLERANCE = 1e-9  # relative: two roundings of one sum may differ, two sums may not


def verify_run(path: Path) -> list[Problem]:
    """Return all that is wrong with a run; an empty list means that every figure follows from its raw samples.

    Raises:
        RecordError: There is no run in this folder.
    """
    return verify_loaded(load_run(path))


def verify_loaded(run: Run) -> list[Problem]:
    """Do the same for a run that was read already."""
    path = run.path
    found = [*run.problems, *_files(path, {problem.file for problem in run.problems})]
    if run.info is not None and run.info.host_id_after not in {"", run.info.host_id}:
        found.append(Problem(layout.RUN, "the host changed while the run was measured"))
    if run.info is not None:
        for name, after in run.info.host_facts_changed.items():
            before = run.info.host_facts.get(name, "not known")
            found.append(Problem(layout.RUN, f"the host's {name} was {before} at the start and {after} at the end"))
        found += [Problem(layout.RUN, what) for what in _loaded(run.info)]
    for record in run.records:
        found += [Problem(layout.cell_file(record.cell_id), what) for what in _record(run, record)]
    return found


def _loaded(info: layout.RunInfo) -> Iterator[str]:
    """Yield the shared objects of which a target loaded several builds: its package changed under the run."""
    for target, found in info.loaded.items():
        count = Counter(item.path for item in found.objects if "/" in item.path)  # a bare name may be of two folders
        yield from (f"{target} loaded {times} builds of {path}" for path, times in count.items() if times > 1)


def _files(path: Path, known: set[str]) -> Iterator[Problem]:
    """Check the files that loading does not open, and that the manifest's last word holds for all."""
    chain = manifest.read(path)
    if chain.torn:
        yield Problem(layout.MANIFEST, "the last line was cut short; resuming the run heals it")
    hashes = chain.hashes()
    for name in sorted({*layout.listed_files(path), *hashes} - known):
        what = _file(path, name, hashes.get(name, []))
        if what:
            yield Problem(name, what)


def _file(folder: Path, name: str, listed: list[str]) -> str:
    file = folder / name
    if not file.is_file():
        return "is listed in the manifest and missing"
    raw = file.read_bytes()
    wrong = manifest.mismatch(manifest.digest(raw), listed)
    if wrong:
        return wrong
    try:
        if name.startswith(f"{layout.PARTS}/"):
            decode_file(Part, name, raw)
        elif name.startswith(f"{layout.SCORES}/"):
            files.decode_scores(raw, name)
    except RecordError as error:
        return error.message
    return ""


def _record(run: Run, record: Record) -> Iterator[str]:
    if record.cell.cell_id != record.cell_id:
        yield f"cell_id {record.cell_id} is not the hash of the cell, {record.cell.cell_id}"
    if run.info is not None and record.host_id != run.info.host_id:
        yield f"was measured on host {record.host_id[:8]}, the run on {run.info.host_id[:8]}"
    if record.status != "ok" and not record.reason:
        yield f"has the status {record.status} and no reason"
    yield from _latency(run, record)
    yield from _quality(run, record)


def _latency(run: Run, record: Record) -> Iterator[str]:
    if record.latency is None:
        if record.status == "ok" and record.kind == "measured":
            yield "is ok and has no latency"
        return
    missing = [name for name in record.sets if name not in run.sets]
    if missing or not record.sets:
        yield f"latency cannot be recomputed: launch-set {missing[0] if missing else 'names'} missing"
        return
    try:
        again = stats.summarise(record.cell_id, record.anchor, run.block_of(record), profile_named(record.profile))
    except (HarnessError, ValueError, ZeroDivisionError) as error:
        yield f"latency cannot be recomputed: {error}"
        return
    stored, found = codec.to_data(record.latency), codec.to_data(again)
    if record.latency.statistics < again.statistics:  # words and later figures came after it was written
        stored, found = ({name: data[name] for name in _FIGURES} for data in (stored, found))
    for where in differences(stored, found):
        yield f"latency does not follow from its raw samples: {where}"


_FIGURES = (
    "p50_ns", "p90_ns", "p99_ns", "min_ns", "mean_ns", "throughput_per_s", "robust_cv", "samples", "ratio",
    "ratio_p10",
)  # fmt: skip


def differences(stored: Any, again: Any, where: str = "") -> Iterator[str]:
    """Yield where two JSON values differ by more than ``TOLERANCE``, with both values."""
    if isinstance(stored, Mapping) and isinstance(again, Mapping):
        for key in sorted({*stored, *again}):
            yield from differences(stored.get(key), again.get(key), f"{where}.{key}" if where else str(key))
    elif not _same(stored, again):
        yield f"{where} is {stored}, recomputed {again}"


def _same(stored: Any, again: Any) -> bool:
    numbers = (int, float)
    if isinstance(stored, numbers) and isinstance(again, numbers):
        return math.isclose(stored, again, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
    return bool(stored == again)


def _quality(run: Run, record: Record) -> Iterator[str]:
    """Recount what can be counted without the workload: right and wrong items of 0/1 statistics."""
    quality = record.quality
    if quality is None or quality.value is None:
        return
    try:
        ours, theirs = run.scores(record.cell_id), run.scores(record.anchor or record.cell_id)
    except RecordError as error:
        yield f"quality cannot be recomputed: {error.message}"
        return
    if ours is None:
        yield "quality cannot be recomputed: its per-item statistics are missing"
        return
    if len(ours) != quality.items:
        yield f"quality counts {quality.items} items, its statistics hold {len(ours)}"
        return
    if not quality.value.method.lower().startswith("wilson"):
        return  # only the workload knows how to aggregate it
    right = float((ours > 0).mean())
    if not any(_same(quality.value.point, right * scale) for scale in (1.0, 100.0)):  # a share, or a percentage
        yield f"quality is {quality.value.point}, its statistics give {right}"
    if theirs is None or theirs.shape != ours.shape or record.anchor in {None, record.cell_id}:
        return
    counted = {"lost": int(((theirs > 0) & (ours == 0)).sum()), "gained": int(((theirs == 0) & (ours > 0)).sum())}
    for name, count in counted.items():
        stored = getattr(quality, name)
        if stored is not None and stored != count:
            yield f"quality counts {stored} {name} items, its statistics give {count}"
