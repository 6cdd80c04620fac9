"""Who takes part in a launch, and the messages that describe it to a worker."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.types import Artifact, Options, Step, TensorSpec


@dataclass(frozen=True)
class Member:
    """One cell as a worker needs it.

    Attributes:
        plugin: Entry-point name of the plugin that offers the target; the only one that the worker imports.
        params: All parameters of the target, by name.
        python: Interpreter that has the target's runtime; ``None`` for the one that runs this.
        evaluation: Folder with an array for each input: the items that are measured on, constants and first states.
        inputs: As the model declares them, with their roles; one that is not named holds items on its first dimension.
        axes: Of the outputs, as ``Model.axes``.
    """

    cell_id: str
    plugin: str
    target: Step
    params: Mapping[str, Any]
    artifact: Artifact
    options: Options
    evaluation: Path
    python: str | None = None
    inputs: Mapping[str, TensorSpec] = field(default_factory=dict)
    axes: Mapping[str, int | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Setup:
    """What a worker is told before it opens anything.

    Attributes:
        cpus: Pin to these before the runtime is imported; empty leaves the affinity alone.
        memory_limit_bytes: For RLIMIT_DATA; ``None`` for none.
        distinct_inputs: Real items that are rotated through.
    """

    member: Member
    purpose: str
    stage: str
    seed: int
    cpus: tuple[int, ...] = ()
    memory_limit_bytes: int | None = None
    distinct_inputs: int = 64


@dataclass(frozen=True)
class WarmUp:
    """Budgets of the warm-up and of a batch, from the profile."""

    iterations: int
    ns: int
    max_ns: int
    batch_iterations: int
    batch_ns: int
    batch_max_ns: int


@dataclass(frozen=True)
class Warmed:
    """How the warm-up ended."""

    iterations: int
    ns: int
    steady: bool
    inner_loops: int
    clock_ns: float


@dataclass(frozen=True)
class Opened:
    """A session after its first inference.

    Attributes:
        own_clock: Another machine runs the model and takes the time.
    """

    load_ns: int
    first_ns: int
    affinity: tuple[int, ...]
    effective: Mapping[str, str] = field(default_factory=dict)
    own_clock: bool = False
