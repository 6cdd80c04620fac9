"""Measure what was built: memory, quality and placement, then the launch-sets, each written as it ends."""

from __future__ import annotations

import functools
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

from harness.bench.blocks import Block, Room, SetPlan, available_bytes, blocks_of, link_plans, set_plans
from harness.bench.energy import EnergyPart, read_energy
from harness.bench.fitness import Fitness
from harness.bench.floor import Floors
from harness.bench.layers import LayersPart, compare_layers
from harness.bench.quality import Judge
from harness.bench.records import CheckPart, Context, Finished, MemoryPart, failed_record, finished_record
from harness.bench.robust import RobustnessPart, Spoiler, due
from harness.bench.scenarios import ScenarioPart, measure
from harness.bench.ui import Ui
from harness.build import Built
from harness.codec import sha256
from harness.measure import Member, measure_memory, run_set
from harness.plan import PlannedCell, Request
from harness.plugins import Registry
from harness.profiles import Profile
from harness.stats import narrow, summarise
from harness.store import RunStore
from harness.types import Failure, Latency, LaunchSet, Memory, Record, Roofline, ScenarioResult

RAM_SHARE = 0.6  # of the memory that is free now may be taken by the members of one set
T = TypeVar("T")
SETS_ADDED = 5  # at a time, while intervals are wide


@dataclass
class Campaign:
    """The measuring half of a run, over the cells that were built.

    Attributes:
        lost: Cells that were planned and not built, with the reason.
        failures: Cells that failed while measured.
        unlinked: Anchors that failed beside those of other targets: their own sets go on.
    """

    request: Request
    profile: Profile
    registry: Registry
    store: RunStore
    context: Context
    ui: Ui
    built: Mapping[str, Built]
    cells: tuple[PlannedCell, ...]
    memory: dict[str, MemoryPart] = field(default_factory=dict)
    checks: dict[str, CheckPart] = field(default_factory=dict)
    lost: Mapping[str, Failure] = field(default_factory=dict)
    failures: dict[str, Failure] = field(default_factory=dict)
    unlinked: set[str] = field(default_factory=set)
    sets_done: Counter[str] = field(default_factory=Counter)
    scenarios: dict[str, list[ScenarioResult]] = field(default_factory=dict)
    robustness: dict[str, RobustnessPart] = field(default_factory=dict)
    layers: dict[str, LayersPart] = field(default_factory=dict)
    framework: dict[str, Callable[[], Mapping[str, Path]]] = field(default_factory=dict)
    fitness: Fitness = field(default_factory=lambda: Fitness(0.0))
    floors: Floors | None = None
    energy: dict[str, EnergyPart] = field(default_factory=dict)

    def run(self) -> list[Record]:
        """Measure every cell and write its record; what a resumed run finds on disk is not repeated."""
        blocks = blocks_of(self.cells, {item.cell.cell_id: self._inputs(item) for item in self.cells})
        self.ui.stage("memory and accuracy", len(self.cells))
        with tempfile.TemporaryDirectory(prefix="harness-") as scratch:
            untimed = sorted(blocks, key=lambda block: not self._framework(block))  # the others are compared with it
            for number, block in enumerate(untimed):
                self._untimed(block, sum(len(other.cells) for other in untimed[:number]), Path(scratch))
        self._robustness(blocks)
        self._layers(blocks)
        self._sets(tuple(block for block in blocks if block.cells[0].runs_on != "emulator"))
        self._scenarios()
        self._energy()
        self.floors = Floors(self.context.host_id, self.ui.note)
        return [self._record(block, planned) for block in blocks for planned in block.cells]

    # -- untimed launches

    def _framework(self, block: Block) -> bool:
        return self.registry.targets[block.cells[0].target.name].spec.framework and block.anchor is not None

    def _untimed(self, block: Block, before: int, kept: Path) -> None:
        workload = block.cells[0].labels.get("workload", "")
        with tempfile.TemporaryDirectory(prefix="harness-") as scratch:
            judge = Judge(self.registry, self.store, self.context, self.request, Path(scratch))
            if block.anchor is not None:
                judge.recall = partial(self._recall, judge, block.cells[0])
            judge.framework = self.framework.get(workload)
            for offset, planned in enumerate(block.cells):
                cell_id = planned.cell.cell_id
                self.ui.advance("memory and accuracy", before + offset, _title(planned))
                self.memory[cell_id] = self._memory_part(planned)
                if self.memory[cell_id].failure is None:
                    make = partial(self._check, judge, planned, block)
                    against = self._against(block, cell_id)
                    self.checks[cell_id] = self._part(planned, "check", CheckPart, make, against)
                failure = self.memory[cell_id].failure or self.checks[cell_id].failure
                if failure is not None:
                    self.failures[cell_id] = failure
        self.ui.advance("memory and accuracy", before + len(block.cells), "")
        if self._framework(block) and workload not in self.framework:
            judge = Judge(self.registry, self.store, self.context, self.request, kept)
            self.framework[workload] = functools.cache(partial(self._recall, judge, block.cells[0]))

    def _robustness(self, blocks: tuple[Block, ...]) -> None:
        """Run the living cells on corrupted copies of the test images, where that was asked for."""
        if not self.request.robustness:
            return
        self.ui.stage("robustness", len(blocks))
        for number, block in enumerate(blocks):
            self.ui.advance("robustness", number, _title(block.cells[0]))
            stored: dict[str, RobustnessPart] = {}
            for cell_id in self._alive(block):
                against = self._against(block, cell_id)
                found = self.store.part(cell_id, "robustness", RobustnessPart, inputs_sha256=against)
                stored |= {} if found is None else {cell_id: found}
            cells = [item for item in due(block, self._alive(block)) if item.cell.cell_id not in stored]
            with tempfile.TemporaryDirectory(prefix="harness-") as scratch:
                spoiler = Spoiler(self.registry, self.store, self.context, self.request, Path(scratch), self.member)
                made = spoiler.block(block, cells, self.built) if cells else {}
            for cell_id, part in made.items():
                self.store.write_part(cell_id, "robustness", part, inputs_sha256=self._against(block, cell_id))
            self.robustness |= stored | made
            self.ui.advance("robustness", number + 1, "")

    def _layers(self, blocks: tuple[Block, ...]) -> None:
        """Compare the operators of each living cell with its anchor's, where that was asked for."""
        pairs = [
            (block, item, self.built[block.anchor].artifact)
            for block in blocks
            if self.request.layers and block.anchor is not None and block.anchor not in self.failures
            for item in due(block, self._alive(block))
            if not item.is_anchor and item.runs_on == "here"
        ]
        if pairs:
            self.ui.stage("layers", len(pairs))
        for number, (block, planned, anchor) in enumerate(pairs):
            cell_id = planned.cell.cell_id
            self.ui.advance("layers", number, _title(planned))
            make = partial(compare_layers, self.member(planned), anchor, self.request)
            self.layers[cell_id] = self._part(planned, "layers", LayersPart, make, self._against(block, cell_id))
            self.ui.advance("layers", number + 1, "")

    def _against(self, block: Block, cell_id: str) -> str:
        mine = next(planned for planned in block.cells if planned.cell.cell_id == cell_id)
        return sha256([self._inputs(mine), self._inputs(block.cells[0])])

    def _inputs(self, planned: PlannedCell) -> str:
        return self.context.inputs_sha256(planned, self.built[planned.cell.cell_id].artifact)

    def _recall(self, judge: Judge, anchor: PlannedCell) -> Mapping[str, Path]:
        """Return the anchor's outputs once more, unless it failed before its variants were asked."""
        if anchor.cell.cell_id in self.failures:
            return {}
        return judge.outputs(anchor, self.member(anchor), self.built[anchor.cell.cell_id])

    def _part(self, planned: PlannedCell, name: str, kind: type[T], make: Callable[[], T], inputs: str) -> T:
        cell_id = planned.cell.cell_id
        found = self.store.part(cell_id, name, kind, inputs_sha256=inputs)
        if found is None:
            found = make()
            self.store.write_part(cell_id, name, found, inputs_sha256=inputs)
        return found

    def _check(self, judge: Judge, planned: PlannedCell, block: Block) -> CheckPart:
        return judge.check(planned, self.member(planned), self.built[planned.cell.cell_id], block)

    def _memory_part(self, planned: PlannedCell) -> MemoryPart:
        if planned.runs_on != "here":
            return MemoryPart()  # this host's memory says nothing about a model that is elsewhere
        return self._part(planned, "memory", MemoryPart, partial(self._memory, planned), self._inputs(planned))

    def _memory(self, planned: PlannedCell) -> MemoryPart:
        started = time.monotonic()
        result = measure_memory(
            self.member(planned),
            self.profile,
            timeout_s=self.request.timeout_s,
            memory_limit_bytes=self.request.memory_limit_bytes,
        )
        seconds = time.monotonic() - started
        if isinstance(result, Memory):
            return MemoryPart(memory=result, seconds=seconds)
        return MemoryPart(failure=result, seconds=seconds)

    def member(self, planned: PlannedCell) -> Member:
        """Return what a worker needs to open and run a cell."""
        return member_of(planned, self.built[planned.cell.cell_id], self.request)

    # -- launch-sets

    def _alive(self, block: Block) -> list[str]:
        return [cell_id for cell_id in block.ids if cell_id not in self.failures]

    def _room(self) -> Room:
        peaks = {cell_id: part.memory.peak_bytes for cell_id, part in self.memory.items() if part.memory}
        return Room(int(available_bytes() * RAM_SHARE), peaks)

    def _sets(self, blocks: tuple[Block, ...]) -> None:
        """Run the replications; in each, every block and every link is visited once, so drift hits all alike."""
        for stored in self.store.sets():
            if stored.purpose == "link" or stored.group in {block.block_id for block in blocks}:
                self._learn(stored)
        planned = sum(len(self._due(blocks, replication)) for replication in range(self.profile.sets))
        self.ui.stage("latency", planned)
        for replication in range(self.profile.sets):
            self._run_all("latency", self._due(blocks, replication), blocks)
        self._add_sets(blocks)

    def _add_sets(self, blocks: tuple[Block, ...]) -> None:
        """Give groups with wide intervals more launch-sets, in steps, until they are narrow or their budget is spent.

        It stops on the width of intervals, never on significance (MEASUREMENT.md section 1.8).
        """
        for first in range(self.profile.sets, self.profile.sets_max, SETS_ADDED):
            wide = tuple(block for block in blocks if self._too_wide(block))
            if not wide:
                return
            more = range(first, min(first + SETS_ADDED, self.profile.sets_max))
            self.ui.note(f"{len(wide)} groups have wide intervals: {len(more)} more launch-sets each")
            stage = f"latency, sets {more.start + 1} to {more.stop}"
            self.ui.stage(stage, sum(len(self._due(wide, replication)) for replication in more))
            for replication in more:
                self._run_all(stage, self._due(wide, replication), blocks)

    def _too_wide(self, block: Block) -> bool:
        done = self.store.sets(block.block_id)
        spent = sum(item.seconds for item in done) / max(1, len(self._alive(block)))
        if spent > self.profile.cell_seconds:
            return False
        return any(
            not narrow(summarise(name, block.anchor, done, self.profile), self.profile) for name in self._alive(block)
        )

    def _due(self, blocks: tuple[Block, ...], replication: int) -> list[SetPlan]:
        room, seed = self._room(), self.request.seed
        plans: list[SetPlan] = []
        for block in blocks:
            done = self.store.sets(block.block_id)
            plans += set_plans(block, self._alive(block), replication, self.profile, seed, room, done)
        here = [block for block in blocks if block.cells[0].runs_on == "here"]
        ranked = [block for block in here if self.registry.targets[block.cells[0].target.name].spec.ranked]
        alive = {cell_id for block in ranked for cell_id in self._alive(block)} - self.unlinked
        stored = {(item.group, item.index) for item in self.store.sets() if item.purpose == "link"}
        return plans + link_plans(ranked, alive, replication, room, stored)

    def _learn(self, stored: LaunchSet) -> None:
        if stored.purpose == "link":
            self.unlinked.update(stored.failures)
        else:
            self.failures.update(stored.failures)

    def _run_all(self, stage: str, due: list[SetPlan], blocks: tuple[Block, ...]) -> None:
        planned = {item.cell.cell_id: item for block in blocks for item in block.cells}
        for plan in due:
            alive = tuple(cell_id for cell_id in plan.members if cell_id not in self.failures)
            self.ui.advance(stage, self.sets_done[stage], _title_of(plan, planned))
            if alive:
                finished = self._run_set(plan, [self.member(planned[cell_id]) for cell_id in alive])
                self.store.write_set(finished)
                self._learn(finished)
                self.fitness.watch(finished, self.ui.note)
            self.sets_done[stage] += 1
            self.ui.advance(stage, self.sets_done[stage], "")

    def _run_set(self, plan: SetPlan, members: list[Member]) -> LaunchSet:
        return run_set(
            plan.group,
            plan.index,
            plan.purpose,
            plan.anchor if plan.anchor not in self.failures else None,
            members,
            self.profile,
            seed=self.request.seed,
            timeout_s=self.request.timeout_s,
            memory_limit_bytes=self.request.memory_limit_bytes,
        )

    def _scenarios(self) -> None:
        """Let the load generator drive each living cell; each result is kept as it comes."""
        alive = self._alive_here()
        todo = [(planned, name) for planned in alive for name in self.request.scenarios]
        if todo:
            self.ui.stage("scenarios", len(todo))
        for number, (planned, name) in enumerate(todo):
            self.ui.advance("scenarios", number, f"{name}: {_title(planned)}")
            make = partial(self._scenario, planned, name)
            part = self._part(planned, f"scenario-{name}", ScenarioPart, make, self._inputs(planned))
            self.scenarios.setdefault(planned.cell.cell_id, []).append(part.result)
            self.ui.advance("scenarios", number + 1, "")

    def _scenario(self, planned: PlannedCell, name: str) -> ScenarioPart:
        return measure(
            self.member(planned), name, self.profile, seed=self.request.seed, timeout_s=self.request.timeout_s
        )

    def _alive_here(self) -> list[PlannedCell]:
        here = [planned for planned in self.cells if planned.runs_on == "here"]
        return [planned for planned in here if planned.cell.cell_id not in self.failures]

    def _energy(self) -> None:
        """Read the energy of each living cell, in a process of its own; each result is kept as it comes."""
        alive = self._alive_here()
        if not self.request.energy or not alive:
            return
        self.ui.stage("energy", len(alive))
        for number, planned in enumerate(alive):
            cell_id = planned.cell.cell_id
            self.ui.advance("energy", number, _title(planned))
            key = sha256([self._inputs(planned), self.request.meter])
            make = partial(self._read_energy, planned)
            self.energy[cell_id] = self._part(planned, "energy", EnergyPart, make, key)
            self.ui.advance("energy", number + 1, "")

    def _read_energy(self, planned: PlannedCell) -> EnergyPart:
        return read_energy(
            self.member(planned),
            [item.device for item in self.checks[planned.cell.cell_id].placements],
            self.request.meter,
            self.profile,
            seed=self.request.seed,
            timeout_s=self.request.timeout_s,
        )

    # -- records

    def _record(self, block: Block, planned: PlannedCell) -> Record:
        record = self._make_record(block, planned)
        self.store.write_record(record)
        self.registry.record_written(record)
        return record

    def _make_record(self, block: Block, planned: PlannedCell) -> Record:
        cell_id = planned.cell.cell_id
        built = self.built[cell_id]
        failure = self.failures.get(cell_id)
        if failure is not None:
            return failed_record(planned, failure, self.context, built)
        anchor = block.anchor if block.anchor not in self.failures else None
        reason = planned.anchor_reason or ("" if anchor else self._why_no_anchor(planned))
        sets = self.store.sets(block.block_id)
        own = [item for item in sets if any(launch.cell_id == cell_id for launch in item.launches)]
        if not own and planned.runs_on != "emulator":
            lost = Failure("failed", "latency", "harness", "no launch-set of this cell finished")
            return failed_record(planned, lost, self.context, built)
        latency = summarise(cell_id, anchor, sets, self.profile) if own else None
        done = Finished(
            planned=planned,
            built=built,
            memory=self.memory[cell_id],
            check=self.checks[cell_id],
            latency=latency,
            roofline=self._floor(planned, latency) if latency and planned.runs_on == "here" else None,
            sets=tuple(self.store.set_name(item) for item in own),
            anchor=anchor,
            anchor_precision=self.built[anchor].artifact.realised if anchor else None,
            anchor_reason=reason,
            scenarios=tuple(self.scenarios.get(cell_id, ())),
            energy=self.energy[cell_id].result if cell_id in self.energy else None,
            robustness=self.robustness[cell_id].robustness if cell_id in self.robustness else None,
            layers=self.layers.get(cell_id),
            robustness_seconds=self.robustness[cell_id].seconds if cell_id in self.robustness else 0.0,
            host=self.fitness.facts(self.store.sets(), self.context.host_id),
            latency_seconds=sum(item.seconds / max(1, len(item.members)) for item in own),
        )
        return finished_record(done, self.context)

    def _floor(self, planned: PlannedCell, latency: Latency) -> Roofline | None:
        """Return the physical floor of a cell; ``None`` for targets that run no model."""
        cell_id, options = planned.cell.cell_id, planned.cell.options
        if self.floors is None or not self.registry.targets[planned.target.name].spec.ranked:
            return None
        return self.floors.of(
            self.built[cell_id].artifact,
            self.checks[cell_id].placements,
            self.built[cell_id].model.lineage,
            latency,
            batch=options.batch,
            threads=options.threads,
            sparsity=", ".join(self.context.sparsity(planned)) or "none",
        )

    def _why_no_anchor(self, planned: PlannedCell) -> str:
        anchor = planned.anchor or ""
        failure = self.failures.get(anchor) or self.lost.get(anchor)
        return "the anchor has no figures" if failure is None else f"the anchor is {failure.status}: {failure.reason}"


def _title(planned: PlannedCell) -> str:
    return f"{planned.labels['workload']} {planned.labels['method']} on {planned.labels['target']}"


def _title_of(plan: SetPlan, planned: Mapping[str, PlannedCell]) -> str:
    first = planned[plan.members[0]]
    where = "all targets" if plan.purpose == "link" else first.labels["target"]
    return f"{first.labels['workload']} on {where}, {len(plan.members)} cells"


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
    )


__all__ = ["Campaign"]
