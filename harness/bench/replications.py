"""The launch-sets of a campaign: replications in which every cell is timed beside its anchor."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from harness.bench.blocks import Block, Room, SetPlan, link_plans, set_plans
from harness.bench.fitness import Fitness
from harness.bench.records import MemoryPart
from harness.bench.shared import Shared
from harness.measure import Member, run_set
from harness.measure.isolate import available_bytes
from harness.plan import PlannedCell
from harness.stats import narrow, summarise
from harness.types import LaunchSet

RAM_SHARE = 0.6  # of the memory that is free now may be taken by the members of one set
SETS_ADDED = 5  # at a time, while intervals are wide


@dataclass
class Replications:
    """Runs the launch-sets that are due, and keeps each as it ends.

    Attributes:
        memory: What each cell takes at its peak, by cell_id.
        unlinked: Anchors that failed beside those of other targets: their own sets go on.
        done: Launch-sets finished, by the stage that is shown.
    """

    shared: Shared
    fitness: Fitness
    memory: Mapping[str, MemoryPart]
    unlinked: set[str] = field(default_factory=set)
    done: Counter[str] = field(default_factory=Counter)

    def run(self, blocks: tuple[Block, ...]) -> None:
        """Run the replications; in each, every block and every link is visited once, so drift hits all alike."""
        shared = self.shared
        for stored in shared.store.sets():
            if stored.purpose == "link" or stored.group in {block.block_id for block in blocks}:
                self._learn(stored)
        planned = sum(len(self._due(blocks, replication)) for replication in range(shared.profile.sets))
        shared.ui.stage("latency", planned)
        for replication in range(shared.profile.sets):
            self._run_all("latency", self._due(blocks, replication), blocks)
        self._add_sets(blocks)

    def _add_sets(self, blocks: tuple[Block, ...]) -> None:
        """Give groups with wide intervals more launch-sets, in steps, until they are narrow or their budget is spent.

        It stops on the width of intervals, never on significance (MEASUREMENT.md section 1.8).
        """
        shared = self.shared
        for first in range(shared.profile.sets, shared.profile.sets_max, SETS_ADDED):
            wide = tuple(block for block in blocks if self._too_wide(block))
            if not wide:
                return
            more = range(first, min(first + SETS_ADDED, shared.profile.sets_max))
            shared.ui.note(f"{len(wide)} groups have wide intervals: {len(more)} more launch-sets each")
            stage = f"latency, sets {more.start + 1} to {more.stop}"
            shared.ui.stage(stage, sum(len(self._due(wide, replication)) for replication in more))
            for replication in more:
                self._run_all(stage, self._due(wide, replication), blocks)

    def _too_wide(self, block: Block) -> bool:
        shared, profile = self.shared, self.shared.profile
        done = shared.store.sets(block.block_id)
        spent = sum(item.seconds for item in done) / max(1, len(shared.alive(block)))
        if spent > profile.cell_seconds:
            return False
        return any(not narrow(summarise(name, block.anchor, done, profile), profile) for name in shared.alive(block))

    def _due(self, blocks: tuple[Block, ...], replication: int) -> list[SetPlan]:
        shared = self.shared
        room, seed = self._room(), shared.request.seed
        plans: list[SetPlan] = []
        for block in blocks:
            done = shared.store.sets(block.block_id)
            plans += set_plans(block, shared.alive(block), replication, shared.profile, seed, room, done)
        here = [block for block in blocks if block.cells[0].runs_on == "here"]
        ranked = [block for block in here if shared.registry.targets[block.cells[0].target.name].spec.ranked]
        alive = {cell_id for block in ranked for cell_id in shared.alive(block)} - self.unlinked
        stored = {(item.group, item.index) for item in shared.store.sets() if item.purpose == "link"}
        return plans + link_plans(ranked, alive, replication, room, stored)

    def _room(self) -> Room:
        peaks = {cell_id: part.memory.peak_bytes for cell_id, part in self.memory.items() if part.memory}
        return Room(int(available_bytes() * RAM_SHARE), peaks)

    def _learn(self, stored: LaunchSet) -> None:
        if stored.purpose == "link":
            self.unlinked.update(stored.failures)
        else:
            self.shared.failures.update(stored.failures)

    def _run_all(self, stage: str, due: list[SetPlan], blocks: tuple[Block, ...]) -> None:
        shared = self.shared
        planned = {item.cell.cell_id: item for block in blocks for item in block.cells}
        for plan in due:
            alive = tuple(cell_id for cell_id in plan.members if cell_id not in shared.failures)
            shared.ui.advance(stage, self.done[stage], _title_of(plan, planned))
            if alive:
                finished = self._run_set(plan, [shared.member(planned[cell_id]) for cell_id in alive])
                failed = {cell_id: shared.store.keep_details(item) for cell_id, item in finished.failures.items()}
                finished = replace(finished, failures=failed)
                shared.store.write_set(finished)
                self._learn(finished)
                self.fitness.watch(finished, shared.ui.note)
            self.done[stage] += 1
            shared.ui.advance(stage, self.done[stage], "")

    def _run_set(self, plan: SetPlan, members: list[Member]) -> LaunchSet:
        shared = self.shared
        return run_set(
            plan.group,
            plan.index,
            plan.purpose,
            plan.anchor if plan.anchor not in shared.failures else None,
            members,
            shared.profile,
            seed=shared.request.seed,
            timeout_s=shared.request.timeout_s,
            memory_limit_bytes=shared.request.memory_limit_bytes,
        )


def _title_of(plan: SetPlan, planned: Mapping[str, PlannedCell]) -> str:
    first = planned[plan.members[0]]
    where = "all targets" if plan.purpose == "link" else first.labels["target"]
    return f"{first.labels['workload']} on {where}, {len(plan.members)} cells"
