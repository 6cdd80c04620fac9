"""The values of a search: what is asked for, what is varied, and what a trial gave."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from harness.types import LaunchSet, Status

OBJECTIVES = ("quality", "latency", "size", "stored")


@dataclass(frozen=True)
class TuneRequest:
    """What is searched, as texts in the grammar.

    Attributes:
        pipeline: One pipeline without sweeps; parameters that it gives are fixed.
        vary: "name=low..high", "name=low..high:log" or "name=a,b,c"; a name may be "step.name". Empty for every
            parameter whose declared range has both ends.
        objectives: Some of ``OBJECTIVES``.
        trials: In all, those of an interrupted search included.
        winners: Pipelines of the front that are measured again, at most.
        profile: Of that measurement.
    """

    workload: str
    pipeline: str
    target: str
    vary: tuple[str, ...] = ()
    objectives: tuple[str, ...] = ("quality", "latency", "size")
    trials: int = 20
    winners: int = 7
    profile: str = "quick"
    threads: str = "1"
    batch: int = 1
    seed: int = 0
    python: Mapping[str, str] = field(default_factory=dict)
    timeout_s: float = 600.0
    memory_limit_bytes: int | None = None


@dataclass(frozen=True)
class Axis:
    """One parameter that is varied.

    Attributes:
        name: "step.parameter", or the step's place in the pipeline (from 1) where its name occurs twice.
        step: Index in the pipeline.
        low, high: Of a number, both included.
        choices: Of anything else.
        default: The method's own; ``None`` where it lies outside.
    """

    name: str
    step: int
    param: str
    kind: Literal["float", "int", "choice"]
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    choices: tuple[Any, ...] = ()
    default: Any = None


@dataclass(frozen=True)
class Trial:
    """One point of the search, measured on the selection split: raw samples, and what they came to.

    Attributes:
        point: Value by axis.
        values: Value by objective; empty unless the status is ok.
        ratio: t(cell) / t(baseline), paired within rounds: the objective "latency".
        p50_ns: Median latency as it was then; the host drifts between trials, so ratios are compared.
        split: Whose items were run.
    """

    schema: int
    number: int
    pipeline: str
    point: Mapping[str, Any]
    status: Status
    values: Mapping[str, float] = field(default_factory=dict)
    quality: float | None = None
    items: int = 0
    ratio: float | None = None
    p50_ns: float | None = None
    artifact_bytes: int | None = None
    stored_bytes: int | None = None
    stage: str | None = None
    blame: str | None = None
    reason: str | None = None
    split: str = "selection"
    seconds: float = 0.0
    sets: tuple[LaunchSet, ...] = ()
    finished_utc: str = ""


@dataclass(frozen=True)
class Study:
    """A search: what was asked for, with what software on which host."""

    schema: int
    study_sha256: str
    request: TuneRequest
    axes: tuple[Axis, ...]
    higher_is_better: Mapping[str, bool]
    metric: str
    host_id: str
    harness_version: str
    packages: Mapping[str, str]
    started_utc: str
