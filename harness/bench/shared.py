"""What the stages of a campaign share: what is measured, where results are kept, and which cells failed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

from harness.bench.blocks import Block
from harness.bench.records import Context
from harness.bench.ui import Ui
from harness.build import Built
from harness.codec import sha256
from harness.measure import Member
from harness.plan import PlannedCell, Request
from harness.plugins import Registry
from harness.profiles import Profile
from harness.store import RunStore
from harness.types import Failure

T = TypeVar("T")


@dataclass
class Shared:
    """The cells that were built, and what every stage needs to measure them.

    Attributes:
        cells: All that are measured.
        lost: Cells that were planned and not built, with the reason.
        failures: Cells that failed while measured.
    """

    request: Request
    profile: Profile
    registry: Registry
    store: RunStore
    context: Context
    ui: Ui
    built: Mapping[str, Built]
    cells: tuple[PlannedCell, ...]
    lost: Mapping[str, Failure] = field(default_factory=dict)
    failures: dict[str, Failure] = field(default_factory=dict)

    def member(self, planned: PlannedCell) -> Member:
        """Return what a worker needs to open and run a cell."""
        return member_of(planned, self.built[planned.cell.cell_id], self.request)

    def alive(self, block: Block) -> list[str]:
        """Return the cell_ids of a block that did not fail, the anchor first."""
        return [cell_id for cell_id in block.ids if cell_id not in self.failures]

    def alive_here(self) -> list[PlannedCell]:
        """Return the cells that did not fail and run on this host."""
        here = [planned for planned in self.cells if planned.runs_on == "here"]
        return [planned for planned in here if planned.cell.cell_id not in self.failures]

    def inputs(self, planned: PlannedCell) -> str:
        """Hash what decides whether a stored result of a cell may be reused."""
        return self.context.inputs_sha256(planned, self.built[planned.cell.cell_id])

    def against(self, block: Block, cell_id: str) -> str:
        """Hash the same for a result that compares a cell with the first of its block."""
        mine = next(planned for planned in block.cells if planned.cell.cell_id == cell_id)
        return sha256([self.inputs(mine), self.inputs(block.cells[0])])

    def part(self, planned: PlannedCell, name: str, kind: type[T], make: Callable[[], T], inputs: str) -> T:
        """Return a cell's stored part of these inputs, or make and store it."""
        cell_id = planned.cell.cell_id
        found = self.store.part(cell_id, name, kind, inputs_sha256=inputs)
        if found is None:
            found = self._kept(make())
            self.store.write_part(cell_id, name, found, inputs_sha256=inputs)
        return found

    def _kept(self, part: T) -> T:
        """Return a part whose failure, if it has one, left its details in a file of the run."""
        failed = getattr(part, "failure", None)
        return part if failed is None else replace(part, failure=self.store.keep_details(failed))  # type: ignore[type-var]  # a dataclass


def title(planned: PlannedCell) -> str:
    """Return a cell's line in the progress display."""
    return f"{planned.labels['workload']} {planned.labels['method']} on {planned.labels['target']}"


def member_of(planned: PlannedCell, built: Built, request: Request) -> Member:
    """Return what a worker needs to open and run a cell that was built."""
    return Member(
        cell_id=planned.cell.cell_id,
        plugin=planned.target.plugin,
        target=planned.cell.target,
        params=dict(planned.target.params),
        artifact=built.artifact,
        options=planned.cell.options,
        python=request.python.get(planned.target.name),
        evaluation=built.evaluation.folder,
        inputs=built.model.inputs,
        axes=built.model.axes,
    )
