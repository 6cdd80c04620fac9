"""The frozen values that flow through the house: standard-library types, units in names, JSON in and out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from harness.codec import sha256

Status = Literal["ok", "not-applicable", "unavailable", "failed", "timeout", "crashed", "oom"]
Stage = Literal["plan", "fit", "compress", "export", "lower", "memory", "accuracy", "placement", "latency"]
SplitName = Literal["train", "calibration", "selection", "test"]
Purpose = Literal["latency", "memory", "accuracy", "placement"]
Kind = Literal["measured", "estimated", "simulated", "inferred"]
RunsOn = Literal["here", "device", "emulator"]
Role = Literal["item", "constant", "state"]
NoiseVerdict = Literal["ok", "suspect", "noisy"]
SpeedVerdict = Literal["faster", "slower", "equivalent", "unresolved", "anchor", "no anchor"]

REPLICATION = 1000  # launch-set indices are replication * this + the number of the set within it
SCHEMA = 1  # of every stored value; a record of a newer schema is refused by name


@dataclass(frozen=True)
class TensorSpec:
    """A named array of a model or a session: numpy dtype name, shape, and how the items of the data lie in it.

    Attributes:
        dtype: Of numpy, by name: "float32", "int64" …
        shape: Of one call; ``None`` where a dimension is free. The first is the batch unless ``axis`` differs.
        role: "item": each item brings its own values. "constant": one array serves every call. "state": the array
            starts at its stored value, zeros unless the data hold another, and then takes what the output ``source``
            gave in the call before.
        axis: Dimension along which the items of a call are stacked; ``None`` where the array has none, so that a call
            takes one item ("item"), or the array does not depend on the batch ("constant", "state").
        source: Of a state: the output that is fed back into it.
    """

    dtype: str
    shape: tuple[int | None, ...]
    role: Role = "item"
    axis: int | None = 0
    source: str = ""


@dataclass(frozen=True)
class Step:
    """A plugin's offer by name with the parameters that were given (defaults are left out).

    Attributes:
        name: As users type it.
        params: Parameter -> value.
    """

    name: str
    params: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Options:
    """How a cell is measured.

    Attributes:
        threads: CPU threads that the runtime may use.
        batch: Items per inference.
        scenario: "single_stream", or one that a load generator drives: "offline", "server", "sustained".
        seed: Of every random generator in the cell.
    """

    threads: int = 1
    batch: int = 1
    scenario: str = "single_stream"
    seed: int = 0


@dataclass(frozen=True)
class Cell:
    """The request: workload x pipeline x target x options.

    Attributes:
        workload, target: Offers with the parameters that were given.
        pipeline: The method's steps in order.
        options: How it is measured.
    """

    workload: Step
    pipeline: tuple[Step, ...]
    target: Step
    options: Options = Options()

    @property
    def cell_id(self) -> str:
        """A hash of the request, equal across hosts and versions, so that history can pair cells."""
        return sha256(self)[:16]


@dataclass(frozen=True)
class Calibration:
    """How activation ranges are found: ``samples`` items of the calibration split, and the statistic.

    Attributes:
        method: How the range is taken from the values that are seen.
        samples: Items of the calibration split, at most.
    """

    method: Literal["minmax", "percentile", "entropy", "mse", "moving-average"] = "minmax"
    samples: int = 256


@dataclass(frozen=True)
class Precision:
    """What arithmetic is wanted; a target realises it natively unless ``realise`` is exact.

    Attributes:
        weights: "float32", "float16", "bfloat16", "int8", "int4", "binary" …
        activations: The same names; with scheme "dynamic" found at run time.
        scheme: "float", "static" (calibrated), "dynamic" or "weight-only".
        granularity: How many scales a weight has: one, or one for each output channel.
        weights_symmetric: Whether zero is the middle of the grid of weights.
        activations_symmetric: ``None`` leaves the choice to the target.
        calibration: How activation ranges are found; ``None`` where there are none to find.
        realise: "native" lets the target find its own best scales; "exact" binds it to ``encodings``.
        overrides: Dtype by parameter name: "float32" leaves a layer as it is; beside int4 weights a target may take
            "int8" too. A name that matches nothing, or a dtype that the target cannot give, is an error at lowering.
        encodings: A file of scales, zero points, ranges or codebooks that binds when ``realise`` is exact.
        storage: How the weights may be stored, for ``stored_bytes`` below the artifact's: "packed" (few bits each),
            "codebook" (few distinct values in a tensor) or "sparse" (zeros); a method sets it on the model it returns.
        pattern: Of the zeros in sparse storage, as in ``Capabilities.sparsity``, such as "2:4"; empty for none.
    """

    weights: str = "float32"
    activations: str = "float32"
    scheme: Literal["float", "static", "dynamic", "weight-only"] = "float"
    granularity: Literal["per-tensor", "per-channel"] = "per-channel"
    weights_symmetric: bool = True
    activations_symmetric: bool | None = None
    calibration: Calibration | None = None
    overrides: Mapping[str, str] = field(default_factory=dict)
    realise: Literal["native", "exact"] = "native"
    encodings: Path | None = None
    storage: Literal["dense", "packed", "codebook", "sparse"] = "dense"
    pattern: str = ""

    @property
    def name(self) -> str:
        """The key under which capabilities list it: float32, float16, int8, dynamic-int8, weight-only-int8."""
        return self.weights if self.scheme in {"float", "static"} else f"{self.scheme}-{self.weights}"


@dataclass(frozen=True)
class Asked:
    """What a step's parameters ask for, to be held against what it did.

    Attributes:
        words: Such as "0.5 of the channels".
        removes: Count in ``StepRecord.effect`` -> share (0..1) of it that is to go; empty where none is to.
    """

    words: str
    removes: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class StepRecord:
    """One step of a model's lineage, with its own effect.

    Attributes:
        stage: "fit", "compress" or "export".
        name: Of the workload, method or exporter.
        params: All parameters, defaults too.
        seed: That the step was given.
        seconds: That it took when it was built.
        plugin, version: Entry point of the plugin, and version of its distribution.
        effect: What the step measured about its result, such as ``selection_score``, ``parameters``,
            ``nonzero_parameters``, ``macs``.
        asked: What its parameters asked for, where its method says so.
        unchanged: The model that it gave is the one that it was given: the same file and precision.
    """

    stage: Stage
    name: str
    params: Mapping[str, Any]
    seed: int
    seconds: float
    plugin: str
    version: str
    effect: Mapping[str, float] = field(default_factory=dict)
    asked: Asked | None = None
    unchanged: bool = False


@dataclass(frozen=True)
class Model:
    """A model on disk between steps.

    Attributes:
        format: "torch", "onnx", "tflite" or a format that a plugin brings.
        path: The file, inside the job's folder or another entry of the cache.
        inputs: Array by name, in call order, batch dimension first (``None``).
        outputs: Names in order.
        precision: What the steps so far ask of a target.
        lineage: The steps that made it, first to last; harness adds them.
        names: Parameter name in the torch model -> tensor name in this file, where an exporter renamed it.
        flags: Facts that every cell made from it shows, such as "synthetic_weights".
        parts: Models that run one after another in its place, each taking by name what the inputs and the parts
            before it give; then ``path`` is the folder that holds them. Each is exported, lowered and timed alone.
        feeds: Of a part: folder of ``<input>.npy`` with what reaches it of the calibration split.
        axes: Output name -> dimension along which the items of a call are stacked, ``None`` where the output has none
            and belongs to the call as a whole; an output that is not named has them on dimension 0.
    """

    format: str
    path: Path
    inputs: Mapping[str, TensorSpec]
    outputs: tuple[str, ...]
    precision: Precision = Precision()
    lineage: tuple[StepRecord, ...] = ()
    names: Mapping[str, str] = field(default_factory=dict)
    flags: tuple[str, ...] = ()
    parts: tuple[Model, ...] = ()
    feeds: Path | None = None
    axes: Mapping[str, int | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Availability:
    """Whether a target runs here: a one-op model was built and run, or why not and what to install.

    Attributes:
        available: Whether it runs.
        reason: Why not, in a sentence.
        hint: What to do about it, such as a command.
        runtime, version: Of what runs, such as "onnxruntime" and "1.31.1".
        seconds: That the probe took.
        device: Stable facts of the machine that runs it where that is not this host, such as a phone's model; they
            stand among the host's facts, and a stored result of another device is not reused.
    """

    available: bool
    reason: str = ""
    hint: str = ""
    runtime: str = ""
    version: str = ""
    seconds: float = 0.0
    device: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Capabilities:
    """What a target can do on this host, as versioned data.

    Attributes:
        version: Of this data, such as "2026.11".
        precisions: Precision name -> how it is realised here.
        gaps: Precision name -> why this target cannot realise it; the plan prints it.
        float_precision: The widest float precision: what the anchor runs in.
        granularity: Kinds of weight scales that it has.
        symmetric_only: Whether zero must be the middle of the grid of activations.
        channel_multiple: Channel counts that are a multiple of this use full vector lanes.
        sparsity: Patterns that have a kernel, such as "2:4"; "unstructured" for zeros anywhere.
        devices: Such as "cpu", "cuda".
        dynamic_batch: Whether one artifact takes any batch.
        op_gaps: Operator -> what is known not to work.
        isa: Instruction sets that its kernels use here, such as "avx512_vnni".
        evidence: Field -> how it is known (probe, vendor page, CPU flag).
    """

    version: str
    precisions: Mapping[str, str]
    gaps: Mapping[str, str] = field(default_factory=dict)
    float_precision: str = "float32"
    granularity: tuple[str, ...] = ("per-tensor", "per-channel")
    symmetric_only: bool = False
    channel_multiple: int = 1
    sparsity: tuple[str, ...] = ()
    devices: tuple[str, ...] = ("cpu",)
    dynamic_batch: bool = True
    op_gaps: Mapping[str, str] = field(default_factory=dict)
    isa: tuple[str, ...] = ()
    evidence: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Artifact:
    """A file that a runtime loads.

    Attributes:
        path: Below ``job.out``; a folder where a model takes several files.
        format: Of the file, such as "onnx".
        sha256: Of the file; of a folder, of all files in it.
        realised: The precision that lowering produced, by name ("float32", "int8" …).
        how: One line: which quantizer with which settings made it.
        artifact_bytes: What the runtime loads: ranked.
        stored_bytes: What a disk or a download needs, where a tested decoder restores the artifact bit by bit.
        stored_as: How, such as "1-bit packed"; empty where it is the artifact itself.
        flags: Facts that the cell shows, such as "random_calibration".
        weight_bytes: Dtype -> bytes of the weights in the file, as they are stored; empty where not known.
        parts: Artifacts that run one after another; then ``path`` is the folder that holds them.
    """

    path: Path
    format: str
    sha256: str
    realised: str
    how: str
    artifact_bytes: int
    stored_bytes: int
    stored_as: str = ""
    flags: tuple[str, ...] = ()
    weight_bytes: Mapping[str, int] = field(default_factory=dict)
    parts: tuple[Artifact, ...] = ()


@dataclass(frozen=True)
class Placement:
    """One executed operator: which kernel ran it, where, in which precision.

    Attributes:
        op: Operator type in the field's terms, such as "Conv", "MatMul", "Reorder".
        name: Of the operator in the graph.
        kernel: What ran it, in the runtime's own words.
        device: Where, such as "cpu".
        precision: Of the arithmetic, such as "float32", "int8".
        macs: Multiply-accumulates per inference at batch 1, where known.
        time_share: 0..1, where the runtime has a profiler.
        channels: Output channels of a convolution or columns of a matrix product, where known.
    """

    op: str
    name: str
    kernel: str
    device: str
    precision: str
    macs: int | None = None
    time_share: float | None = None
    channels: int | None = None


@dataclass(frozen=True)
class Coverage:
    """The share of a model that ran in the precision that was asked for (0..1); ``None`` where not known.

    Attributes:
        wanted: The precision that was asked for.
        by_op, by_macs, by_time: Its share of operators, of multiply-accumulates and of time.
        reason: Why a share is not known.
        by_weights: Share of the weights, by their number, that the artifact stores in the precision of the label.
        label: The precision that a method asked for; empty where none did, or in records from before it was kept.
    """

    wanted: str
    by_op: float | None
    by_macs: float | None
    by_time: float | None
    reason: str = ""
    by_weights: float | None = None
    label: str = ""


@dataclass(frozen=True)
class SharedObject:
    """A file of machine code that a measuring process had mapped.

    Attributes:
        path: From the folder that Python imports from, such as "onnxruntime/capi/…"; the file's name alone elsewhere.
        size_bytes: Of the file; ``None`` where it cannot be read.
        build_id: That its linker gave it, in hexadecimal: equal for equal builds.
        reason: Why a field is ``None``.
    """

    path: str
    size_bytes: int | None
    build_id: str | None
    reason: str = ""


@dataclass(frozen=True)
class Loaded:
    """The shared objects of a process, less those of Python itself and of the system's folders.

    Attributes:
        objects: By path.
        reason: Why they are not known.
    """

    objects: tuple[SharedObject, ...] = ()
    reason: str = ""


@dataclass(frozen=True)
class Batch:
    """Timed iterations of one member in one round.

    Attributes:
        ns: Nanoseconds of each iteration (of ``inner_loops`` calls, already divided).
        cpu_ns: Process CPU time over the batch; with one thread cpu_ns / wall_ns near 1 means undisturbed.
        queued_ns: Time that the thread that calls the runtime was ready to run and had no CPU; ``None`` where the
            kernel does not tell.
    """

    round: int
    position: int
    ns: tuple[int, ...]
    wall_ns: int
    cpu_ns: int
    involuntary_switches: int
    voluntary_switches: int
    major_faults: int
    queued_ns: int | None = None


@dataclass(frozen=True)
class Noise:
    """Evidence about the host around one launch; shares are 0..1, ``None`` where the host does not tell.

    ``loop_ns`` and ``small_ns`` are the times, before and after, of two small kernels beside the canary: no verdict
    reads them, but they tell whether the clock moved where the canary did. ``usual_spread`` and ``usual_drift`` are how
    much the canary's rate varies on this host, by its recorded probes: standard deviations as shares of the rate.
    """

    cpu_wall: float
    hiccup_before: float
    hiccup_after: float
    canary_before_gflops: float
    canary_after_gflops: float
    involuntary_switches_per_s: float
    steal: float | None
    psi_cpu: float | None
    throttled: int | None
    major_faults: int
    verdict: NoiseVerdict
    reasons: tuple[str, ...] = ()
    canary_level: float | None = None  # against this host's usual rate; None until enough probes are known
    psi_memory: float | None = None
    psi_io: float | None = None
    thermal: int | None = None  # times that the measured CPUs were slowed for their heat
    loop_ns: tuple[float, float] | None = None
    small_ns: tuple[float, float] | None = None
    queued: float | None = None  # share of the launch's time that its calling thread waited for a CPU
    usual_spread: float | None = None  # of the rate, from probe to probe
    usual_drift: float | None = None  # of the ratio of two probes around a launch-set


@dataclass(frozen=True)
class Launch:
    """One fresh process of one cell inside a launch-set: raw, never summarised away."""

    cell_id: str
    set_index: int
    order: int
    pid: int
    load_ns: int
    first_ns: int
    warmup_iterations: int
    warmup_ns: int
    steady: bool
    inner_loops: int
    affinity: tuple[int, ...]
    threads_effective: str
    batches: tuple[Batch, ...]
    noise: Noise
    discarded: str | None = None
    batch_size: int = 1  # items in one iteration
    compute: tuple[Batch, ...] = ()  # the same with inputs bound before, where the session can; never ranked
    parts: tuple[Batch, ...] = ()  # each part of a split network alone, ``position`` is its place; never ranked
    # From the start of the process until it could open the model, by its own clock. ``None`` in launches of older
    # versions: there the parent read its clock later, after the member before had warmed up.
    ready_ns: int | None = None


@dataclass(frozen=True)
class Failure:
    """What took a cell out: where, who is to blame, and one sentence.

    Attributes:
        status: How its cells end.
        stage: Where it happened.
        blame: The plugin to ask.
        reason: One sentence for the user.
        details: What the sentence leaves out, such as a traceback: for a file beside the run, not for a record.
    """

    status: Status
    stage: Stage
    blame: str
    reason: str
    details: str = ""


@dataclass(frozen=True)
class LaunchSet:
    """The durable unit: the anchor and its variants, interleaved, then killed.

    Attributes:
        group: Hash of the members and options; sets of one group replicate each other.
        purpose: "variants", or "link" for the set that interleaves the anchors of all targets.
        failures: Member cell_id -> what happened; that member has no launch here.
    """

    schema: int
    group: str
    index: int
    purpose: Literal["variants", "link"]
    anchor: str | None
    members: tuple[str, ...]
    started_utc: str
    seconds: float
    launches: tuple[Launch, ...]
    failures: Mapping[str, Failure] = field(default_factory=dict)


@dataclass(frozen=True)
class Interval:
    """A point with its two-sided interval; the bounds are ``None`` where the sample cannot carry one.

    Attributes:
        point: The estimate.
        low, high: Bounds of the interval.
        level: Of confidence, 0..1.
        method: How the bounds were found.
    """

    point: float
    low: float | None
    high: float | None
    level: float = 0.95
    method: str = ""


@dataclass(frozen=True)
class Latency:
    """Summary of one cell's launches, recomputable from the raw sets.

    Attributes:
        p50_ns: Median over launches of each launch's median.
        p90_ns: The same with each launch's p90; ``None`` without the support that it needs.
        p99_ns: As p90, in the tail.
        min_ns, mean_ns: Of all timed iterations.
        throughput_per_s: Items per second, from the mean.
        robust_cv: Spread of the launch medians: their scaled median absolute deviation over their median.
        ratio: t(cell) / t(anchor), paired within rounds; below 1 is faster.
        ratio_p10: The same of the batches' 10th percentiles, which a disturbed host moves less.
        verdict: What the interval of the ratio says.
        noise, reasons: How far the host disturbed the launches, and what says so.
        launches: Launches used; discarded ones are counted apart.
        discarded: Launches that were left out for their noise.
        unsteady: Launches used that did not settle.
        samples: Timed iterations.
        statistics: Version of the code that summarised; older summaries are compared in their figures only.
        steadiness: Launches per class: flat, warmup, slowdown, unsteady.
        bootstrap: Two-level bootstrap of p50, a second opinion on its interval.
        p99_worst_ns: p99 of the worst launch, beside the median over launches.
        compute_ns: p50 with inputs bound before: compute only, never ranked beside end-to-end.
        time_to_first_inference_ns: From the start of the process to its first output, without the time in which it
            was ready and not yet asked; ``None`` for launches of statistics 2 and older, where it held another
            member's warm-up (it was called ``first_inference_ns`` there).
        ready_ns, load_ns, start_ns: Its parts: process start to ready, load, first inference.
        ratio_hodges_lehmann: Of the sets' log-ratios, as a ratio: the typical one, beside the median.
        cliffs_delta: Of launch medians against the anchor's, -1 (always faster) to 1.
        parts_ns: Of a split network, each part's p50 alone, in their order.
    """

    p50_ns: Interval
    p90_ns: float | None
    p99_ns: float | None
    min_ns: float
    mean_ns: float
    throughput_per_s: float
    robust_cv: float
    launches: int
    discarded: int
    unsteady: int
    samples: int
    ratio: Interval | None
    ratio_p10: Interval | None
    verdict: SpeedVerdict
    noise: NoiseVerdict
    reasons: tuple[str, ...] = ()
    statistics: int = 1
    steadiness: Mapping[str, int] = field(default_factory=dict)
    bootstrap: Interval | None = None
    p99_worst_ns: float | None = None
    compute_ns: Interval | None = None
    ready_ns: float | None = None
    load_ns: float | None = None
    start_ns: float | None = None
    time_to_first_inference_ns: float | None = None
    ratio_hodges_lehmann: float | None = None
    cliffs_delta: float | None = None
    parts_ns: tuple[Interval, ...] | None = None


@dataclass(frozen=True)
class Memory:
    """Peak resident memory of a fresh process (VmHWM), in bytes; ranked is ``peak_bytes``.

    Attributes:
        floor_bytes: Held before the runtime is imported: interpreter, numpy, harness and the plugin.
        load_peak_bytes, run_peak_bytes: Peak up to the end of the first inference, and of those after it.
        peak_bytes: The larger of both, median over launches: what has to fit.
        steady_bytes: Proportional set size (PSS) after the inferences, of the process and its children.
        launches: Fresh processes that were read.
        device_bytes: Held on an accelerator; ``None`` where there is none.
        reason: Why a field is ``None``.
        runtime_floor_bytes: Peak of a fresh process that runs the target's one-operator probe model.
        delta_bytes: ``peak_bytes`` above that floor: what the model costs; negative where the probe needed more.
        max_peak_bytes: The highest peak of the launches.
        steady_uss_bytes: Private pages (USS) after the inferences: freed when the process ends.
        anon_bytes, file_mapped_bytes, shmem_bytes: Pages that are resident then, by kind. Of mapped files all count,
            whoever shares them, so that it does not matter what else runs on the host; ``steady_bytes`` counts shares.
        file_bytes, gzip_bytes: The artifact's file, and what it compresses to: a hint at its entropy.
        min_fit_bytes: Smallest memory limit under which it runs with less than 5 % slowdown.
        unavailable: Field -> why it is not known here.
    """

    floor_bytes: int
    load_peak_bytes: int
    run_peak_bytes: int
    peak_bytes: int
    steady_bytes: int
    launches: int
    device_bytes: int | None = None
    reason: str = ""
    runtime_floor_bytes: int | None = None
    delta_bytes: int | None = None
    max_peak_bytes: int | None = None
    steady_uss_bytes: int | None = None
    anon_bytes: int | None = None
    file_mapped_bytes: int | None = None
    shmem_bytes: int | None = None
    file_bytes: int | None = None
    gzip_bytes: int | None = None
    min_fit_bytes: int | None = None
    unavailable: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Quality:
    """The task metric on the test split, and its paired difference from the anchor on the same runtime.

    Attributes:
        metric, unit: The workload's; "%" is held as a share, 0..1.
        higher_is_better: Direction of the metric.
        items: In the test split.
        value: The metric with its interval; ``None`` where there are no labels.
        difference: Cell minus anchor, in the metric's own unit; positive is better only if ``higher_is_better``.
        flips: Share of items whose correctness changed (classification).
        lost, gained: Items that only the anchor, or only this cell, got right.
        p_value: Exact McNemar for classification.
        underpowered: The interval is wider than half the drop that a 99 % gate allows.
        evaluation_batch: Items per inference while judging.
        fidelity: Closeness to the anchor's outputs: ``top1_agreement``, ``sqnr_db``, ``cosine`` …
        agreement: ``top1_agreement`` and ``top5_agreement`` with Wilson's interval over items.
    """

    metric: str
    unit: str
    higher_is_better: bool
    items: int
    value: Interval | None
    difference: Interval | None = None
    flips: float | None = None
    lost: int | None = None
    gained: int | None = None
    p_value: float | None = None
    underpowered: bool = False
    evaluation_batch: int = 1
    fidelity: Mapping[str, float] = field(default_factory=dict)
    agreement: Mapping[str, Interval] = field(default_factory=dict)


@dataclass(frozen=True)
class Slice:
    """One index along one axis of an output, such as a channel, a class or a coordinate.

    Attributes:
        axis: Of the output with its items first, from 1.
        index: Along the axis.
        sqnr_db: Of its elements over all items.
        lost: It is constant where the reference varies, or half of it is noise while the rest of the output lives.
    """

    axis: int
    index: int
    sqnr_db: float
    lost: bool = False


@dataclass(frozen=True)
class Closeness:
    """How far one output is from the reference's; figures are over all items unless they say otherwise.

    Attributes:
        sqnr_db: 10 log10(sum x² / sum (x - x̂)²), ±300 for equal outputs and for what is not finite.
        worst_item_db, worst_item: The same of the item that is furthest off, and which it is.
        first_item: The first item below what is due; ``None`` where all reach it.
        max_abs_error, mean_abs_error: Of elements; ``None`` where they are not finite or not numbers.
        cosine: Mean over items.
        equal: Share of equal elements of an output of integers, truth values or texts.
        agreement: Share of declared choices that agree; ``None`` where the task declares none.
        slices: The worst of each axis.
        lost: Slices that died, the worst first, at most eight.
        lost_count: How many did; 1 too where an output without slices died as a whole.
        not_numbers: Share of the reference's elements that are NaN.
        differs: Why it cannot be compared element by element, such as another shape.
    """

    sqnr_db: float
    worst_item_db: float
    worst_item: int
    first_item: int | None = None
    max_abs_error: float | None = None
    mean_abs_error: float | None = None
    cosine: float | None = None
    equal: float | None = None
    agreement: float | None = None
    slices: tuple[Slice, ...] = ()
    lost: tuple[Slice, ...] = ()
    lost_count: int = 0
    not_numbers: float = 0.0
    differs: str = ""


@dataclass(frozen=True)
class OracleCheck:
    """A cell's outputs against those of the framework that defines the model, on the same items.

    Attributes:
        oracle: Which program gave the reference outputs, such as "torch eager".
        items: How many were compared.
        outputs: By name.
        precision: What ran: the narrowest float that computed products, else the artifact's precision.
        due_db: SQNR that an anchor, or a method that must keep the function, has to reach in that precision; ``None``
            for a cell that may differ.
        wrong: The first output and item that differ by more, in a sentence; empty where none does.
        sqnr_db: Of the output that is furthest off.
        reason: Why there is no comparison; empty where there is.
        passed: Which more trusted program gave no answers or others, and was passed over, and why.
    """

    oracle: str = ""
    items: int = 0
    outputs: Mapping[str, Closeness] = field(default_factory=dict)
    precision: str = ""
    due_db: float | None = None
    wrong: str = ""
    sqnr_db: float | None = None
    reason: str = ""
    passed: str = ""


@dataclass(frozen=True)
class Confidence:
    """How far a classifier's probabilities can be believed, on the test split; changes are cell minus anchor, paired.

    Attributes:
        items: In the test split.
        bins: Into which they were sorted by confidence.
        ece: Expected calibration error over bins of equal mass, 0..1; biased upwards where it is small.
        ece_debiased: The same less what chance adds to each bin.
        nll: Mean negative log-likelihood of the right class, in nats.
        brier: Mean over items of the squared error summed over classes, 0..2.
        ece_change, nll_change, brier_change: Cell minus anchor on the same items.
        probabilities: How outputs became probabilities: "softmax", or "as given".
    """

    items: int
    bins: int
    probabilities: str
    ece: Interval
    ece_debiased: float
    nll: Interval
    brier: Interval
    ece_change: Interval | None = None
    nll_change: Interval | None = None
    brier_change: Interval | None = None


@dataclass(frozen=True)
class Robustness:
    """The task metric on corrupted copies of test images, mean over the corruptions, in the metric's own unit.

    Attributes:
        items: Test items that were corrupted in each way.
        corrupted: Corruption and severity, such as "defocus-blur:3" -> metric.
        value: Mean over these, with its interval over items.
        difference: Cell minus anchor, paired by item.
        extra: The same less their difference on the same items uncorrupted: what compression adds under corruption.
        relative_error: Mean over corruptions of the cell's error over the anchor's (shares of right items only).
        reason: Why there is nothing; empty where there is.
    """

    items: int = 0
    corrupted: Mapping[str, float] = field(default_factory=dict)
    value: Interval | None = None
    difference: Interval | None = None
    extra: Interval | None = None
    relative_error: float | None = None
    reason: str = ""


@dataclass(frozen=True)
class LayerDamage:
    """How far one operator's output is from the anchor's.

    Attributes:
        name: Of the tensor, as the anchor's file names it.
        op: Operator type.
        place: In running order, from 1.
        sqnr_db: 10 log10(sum x² / sum (x - x̂)²) over all items; ±300 for identical ones and for what is not finite.
    """

    name: str
    op: str
    place: int
    sqnr_db: float


@dataclass(frozen=True)
class Layers:
    """Where in a network compression does its damage: operators' outputs against the anchor's on the same runtime.

    Attributes:
        items: Test items that both ran.
        outputs: The worst first.
        unmatched: Outputs of the anchor's operators that this file has not, by name and shape: fused, pruned, renamed.
        reason: Why there are none.
    """

    items: int = 0
    outputs: tuple[LayerDamage, ...] = ()
    unmatched: int = 0
    reason: str = ""


@dataclass(frozen=True)
class ScenarioResult:
    """What a load generator measured of one cell; never ranked beside closed-loop latency.

    Attributes:
        scenario: "single_stream", "offline", "server" or "sustained".
        figures: By name with its unit, such as ``qps``, ``p99_ns``, ``samples_per_s``.
        generator: Who generated the load and took the time.
        reason: Why there are no figures.
    """

    scenario: str
    figures: Mapping[str, float]
    generator: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Ceilings:
    """What a host can do at most with some threads.

    Attributes:
        threads: How many.
        macs_per_s: Multiply-accumulates per second by arithmetic, the best that was measured.
        most_macs_per_s: The same that the instruction set allows at the highest clock: nothing is faster.
        bytes_per_s: Best reading rate by level: "cache" (the last one) and "dram".
        most_bytes_per_s: No reading from beyond the caches is faster.
        cache_bytes: Of the last-level cache.
        clock_hz: The best that was measured.
        top_clock_hz, top_clock_from: The highest that the CPU has, and how that is known.
        reason: Why some of it is not known.
    """

    threads: int
    macs_per_s: Mapping[str, float] = field(default_factory=dict)
    most_macs_per_s: Mapping[str, float] = field(default_factory=dict)
    bytes_per_s: Mapping[str, float] = field(default_factory=dict)
    most_bytes_per_s: float | None = None
    cache_bytes: int | None = None
    clock_hz: float | None = None
    top_clock_hz: float | None = None
    top_clock_from: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Roofline:
    """The physical floor of a cell on its host, for one inference.

    Attributes:
        macs: Multiply-accumulates of an inference, with its batch.
        weight_bytes: Of the weights, as stored.
        floor_ns: Its time at the ceilings that were measured.
        least_ns: Its time at the ceilings that nothing beats, by the algorithm with the fewest multiplications.
        percent: 100 x floor_ns / p50; above 100 an algorithm saved multiplications.
        bound: Which ceiling is the nearer one: "compute" or "memory".
        ceilings: What was measured of the host.
        reason: Why it is not known, or what of the ceilings is not.
    """

    macs: int | None = None
    weight_bytes: int | None = None
    floor_ns: float | None = None
    least_ns: float | None = None
    percent: float | None = None
    bound: str = ""
    ceilings: Ceilings | None = None
    reason: str = ""


EnergyLevel = Literal["E0", "E1", "E2", "E3"]


@dataclass(frozen=True)
class EnergyWindow:
    """A stretch of time over which energy was read.

    Attributes:
        begin_utc_ns: By the system's clock: what a meter's log is aligned by.
        seconds: Its length.
        inferences: That ran back to back in it; 0 in an idle one.
        joules: Read over it.
    """

    begin_utc_ns: int
    seconds: float
    inferences: int
    joules: float


@dataclass(frozen=True)
class Energy:
    """Energy of a cell, recomputable from its windows.

    Attributes:
        level: "E3" by a wall meter, "E2" by a sensor on the chip, "E1" a nameplate (never ours), "E0" not available.
        source: The sensors, or the meter's log.
        joules: Of one inference, with what idles meanwhile: ranked, among equal levels only.
        active_joules: The same less idle power.
        watts: Mean power while inferences ran.
        idle_watts: Mean power while nothing ran.
        windows, idle: The readings with inferences, and those without.
        reason: Why it is not available; empty where it is.
    """

    level: EnergyLevel
    source: str = ""
    joules: Interval | None = None
    active_joules: Interval | None = None
    watts: Interval | None = None
    idle_watts: float | None = None
    windows: tuple[EnergyWindow, ...] = ()
    idle: tuple[EnergyWindow, ...] = ()
    reason: str = ""


@dataclass(frozen=True)
class Record:
    """Everything known about a finished cell.

    Attributes:
        schema: Of the stored value; older ones are migrated when read.
        cell: What was asked for.
        cell_id: Hash of the request: equal on every host and in every version.
        status: How it ended.
        inputs_sha256: Hash of request, artifact, runtime, plugin and host: only equal ones are the same measurement.
        host_id: Hash of the host's stable facts.
        profile: How much was measured: "quick", "standard" or "publish".
        labels: "workload", "method" and "target" as the grammar writes them.
        stage, blame, reason: Where a cell that is not ok ended, in which plugin, and why.
        kind: How the figures came about; a ranking never mixes kinds.
        anchor: ``cell_id`` of the uncompressed cell that ratios are against.
        anchor_precision: What the anchor ran in.
        anchor_reason: Why there is no anchor.
        lineage: The steps that made the model, with what each changed.
        artifact: The file that the runtime loaded.
        latency, memory, quality: The figures; ``None`` where they were not measured.
        placements: Operators that ran, as the runtime tells.
        coverage: How much of it ran in the precision that was asked for.
        flags: What puts the figures in doubt, or explains them.
        effective: Options as the runtime has them, by name.
        provenance: Versions of runtime and plugins, and other facts of this measurement.
        seconds: Stage -> how long it took.
        sets: Names of the launch-sets that hold its raw samples.
        finished_utc: When, in ISO 8601.
        scenarios: What load generators measured.
        model_sha256: Of the model file that was lowered: equal on every host that runs one pack.
        roofline: The physical floor of the cell on its host.
        energy: Of one inference, where the host tells.
        confidence: How far its probabilities can be believed.
        robustness: The metric on corrupted copies of the test items.
        layers: How far each operator's output is from the anchor's.
        oracle: How far its outputs are from the framework's own.
    """

    schema: int
    cell: Cell
    cell_id: str
    status: Status
    inputs_sha256: str
    host_id: str
    profile: str
    labels: Mapping[str, str]
    stage: Stage | None = None
    blame: str | None = None
    reason: str | None = None
    kind: Kind = "measured"
    anchor: str | None = None
    anchor_precision: str | None = None
    anchor_reason: str | None = None
    lineage: tuple[StepRecord, ...] = ()
    artifact: Artifact | None = None
    latency: Latency | None = None
    memory: Memory | None = None
    quality: Quality | None = None
    placements: tuple[Placement, ...] = ()
    coverage: Coverage | None = None
    flags: tuple[str, ...] = ()
    effective: Mapping[str, str] = field(default_factory=dict)
    provenance: Mapping[str, str] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    sets: tuple[str, ...] = ()
    finished_utc: str = ""
    scenarios: tuple[ScenarioResult, ...] = ()
    model_sha256: str | None = None
    roofline: Roofline | None = None
    energy: Energy | None = None
    confidence: Confidence | None = None
    robustness: Robustness | None = None
    layers: Layers | None = None
    oracle: OracleCheck | None = None
