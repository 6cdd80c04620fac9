"""The values that planning takes and gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from harness.codec import sha256
from harness.types import SCHEMA, Availability, Capabilities, Cell, Failure, RunsOn, Step

ANCHOR = "baseline"  # the method whose cells everything is compared with


@dataclass(frozen=True)
class Request:
    """What was asked for, as texts in the grammar; ``bench.toml`` is its lossless form.

    Attributes:
        workloads: Steps; empty for every workload that is a default.
        methods: Pipelines, with sweeps; empty for the default pipelines of every method.
        targets: Steps, or "all".
        threads: Counts, or "all" for every core that this process may use.
        python: Target name -> interpreter in which it lowers and runs.
        strict: A flag that puts a result in doubt also fails the run, and a cell that did not run as its label says.
        strict_share: How much of it has to, at least (0..1): of the MACs, where not known of the weights.
        timeout_s: Per step and per launch.
        stages: Each prefix of a pipeline is measured too.
        energy: The energy of an inference is read too, from the CPU's or GPU's counters or a meter's log.
        meter: Path of that log; empty for the counters.
        robustness: The test images are corrupted too.
        layers: Each operator's output is compared with the anchor's.
        scenarios: Measured by a load generator after the launch-sets: single_stream, offline, server, sustained.
    """

    workloads: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    targets: tuple[str, ...] = ("all",)
    profile: str = "quick"
    threads: tuple[str, ...] = ("1",)
    batches: tuple[int, ...] = (1,)
    seed: int = 0
    python: Mapping[str, str] = field(default_factory=dict)
    strict: bool = False
    timeout_s: float = 600.0
    memory_limit_bytes: int | None = None
    stages: bool = False
    scenarios: tuple[str, ...] = ()
    energy: bool = False
    meter: str = ""
    robustness: bool = False
    layers: bool = False
    strict_share: float = 0.9


@dataclass(frozen=True)
class TargetState:
    """What probing a target on this host gave; no capabilities where it is not available."""

    availability: Availability
    capabilities: Capabilities | None = None


@dataclass(frozen=True)
class Resolved:
    """A step with every parameter's value, and the plugin that offers it.

    Attributes:
        step: Holds the values that differ from the defaults: what the cell's hash sees.
        params: Holds all values.
    """

    step: Step
    name: str
    params: Mapping[str, Any]
    plugin: str


@dataclass(frozen=True)
class PlannedCell:
    """One row of a run: a cell with all that is needed to build and measure it, or why it cannot be.

    Attributes:
        labels: "workload", "method" and "target" in the grammar, for people.
        exporters: Names, in order, from the pipeline's last format to one that the target accepts.
        anchor: cell_id of the anchor (its own for an anchor); ``None`` with ``anchor_reason`` where there is none.
        impossible: Why the cell is not built; ``None`` where it is.
        predicted_s: Seconds this cell adds to the run; a step that cells share counts in the first of them.
        added: Not asked for; there because others are compared with it.
        control: cell_id of the cell of this plan that does the same by chance; empty where there is none.
        runs_on: Where its target runs models.
    """

    cell: Cell
    workload: Resolved
    pipeline: tuple[Resolved, ...]
    target: Resolved
    labels: Mapping[str, str]
    exporters: tuple[str, ...] = ()
    anchor: str | None = None
    anchor_reason: str = ""
    is_anchor: bool = False
    impossible: Failure | None = None
    predicted_s: float = 0.0
    added: bool = False
    control: str = ""
    runs_on: RunsOn = "here"

    @cached_property
    def cell_id(self) -> str:
        """The cell's hash."""
        return self.cell.cell_id


@dataclass(frozen=True)
class Plan:
    """All rows of a run, in the order in which they are reported."""

    request: Request
    cells: tuple[PlannedCell, ...]

    @cached_property
    def plan_sha256(self) -> str:
        """A hash of what is measured and how: a run of an equal plan may be resumed.

        Availability and the timeout are left out, so that a retry after installing something, or with more time,
        resumes too. Under another memory limit a cell is another measurement.
        """
        rows = [
            [c.cell_id, c.workload.params, [step.params for step in c.pipeline], c.target.params] for c in self.cells
        ]
        asked = self.request
        return sha256(
            {
                "schema": SCHEMA,
                "profile": asked.profile,
                "python": dict(asked.python),
                "memory_limit_bytes": asked.memory_limit_bytes,
                "cells": rows,
            }
        )

    @property
    def predicted_s(self) -> float:
        """Seconds that the run takes with nothing cached, each shared step counted once."""
        return sum(cell.predicted_s for cell in self.cells)
