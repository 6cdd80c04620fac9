"""What plugins offer and what they are given: descriptors that hold typed functions."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, TypeVar, runtime_checkable

from harness.explain import KnownError
from harness.inspection import Finding
from harness.types import (
    Artifact,
    Asked,
    Availability,
    Capabilities,
    Model,
    Options,
    Placement,
    Precision,
    Purpose,
    RunsOn,
    SplitName,
    TensorSpec,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]
    Arrays = Mapping[str, Array]

P = TypeVar("P")
Task = Literal["classification", "regression", "none"]


@dataclass(frozen=True)
class Split:
    """Items of one split.

    Attributes:
        inputs: Array by input name, items first: shape [n, …].
        labels: Shape [n, …]; ``None`` where there are none.
    """

    inputs: Arrays
    labels: Array | None = None


class Data(Protocol):
    """The workload's data as a build step sees it; asking for the test split raises ``PluginError``."""

    def split(self, name: SplitName) -> Split:
        """Return a split, memory-mapped and read-only."""
        ...


class WorkloadView(Protocol):
    """What a method may know of the workload it compresses."""

    @property
    def name(self) -> str:
        """Name of the workload."""
        ...

    @property
    def task(self) -> str:
        """classification, regression or none."""
        ...

    @property
    def inputs(self) -> Mapping[str, TensorSpec]:
        """Inputs in call order, batch dimension first."""
        ...

    @property
    def outputs(self) -> tuple[str, ...]:
        """Output names in order."""
        ...

    @property
    def higher_is_better(self) -> bool:
        """Direction of the metric."""
        ...

    @property
    def augment(self) -> Callable[[Any, Any], Any] | None:
        """(torch inputs in call order, torch.Generator) -> inputs of a varied training batch; ``None`` without any."""
        ...

    def build(self, *, width: float = 1.0, depth: float = 1.0) -> Any:
        """Return a fresh untrained ``torch.nn.Module``; raises ``Unsupported`` where the workload has only a file."""
        ...

    def loss(self, outputs: Any, labels: Any) -> Any:
        """Return the task loss of torch tensors; raises ``Unsupported`` where the workload has no labels."""
        ...

    def score(self, outputs: Arrays, labels: Array) -> Array:
        """Return per-item statistics of shape [n, k]."""
        ...

    def aggregate(self, scores: Array) -> float:
        """Reduce per-item statistics to the metric."""
        ...


@dataclass(frozen=True)
class Job:
    """All that a build step is given: a plugin sees no registry, no store and no command line.

    Attributes:
        out: An empty folder; whatever the step writes goes here.
        seed: Seed every random generator with it.
        threads: CPU threads that the step may use.
        data: Splits of the workload's items.
        workload: What the step may know of the workload.
        hardware: The capability fields that the method declared in ``reads``, as attributes;
            any other raises ``PluginError`` naming the field. ``None`` for fit and export.
        reference: The workload's trained model; ``None`` while fitting.
        progress: Call with the share done (0..1) and a few words.
        log: For messages to the author; users see them with the step that failed.
    """

    out: Path
    seed: int
    threads: int
    data: Data
    workload: WorkloadView
    progress: Callable[[float, str], None]
    log: logging.Logger
    hardware: Any = None
    reference: Model | None = None


@dataclass(frozen=True)
class Examined:
    """What a sample's author counts in a model, apart from what the step that made it says.

    Attributes:
        parameters: Elements of all parameters.
        nonzero_parameters: Of these, the ones that are not zero.
        macs: Multiply-accumulates per item; ``None`` where they cannot be counted.
        foreign_layers: Classes of layers with parameters that a later step or exporter need not know.
    """

    parameters: int
    nonzero_parameters: int
    macs: int | None = None
    foreign_layers: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What makes a workload a test model of the conformance kit (``harness plugins check``).

    Attributes:
        exercises: The layer kind in it, such as "conv", "dense", "recurrent", "attention".
        run: Model and arrays by input name -> outputs by name: the reference that targets are compared with.
        examine: Model and arrays by input name -> what is in it, counted afresh.
    """

    exercises: str
    run: Callable[[Model, Arrays], Arrays]
    examine: Callable[[Model, Arrays], Examined]


@dataclass(frozen=True, kw_only=True)
class WorkloadSpec(Generic[P]):
    """A model to compress, with the data that trains, calibrates and judges it.

    Attributes:
        name: kebab-case.
        modality: "image", "sequence", "tabular", "pairs", "file" …
        summary: One line, for ``harness workloads``.
        params: Frozen dataclass of parameters (see ``harness.api.param``).
        inputs: Params -> arrays by input name in call order, batch dimension first and ``None``.
        outputs: Names of the outputs in order, or params -> names.
        fit: Train, or load, and save the model into ``job.out``.
        split: Params and split name -> items; deterministic, disjoint between names.
        task: Decides how two models are compared: by items that flip, or by the metric alone; a function of the params
            where they decide.
        classes_axis: Axis of the classes in the outputs of a classification, items first. A function of the params
            where the user declares it: then it is that of the first output, and ``None`` stands for one that is
            [n, classes] or holds the choice itself, [n] integers; others are compared as values alone.
        metric: Its name on the board.
        score: Model outputs by name and labels -> per-item statistics [n, k], numpy only;
            ``None`` where there are no labels: then fidelity to the anchor is measured.
        aggregate: Per-item statistics [n, k] -> the metric.
        unit: Of the metric; "%" means that ``aggregate`` returns a share, 0..1.
        higher_is_better: Direction of the metric.
        interval: "wilson" where the statistic is one 0/1 column, else "bootstrap".
        model: (params, *, width, depth) -> untrained torch.nn.Module.
        loss: Torch outputs and labels -> scalar loss.
        augment: (params, torch inputs in call order, torch.Generator) -> inputs of the same shapes: how a training
            batch is varied. For ``fit``, and for methods that train a network from the start.
        produces: Format of the fitted model.
        labelled: Whether there are labels; a function of the params where they decide.
        fingerprint: Content hash of files that the parameters point to, for the cache key.
        flags: Shown on every cell, such as "synthetic_weights".
        default: Whether a run that names no workload includes it.
        sample: Set where it is a test model of the conformance kit.
        known_gaps: Check, or "check:sample", of the conformance kit that fails -> why; a closed gap is a failure.
    """

    name: str
    modality: str
    summary: str
    params: type[P]
    inputs: Callable[[P], Mapping[str, TensorSpec]]
    outputs: tuple[str, ...] | Callable[[P], tuple[str, ...]]
    fit: Callable[[P, Job], Model]
    split: Callable[[P, SplitName], Split]
    task: Task | Callable[[P], Task] = "classification"
    classes_axis: int | Callable[[P], int | None] = -1
    metric: str = "accuracy"
    unit: str = "%"
    higher_is_better: bool = True
    interval: Literal["wilson", "bootstrap"] = "wilson"
    score: Callable[[Arrays, Array], Array] | None = None
    aggregate: Callable[[Array], float] | None = None
    model: Callable[..., Any] | None = None
    loss: Callable[[Any, Any], Any] | None = None
    augment: Callable[[P, Any, Any], Any] | None = None
    produces: str | Callable[[P], str] = "torch"
    labelled: bool | Callable[[P], bool] = True
    fingerprint: Callable[[P], str] | None = None
    flags: tuple[str, ...] = ()
    default: bool = False
    sample: Sample | None = None
    known_gaps: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class MethodSpec(Generic[P]):
    """A compression method: one step of a pipeline.

    Attributes:
        name: kebab-case, as users type it.
        family: "pruning", "quantization", "binarization", "distillation", "decomposition", "restructuring", "none".
        summary: One line, for ``harness methods``.
        params: Frozen dataclass of parameters (see ``harness.api.param``).
        compress: Model in, model out; writes only into ``job.out``.
        consumes: Formats it takes; empty means any (a method that only asks for a precision).
        produces: Format it leaves; ``None`` means the one it took.
        needs: Any of "training" (labelled train split and loss), "calibration", "selection" (that split, labelled),
            "torch-model"; a function of the params where they decide. Where the data lack such items, nothing is built.
        check: Params -> what is wrong with their combination, in one sentence, or ``None``; asked before anything runs.
        reads: Capability fields that it adapts to; targets that agree in them share one build.
        wants: Params -> the precision it asks a target for, so that the plan can say "not applicable".
        asks: Params -> what they ask for, in words and in the counts that should fall, so that a board can hold it
            against what was achieved; without it, the precision that it ``wants`` is told.
        after, before, conflicts: Method names or families.
        control: Parameters with which the method goes by chance; a board says of a cell of the same run that does not
            beat it.
        defaults: Pipelines that a run without ``--methods`` measures; ``None`` means the method alone.
        techniques: Names of the techniques that it carries, such as "knowledge distillation": a row each of ``harness
            methods --table``. One that a parameter makes names it, "bit widths:bits", or its value too,
            "gradient importance:importance=taylor".
        exact: The model that it leaves computes the same function: in float32, answers that differ are wrong.
        changes: What it makes less or other: any of "parameters", "nonzero_parameters", "macs", "precision",
            "weights", "parts"; the conformance kit counts. Empty means what its family stands for.
        known_gaps: Check, or "check:sample", of the conformance kit that fails -> why; a closed gap is a failure.
    """

    name: str
    family: str
    summary: str
    params: type[P]
    compress: Callable[[Model, P, Job], Model]
    consumes: frozenset[str] = frozenset({"torch"})
    produces: str | None = None
    needs: frozenset[str] | Callable[[P], frozenset[str]] = frozenset()
    check: Callable[[P], str | None] | None = None
    reads: frozenset[str] = frozenset()
    wants: Callable[[P], Precision] | None = None
    asks: Callable[[P], Asked] | None = None
    after: frozenset[str] = frozenset()
    before: frozenset[str] = frozenset()
    conflicts: frozenset[str] = frozenset()
    control: Mapping[str, Any] = field(default_factory=dict)
    defaults: tuple[str, ...] | None = None
    techniques: tuple[str, ...] = ()
    exact: bool = False
    changes: frozenset[str] = frozenset()
    known_gaps: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ExporterSpec:
    """A way from one model format to another; the plan chains them from a model to what a target accepts.

    Attributes:
        name: kebab-case.
        summary: One line.
        consumes, produces: Formats, such as "torch" and "onnx".
        export: Model, options and job -> the model in the other format, written into ``job.out``.
        reads: Which options change the file: subset of {"batch"}.
        extra: The extra of our distribution that installs what it needs.
        known_errors: Causes that can be told from what it raises, for one sentence in the user's words.
        known_gaps: Check, or "check:sample", of the conformance kit that fails -> why; a closed gap is a failure.
    """

    name: str
    summary: str
    consumes: str
    produces: str
    export: Callable[[Model, Options, Job], Model]
    reads: frozenset[str] = frozenset()
    extra: str = ""
    known_errors: tuple[KnownError, ...] = ()
    known_gaps: Mapping[str, str] = field(default_factory=dict)


@runtime_checkable
class Oracle(Protocol):
    """A model opened in what defines its answers."""

    @property
    def label(self) -> str:
        """Which program answers, such as "torch eager"."""
        ...

    def run(self, inputs: Arrays) -> Arrays:
        """Run one batch: arrays by input name -> arrays by output name, as ``Model.inputs`` and ``outputs`` say."""
        ...


@dataclass(frozen=True, kw_only=True)
class OracleSpec:
    """A framework that defines what a model of one format answers; runtimes are judged against it.

    Attributes:
        name: kebab-case.
        summary: One line.
        consumes: Format of the models that it runs, such as "torch".
        open: Model and job -> oracles, the most trusted one first. One that fails, or that would take too long over
            the items, is passed over for the next; where all are slow, the last one takes its time.
        batch: Items per call, where the model takes any number.
        extra: The extra of our distribution that installs what it needs.
        known_gaps: Check, or "check:sample", of the conformance kit that fails -> why; a closed gap is a failure.
    """

    name: str
    summary: str
    consumes: str
    open: Callable[[Model, Job], Iterable[Oracle]]
    batch: int = 32
    extra: str = ""
    known_gaps: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ToolRun:
    """What a vendor's tool is asked to time.

    Attributes:
        artifact: A float32 file of the target, at its default parameters.
        shapes: Input name -> all sizes, with the batch first.
        seconds: To measure for.
        cpu: The one to run on, with one thread.
        environment: For the tool's process.
    """

    artifact: Artifact
    shapes: Mapping[str, tuple[int, ...]]
    seconds: float
    cpu: int
    environment: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class VendorTool:
    """A vendor's own benchmark of its runtime, which ``harness selftest`` holds our times against.

    Attributes:
        name: For people, such as "benchmark_app".
        median_ns: Median time of an inference, one after another, in ns. Raises ``MissingDependency`` where the tool is
            not installed, and ``HarnessError`` where it gives no time.
        bound: Its inputs are handed over once, before the time is taken.
    """

    name: str
    median_ns: Callable[[ToolRun], float]
    bound: bool = False


@dataclass(frozen=True, kw_only=True)
class TargetSpec(Generic[P]):
    """A runtime on a device.

    Attributes:
        name: kebab-case, as users type it.
        summary: One line, for ``harness targets``.
        params: Frozen dataclass of parameters (see ``harness.api.param``).
        accepts: Formats that ``lower`` takes.
        probe: Build and run a one-op model; never raises for what is merely missing.
        capabilities: What it can do on this host.
        lower: Files in, file out, no torch: quantize natively; cached.
        lower_reads: Which options change the artifact: subset of {"batch", "threads"}.
        open: The only call that imports the runtime.
        packages: Distributions whose versions decide whether a stored result may be reused.
        extra: The extra of our distribution that installs it.
        ranked: False for targets that run no model, such as ``null``.
        framework: Not read any more: what a runtime adds is told against the oracle of the model's format.
        known_errors: Causes that can be told from what the runtime raises, for one sentence in the user's words.
        default: Whether "all" includes it.
        known_gaps: Check, or "check:sample", of the conformance kit that fails -> why; a closed gap is a failure.
        runs_on: Params -> where models run; ``None`` for "here". What an "emulator" ran has outputs and placements,
            no latency and no memory. A "device" is another machine: its session takes the time (``SupportsClock``),
            this host's memory says nothing of it, and it is never linked to targets here.
        examine: Model in a format that it accepts, with the precision that is asked for, and params -> what stands in
            the way or stays behind, such as nothing to quantize. It loads the model as it is and builds nothing; what
            a runtime raises then is the answer, told by ``known_errors``.
        environment: Variables that the runtime reads, as patterns such as "ANDROID_*": the processes that probe, build
            and measure inherit them, which they do of no variable beside a general list (``harness.environment``).
        vendor_tools: Of its vendor, for ``harness selftest``.
    """

    name: str
    summary: str
    params: type[P]
    accepts: frozenset[str]
    probe: Callable[[P], Availability]
    capabilities: Callable[[P], Capabilities]
    lower: Callable[[Model, P, Options, Job], Artifact]
    open: Callable[[Artifact, P, Options, Purpose], Session]
    lower_reads: frozenset[str] = frozenset()
    packages: tuple[str, ...] = ()
    extra: str = ""
    ranked: bool = True
    default: bool = True
    framework: bool = False
    known_errors: tuple[KnownError, ...] = ()
    known_gaps: Mapping[str, str] = field(default_factory=dict)
    runs_on: Callable[[P], RunsOn] | None = None
    examine: Callable[[Model, P], tuple[Finding, ...]] | None = None
    environment: tuple[str, ...] = ()
    vendor_tools: tuple[VendorTool, ...] = ()


@runtime_checkable
class Session(Protocol):
    """A loaded model; what the ``Supports…`` protocols ask for is optional."""

    @property
    def inputs(self) -> Mapping[str, TensorSpec]:
        """Inputs by name; ``None`` dimensions are dynamic."""
        ...

    @property
    def outputs(self) -> Mapping[str, TensorSpec]:
        """Outputs by name."""
        ...

    def run(self, inputs: Arrays) -> Arrays:
        """Run once, synchronously, host arrays in and out."""
        ...

    def close(self) -> None:
        """Free all that the session holds."""
        ...


@runtime_checkable
class SupportsBind(Protocol):
    """A session that can run with inputs bound before."""

    def bind(self, inputs: Arrays) -> Callable[[], None]:
        """Return a call that runs on these inputs, compute only."""
        ...


@runtime_checkable
class SupportsPlacements(Protocol):
    """A session that knows what ran where; opened with purpose "placement"."""

    def placements(self) -> tuple[Placement, ...]:
        """Return one entry per executed operator; ``run`` was called before."""
        ...


@runtime_checkable
class SupportsEffective(Protocol):
    """A session that can read its options back from the runtime."""

    def effective(self) -> Mapping[str, str]:
        """Return option -> value in force (threads, precision hints, device)."""
        ...


@runtime_checkable
class SupportsClock(Protocol):
    """A session on another machine, whose clock takes the time: the way there and back does not count."""

    def clocked_ns(self, inputs: Arrays, runs: int) -> int:
        """Run some times on these inputs and return the mean nanoseconds of one run."""
        ...


@dataclass(frozen=True)
class LayerOutput:
    """What one operator gave for one call.

    Attributes:
        name: Of its tensor: the same in a model's float file and in those that are compressed from it.
        op: Operator type, such as "Conv".
        values: Floats, whatever the operator computes in.
    """

    name: str
    op: str
    values: Array


@runtime_checkable
class SupportsLayers(Protocol):
    """A session that tells what its operators give, for ``harness bench --layers``; nothing is timed then."""

    def layers(self, inputs: Arrays) -> Iterable[LayerOutput]:
        """Run once and return each operator's output, in running order; raises ``Unsupported`` where it cannot."""
        ...


@runtime_checkable
class SupportsDeviceMemory(Protocol):
    """A session on a device with memory of its own."""

    def device_memory_bytes(self) -> int:
        """Return the bytes that this session holds on the device."""
        ...


@dataclass(frozen=True)
class NoParams:
    """For offers without parameters."""


@dataclass(frozen=True)
class Offer(Generic[P]):
    """A spec with where it came from."""

    spec: P
    plugin: str
    distribution: str
    version: str
    source_sha256: str = field(default="", compare=False)
