"""Accuracy and placement: one process, nothing timed."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from harness import codec
from harness.errors import RecordError
from harness.measure.member import Member, Setup
from harness.measure.process import Worker, WorkerLost, worker_of
from harness.types import Failure, Loaded, Placement, Purpose

PLACEMENT_RUNS = 3
DISTINCT_INPUTS = 4


@dataclass(frozen=True)
class Untimed:
    """What a cell gave and where it ran.

    Attributes:
        outputs: File of shape [items, …] by output name; empty where only the placement was asked for.
        placement_reason: Why there are no placements; empty where there are, or where none were asked for.
        effective: Option -> value in force, as the runtime says.
        batch: Items per call that the outputs were made with.
        loaded: Shared objects of the process, after its inferences.
    """

    outputs: Mapping[str, Path] = field(default_factory=dict)
    placements: tuple[Placement, ...] = ()
    effective: Mapping[str, str] = field(default_factory=dict)
    placement_reason: str = ""
    batch: int = 1
    loaded: Loaded = field(default_factory=Loaded)


def run_untimed(
    member: Member,
    *,
    purposes: Collection[Purpose] = frozenset({"accuracy", "placement"}),
    batch: int,
    items: int | None,
    outputs_to: Path | None,
    timeout_s: float,
    memory_limit_bytes: int | None = None,
) -> Untimed | Failure:
    """Run the evaluation items and ask what ran where, in one process with a session for each purpose.

    A failure of the placement alone costs the placement, not the accuracy.

    Args:
        member: The cell.
        purposes: Any of "accuracy" and "placement".
        batch: Items per call where the session takes any number; a short last batch is padded and cut.
        items: How many items; ``None`` for all.
        outputs_to: Folder for the outputs; needed for "accuracy".
        timeout_s: For all of it.
        memory_limit_bytes: RLIMIT_DATA of the process.
    """
    accuracy = "accuracy" in purposes
    if accuracy and outputs_to is None:
        raise ValueError("purpose 'accuracy' needs a folder for its outputs")
    purpose = "accuracy" if accuracy else "placement"
    setup = Setup(member, purpose, purpose, 0, (), memory_limit_bytes, DISTINCT_INPUTS)
    result = Untimed()
    try:
        with worker_of(member, "accuracy" if accuracy else "placement", timeout_s) as worker:
            worker.greet()
            worker.ask("configure", setup=codec.to_data(setup))
            if accuracy and outputs_to is not None:
                result = replace(_evaluate(worker, outputs_to, batch, items), loaded=_loaded(worker))
            if "placement" in purposes:
                result = _place(worker, result, accuracy)
            return result if accuracy else replace(result, loaded=_loaded(worker))
    except WorkerLost as lost:
        if outputs_to is not None:
            shutil.rmtree(outputs_to, ignore_errors=True)  # half-written outputs are of no use
        return lost.failure


def _evaluate(worker: Worker, folder: Path, batch: int, items: int | None) -> Untimed:
    reply = worker.ask("evaluate", folder=str(folder), batch=batch, items=items)
    files = {name: Path(path) for name, path in reply["outputs"].items()}
    return Untimed(outputs=files, effective=reply["effective"], batch=reply["batch"])


def _loaded(worker: Worker) -> Loaded:
    return codec.from_data(Loaded, worker.ask("objects")["loaded"], where="loaded")


def _place(worker: Worker, result: Untimed, accuracy: bool) -> Untimed:
    worker.stage = "placement"
    try:
        reply = worker.ask("placement", count=PLACEMENT_RUNS)
    except WorkerLost as lost:
        if not accuracy:
            raise
        reason = f"{lost.failure.status}: {lost.failure.reason}"
        return replace(result, placement_reason=reason)
    try:
        placements = codec.from_data(tuple[Placement, ...], reply["placements"], where="placements")
    except RecordError as error:
        return replace(result, placement_reason=str(error))
    seen = {**reply["effective"], **result.effective}  # of the session that ran the items where both say it
    return replace(result, placements=placements, effective=seen, placement_reason=reply["reason"])
