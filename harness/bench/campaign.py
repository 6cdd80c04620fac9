"""Measure what was built, stage by stage, and write a record of each cell."""

from __future__ import annotations

from dataclasses import dataclass, field

from harness.bench import beside
from harness.bench.blocks import Block, blocks_of
from harness.bench.energy import EnergyPart
from harness.bench.fitness import Fitness
from harness.bench.floor import Floors
from harness.bench.layers import LayersPart
from harness.bench.records import Finished, failed_record, finished_record
from harness.bench.replications import Replications
from harness.bench.robust import RobustnessPart
from harness.bench.shared import Shared
from harness.bench.untimed import Untimed
from harness.claims import not_actually
from harness.plan import PlannedCell
from harness.plan.values import ANCHOR
from harness.stats import summarise
from harness.types import Failure, Latency, Record, Roofline, ScenarioResult


@dataclass
class Campaign:
    """The measuring half of a run, over the cells that were built."""

    shared: Shared
    fitness: Fitness
    untimed: Untimed = field(init=False)
    robustness: dict[str, RobustnessPart] = field(default_factory=dict)
    layers: dict[str, LayersPart] = field(default_factory=dict)
    scenarios: dict[str, list[ScenarioResult]] = field(default_factory=dict)
    energy: dict[str, EnergyPart] = field(default_factory=dict)
    floors: Floors = field(init=False)

    def __post_init__(self) -> None:
        self.untimed = Untimed(self.shared)
        self.floors = Floors(self.shared.context.host_id, self.shared.ui.note)

    def run(self) -> list[Record]:
        """Measure every cell and write its record; what a resumed run finds on disk is not repeated."""
        shared = self.shared
        blocks = blocks_of(shared.cells, {item.cell.cell_id: shared.inputs(item) for item in shared.cells})
        self.untimed.run(blocks)
        self.robustness = beside.run_corrupted(shared, blocks)
        self.layers = beside.compare_operators(shared, blocks)
        timed = tuple(block for block in blocks if block.cells[0].runs_on != "emulator")
        Replications(shared, self.fitness, self.untimed.memory).run(timed)
        self.scenarios = beside.drive(shared)
        self.energy = beside.read_energies(shared, self.untimed.checks)
        return [self._record(block, planned) for block in blocks for planned in block.cells]

    def _record(self, block: Block, planned: PlannedCell) -> Record:
        record = self._make_record(block, planned)
        self.shared.store.write_record(record)
        self.shared.registry.record_written(record)
        return record

    def _make_record(self, block: Block, planned: PlannedCell) -> Record:
        shared, cell_id = self.shared, planned.cell.cell_id
        built = shared.built[cell_id]
        failure = shared.failures.get(cell_id)
        if failure is not None:
            check = self.untimed.checks.get(cell_id)
            return failed_record(planned, failure, shared.context, built, check.oracle if check else None)
        anchor = block.anchor if block.anchor not in shared.failures else None
        reason = planned.anchor_reason or ("" if anchor else self._why_no_anchor(planned))
        sets = shared.store.sets(block.block_id)
        own = [item for item in sets if any(launch.cell_id == cell_id for launch in item.launches)]
        if not own and planned.runs_on != "emulator":
            lost = Failure("failed", "latency", "harness", "no launch-set of this cell finished")
            return failed_record(planned, lost, shared.context, built)
        latency = summarise(cell_id, anchor, sets, shared.profile) if own else None
        done = Finished(
            planned=planned,
            built=built,
            memory=self.untimed.memory[cell_id],
            check=self.untimed.checks[cell_id],
            latency=latency,
            roofline=self._floor(planned, latency) if latency and planned.runs_on == "here" else None,
            sets=tuple(shared.store.set_name(item) for item in own),
            anchor=anchor,
            anchor_precision=shared.built[anchor].artifact.realised if anchor else None,
            anchor_reason=reason,
            scenarios=tuple(self.scenarios.get(cell_id, ())),
            energy=self.energy[cell_id].result if cell_id in self.energy else None,
            robustness=self.robustness[cell_id].robustness if cell_id in self.robustness else None,
            layers=self.layers.get(cell_id),
            unchanged=self._unchanged(planned, anchor),
            robustness_seconds=self.robustness[cell_id].seconds if cell_id in self.robustness else 0.0,
            host=self.fitness.facts(shared.store.sets(), shared.context.host_id),
            latency_seconds=sum(item.seconds / max(1, len(item.members)) for item in own),
        )
        return finished_record(done, shared.context)

    def _unchanged(self, planned: PlannedCell, anchor: str | None) -> str:
        """Return the flag of a cell whose artifact is its anchor's, though the last method was to change it."""
        built, methods = self.shared.built, self.shared.registry.methods
        asked = [methods[step.name].spec.family for step in planned.pipeline if step.name != ANCHOR]
        if anchor is None or anchor == planned.cell.cell_id or not asked:
            return ""
        ours, theirs = built[planned.cell.cell_id].artifact, built[anchor].artifact
        same = (ours.sha256, ours.realised) == (theirs.sha256, theirs.realised)
        return not_actually(asked[-1]) if same else ""

    def _floor(self, planned: PlannedCell, latency: Latency) -> Roofline | None:
        """Return the physical floor of a cell; ``None`` for targets that run no model."""
        cell_id, options = planned.cell.cell_id, planned.cell.options
        if not self.shared.registry.targets[planned.target.name].spec.ranked:
            return None
        return self.floors.of(
            self.shared.built[cell_id].artifact,
            self.untimed.checks[cell_id].placements,
            self.shared.built[cell_id].model.lineage,
            latency,
            batch=options.batch,
            threads=options.threads,
            sparsity=", ".join(self.shared.context.sparsity(planned)) or "none",
        )

    def _why_no_anchor(self, planned: PlannedCell) -> str:
        anchor = planned.anchor or ""
        failure = self.shared.failures.get(anchor) or self.shared.lost.get(anchor)
        return "the anchor has no figures" if failure is None else f"the anchor is {failure.status}: {failure.reason}"
