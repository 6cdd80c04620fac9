"""What is compared: a run, or one method or target of a run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from harness.codec import sha256
from harness.errors import PlanError
from harness.params import suggest
from harness.store import Run, find_runs, load_run
from harness.types import Record

MARK = "::"


@dataclass(frozen=True)
class Side:
    """One side of a comparison.

    Attributes:
        text: As it was given.
        method: Only this pipeline, as the grammar writes it; empty for all.
        target: Only this target; empty for all.
    """

    text: str
    run: Run
    method: str = ""
    target: str = ""

    @property
    def records(self) -> tuple[Record, ...]:
        """The records that the selection leaves."""
        return tuple(
            record
            for record in self.run.records
            if self.method in {"", label(record, "method")} and self.target in {"", label(record, "target")}
        )

    @property
    def host(self) -> str:
        """The unit that the run was measured on."""
        return self.run.unit


def label(record: Record, name: str) -> str:
    """Return a label of a record, or what its cell says where an old record has none."""
    if name in record.labels:
        return record.labels[name]
    cell = record.cell
    names = {"workload": cell.workload.name, "target": cell.target.name}
    return names.get(name, "+".join(step.name for step in cell.pipeline))


def parse_side(text: str, root: Path) -> Side:
    """Read ``RUN``, ``RUN::METHOD``, ``RUN::METHOD@TARGET`` or ``RUN::@TARGET``.

    Without RUN, or where RUN is a folder of several runs, the newest one is meant.

    Args:
        text: As given.
        root: The results tree where RUN is left out.

    Raises:
        PlanError: There is no such run, or it has no such method or target.
        RecordError: The run cannot be read.
    """
    place, _, chosen = text.partition(MARK)
    method, _, target = chosen.partition("@")
    where = Path(place) if place else root
    found = find_runs(where) if where.exists() else ()
    if not found:
        raise PlanError(
            f"there is no run at {where}",
            hint="a side is RUN, RUN::METHOD or RUN::METHOD@TARGET; a run is results/<host>/<run>",
        )
    side = Side(text, load_run(found[-1]), method, target)
    for name, value in (("method", method), ("target", target)):
        known = sorted({label(record, name) for record in side.run.records})
        if value and value not in known:
            raise PlanError(f"{side.run.path} has no {name} {value!r}", hint=suggest(value, known, name))
    return side


def pair_key(record: Record, *, method: bool, target: bool) -> str:
    """Return what two records share that are compared: the cell, less what the sides choose.

    Args:
        record: One of a side.
        method: The sides choose methods.
        target: The sides choose targets.
    """
    if not method and not target:
        return record.cell_id
    cell = record.cell
    return sha256([cell.workload, None if method else cell.pipeline, None if target else cell.target, cell.options])


def differences(first: Record, second: Record) -> str:
    """Say how two cells of the same names differ: options and parameters."""
    found: list[str] = []
    for name in ("threads", "batch", "scenario", "seed"):
        a, b = getattr(first.cell.options, name), getattr(second.cell.options, name)
        if a != b:
            found.append(f"{name} {a} against {b}")
    for name in ("workload", "pipeline", "target"):
        a, b = getattr(first.cell, name), getattr(second.cell, name)
        if a != b:
            found.append(f"parameters of the {name}")
    return ", ".join(found)
