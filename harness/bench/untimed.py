"""The untimed launches of a campaign: memory, accuracy and placement of every cell."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from harness.bench.blocks import Block
from harness.bench.quality import Judge
from harness.bench.records import CheckPart, MemoryPart
from harness.bench.shared import Shared, title
from harness.measure import measure_memory
from harness.plan import PlannedCell
from harness.types import Memory


@dataclass
class Untimed:
    """Runs each cell once for its memory and once for its outputs.

    Attributes:
        memory: Part of each cell, by cell_id.
        checks: The same; a cell whose memory launch failed has none.
    """

    shared: Shared
    memory: dict[str, MemoryPart] = field(default_factory=dict)
    checks: dict[str, CheckPart] = field(default_factory=dict)

    def run(self, blocks: tuple[Block, ...]) -> None:
        """Launch every cell; one that fails is in ``shared.failures`` from then on."""
        self.shared.ui.stage("memory and accuracy", sum(len(block.cells) for block in blocks))
        for number, block in enumerate(blocks):
            self._block(block, sum(len(other.cells) for other in blocks[:number]))

    def _block(self, block: Block, before: int) -> None:
        shared = self.shared
        with tempfile.TemporaryDirectory(prefix="harness-") as scratch:
            judge = Judge(shared.registry, shared.store, shared.context, shared.request, Path(scratch))
            if block.anchor is not None:
                judge.recall = partial(self._recall, judge, block.cells[0])
            for offset, planned in enumerate(block.cells):
                cell_id = planned.cell.cell_id
                shared.ui.advance("memory and accuracy", before + offset, title(planned))
                self.memory[cell_id] = self._memory_part(planned)
                if self.memory[cell_id].failure is None:
                    make = partial(self._check, judge, planned, block)
                    against = shared.against(block, cell_id)
                    self.checks[cell_id] = shared.part(planned, "check", CheckPart, make, against)
                failure = self.memory[cell_id].failure or self.checks[cell_id].failure
                if failure is not None:
                    shared.failures[cell_id] = failure
        shared.ui.advance("memory and accuracy", before + len(block.cells), "")

    def _recall(self, judge: Judge, anchor: PlannedCell) -> Mapping[str, Path]:
        """Return the anchor's outputs once more, unless it failed before its variants were asked."""
        if anchor.cell.cell_id in self.shared.failures:
            return {}
        return judge.outputs(anchor, self.shared.member(anchor), self.shared.built[anchor.cell.cell_id])

    def _check(self, judge: Judge, planned: PlannedCell, block: Block) -> CheckPart:
        return judge.check(planned, self.shared.member(planned), self.shared.built[planned.cell.cell_id], block)

    def _memory_part(self, planned: PlannedCell) -> MemoryPart:
        if planned.runs_on != "here":
            return MemoryPart()  # this host's memory says nothing about a model that is elsewhere
        shared = self.shared
        return shared.part(planned, "memory", MemoryPart, partial(self._memory, planned), shared.inputs(planned))

    def _memory(self, planned: PlannedCell) -> MemoryPart:
        request = self.shared.request
        started = time.monotonic()
        result = measure_memory(
            self.shared.member(planned),
            self.shared.profile,
            timeout_s=request.timeout_s,
            memory_limit_bytes=request.memory_limit_bytes,
        )
        seconds = time.monotonic() - started
        if isinstance(result, Memory):
            return MemoryPart(memory=result, seconds=seconds)
        return MemoryPart(failure=result, seconds=seconds)
