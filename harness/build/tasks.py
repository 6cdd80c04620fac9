"""What the parent and a builder say to each other: one JSON value a line, over the builder's own pipes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from harness.inspection import Finding, Inspected
from harness.runtime_bugs import Outcome
from harness.types import Availability, Capabilities, Failure, Model, Options, Precision, Stage

PROTOCOL = 2
StepStage = Literal["data", "fit", "compress", "export", "lower", "reference"]

# Stage of a step -> the kind of offer that does its work.
KIND: Mapping[StepStage, str] = {
    "data": "workload",
    "fit": "workload",
    "compress": "method",
    "export": "exporter",
    "lower": "target",
    "reference": "oracle",
}

# Stage of a step -> what could not be done where it fails.
_DOING: Mapping[StepStage, str] = {
    "data": "workload {name} could not give its data",
    "fit": "workload {name} could not give its model",
    "compress": "{name} could not compress the model",
    "export": "{name} could not export the model",
    "lower": "{name} could not build the model",
    "reference": "{name} could not give the reference outputs",
}


@dataclass(frozen=True)
class Use:
    """A plugin's offer with all its parameters."""

    plugin: str
    name: str
    params: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Task:
    """One step to run and to publish in the cache under ``key``.

    Attributes:
        use: The offer that does the work: the workload itself for data and fit.
        data_key: Entry of the workload's data, or of the pack that holds it; ``None`` for the data step.
        hardware: Capability fields that the step may see, as JSON.
        inputs: What the key was made from.
        memory_limit_bytes: What the step may take beside what its builder holds, and again an artifact that is opened.
        reader: Who tells whether the weights of the model that a method gives are numbers.
    """

    stage: StepStage
    key: str
    label: str
    use: Use
    workload: Use
    seed: int
    threads: int
    cache: str
    data_key: str | None = None
    model: Model | None = None
    reference: Model | None = None
    options: Options = field(default_factory=Options)
    hardware: Mapping[str, Any] | None = None
    inputs: Any = None
    memory_limit_bytes: int | None = None
    reader: Use | None = None


@dataclass(frozen=True)
class Probe:
    """Ask a target whether it runs here."""

    use: Use


@dataclass(frozen=True)
class About:
    """Ask for versions: of distributions, and of a plugin's source."""

    packages: tuple[str, ...]
    plugin: str


@dataclass(frozen=True)
class Inspect:
    """Ask what a workload's model holds.

    Attributes:
        workload: Its model is made in ``folder`` and stays there.
        readers: Format -> the offer that reads it.
        file: What the model came from, to be read as it is; empty where it came from no file.
    """

    workload: Use
    readers: Mapping[str, Use]
    folder: str
    file: str = ""


@dataclass(frozen=True)
class Examine:
    """Ask a target about a model, once for each precision; ``None`` is the model's own.

    Attributes:
        exporters: The way from the model's format to one that the target accepts.
    """

    use: Use
    workload: Use
    model: Model
    exporters: tuple[Use, ...]
    precisions: tuple[Precision | None, ...]


@dataclass(frozen=True)
class Provoke:
    """Ask what a runtime answers where it is said to have a bug."""

    use: Use


@dataclass(frozen=True)
class Request:
    """A line to the builder; one field is set."""

    task: Task | None = None
    probe: Probe | None = None
    about: About | None = None
    inspect: Inspect | None = None
    examine: Examine | None = None
    provoke: Provoke | None = None


@dataclass(frozen=True)
class Hello:
    """The builder's first line: who answers."""

    protocol: int
    harness: str
    python: str


@dataclass(frozen=True)
class Progress:
    """How far a step is."""

    fraction: float
    text: str


@dataclass(frozen=True)
class Probed:
    """A target's answer."""

    availability: Availability
    capabilities: Capabilities | None = None


@dataclass(frozen=True)
class Seen:
    """What ``Inspect`` found.

    Attributes:
        model: As targets get it.
        inputs: Names in call order.
        shapes: Of each input for one item, where known.
        items: That the data hold; 0 without data.
        given: What the file holds as it came.
        prepared: What the model holds as targets get it; both are ``None`` where no plugin reads the format.
        problem: Why it cannot be prepared for targets; then ``model`` is the file as it came.
    """

    model: Model
    inputs: tuple[str, ...]
    shapes: Mapping[str, tuple[int, ...]]
    items: int
    given: Inspected | None
    prepared: Inspected | None
    problem: str = ""


@dataclass(frozen=True)
class Provoked:
    """What came of a bug.

    Attributes:
        version: Of the runtime; empty where it is not installed.
        reason: What is wrong, or why there is no answer.
    """

    outcome: Outcome
    version: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Versions:
    """Versions in a builder's interpreter."""

    packages: Mapping[str, str]
    plugin_version: str
    source_sha256: str


@dataclass(frozen=True)
class Reply:
    """A line from the builder; one field is set.

    Attributes:
        built: Seconds that the step took.
        failure: Why it did not succeed; its stage is the step's.
    """

    hello: Hello | None = None
    progress: Progress | None = None
    built: float | None = None
    failure: Failure | None = None
    probed: Probed | None = None
    versions: Versions | None = None
    seen: Seen | None = None
    findings: tuple[tuple[Finding, ...], ...] | None = None
    provoked: Provoked | None = None


def doing(stage: StepStage, name: str) -> str:
    """Say what a step could not do, for the sentence that tells why."""
    return _DOING[stage].format(name=name)


def failure_stage(stage: StepStage) -> Stage:
    """Return the stage that a record names: the data belong to the fit, the reference to the accuracy."""
    if stage == "reference":
        return "accuracy"
    return "fit" if stage == "data" else stage
