"""What the kit's processes saw: plain values that the checks judge."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.build.data import DataInfo
from harness.build.tasks import Use
from harness.specs import Examined
from harness.types import Artifact, Model, Placement, TensorSpec


@dataclass(frozen=True)
class Raised:
    """An exception that a plugin's function let out.

    Attributes:
        on_purpose: A ``HarnessError``; else it is a defect of the plugin.
        where: The plugin's own line, "file:line in function".
    """

    kind: str
    message: str
    on_purpose: bool
    where: str = ""

    @property
    def unsupported(self) -> bool:
        """Whether the plugin said that this cannot be."""
        return self.kind == "Unsupported"

    def __str__(self) -> str:
        return f"{self.kind}: {self.message}" + (f" (at {self.where})" if self.where else "")


@dataclass(frozen=True)
class Watched:
    """What a call did beside its work.

    Attributes:
        outside: Paths outside the job's folder that it wrote, made, renamed or removed.
        left_threads: Names of Python threads that were still there afterwards.
        peak_threads, after_threads, before_threads: Threads of the process, as the kernel counts them.
        left_files: Descriptors open afterwards that were not open before.
        environment: Names of environment variables that it changed for good.
    """

    seconds: float
    outside: tuple[str, ...] = ()
    left_threads: tuple[str, ...] = ()
    before_threads: int = 0
    peak_threads: int = 0
    after_threads: int = 0
    left_files: int = 0
    environment: tuple[str, ...] = ()


@dataclass(frozen=True)
class Material:
    """A test model: its data, and the model in each format that could be had.

    Attributes:
        sample: The workload's name.
        data: Folder of the splits.
        models: Format -> the trained model.
        missing: Format -> why it could not be had.
        reference: Folder of an .npy file per output: what the trained model gives for the test split.
        items: Of the test split.
    """

    sample: str
    exercises: str
    workload: Use
    data: Path
    info: DataInfo
    models: Mapping[str, Model]
    missing: Mapping[str, str]
    reference: Path
    examined: Examined
    items: int


@dataclass(frozen=True)
class Stepped:
    """A step that makes a model: compress, export or fit.

    Attributes:
        reads: Capability fields that it asked for.
        test_asked: It asked for the test split.
        input_changed: The incoming model's folder is not as it was.
        content_sha256, content_bytes: Of the file or folder that the model points to.
        inside: The model's file lies in the job's folder or is the incoming one.
        examined: The model, counted afresh by the sample.
        outputs: Folder of what the model gives for the test split, by the sample.
        examine_failed: Why the sample could not read the model.
        effect: What the step wrote about its own effect.
    """

    watched: Watched
    raised: Raised | None = None
    gave: str = "Model"
    model: Model | None = None
    reads: tuple[str, ...] = ()
    test_asked: bool = False
    input_changed: bool = False
    exists: bool = True
    inside: bool = True
    content_sha256: str = ""
    content_bytes: int = 0
    examined: Examined | None = None
    outputs: Path | None = None
    examine_failed: str = ""
    effect: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Answered:
    """An oracle's answers to the test items.

    Attributes:
        oracle: What it calls itself.
        input_changed: The model's folder is not as it was.
        outputs: Folder of an .npy file per output.
    """

    watched: Watched
    raised: Raised | None = None
    oracle: str = ""
    input_changed: bool = False
    outputs: Path | None = None


@dataclass(frozen=True)
class Lowered:
    """A target's lowering.

    Attributes:
        blocked: It failed for want of a training framework; the kit lets none be imported here.
        file_sha256, file_bytes: Of the artifact, read back.
        all_bytes: Of the job's whole folder: some artifacts are several files.
        folder: The artifact is a folder; how it is hashed is the plugin's affair.
    """

    watched: Watched
    raised: Raised | None = None
    gave: str = "Artifact"
    artifact: Artifact | None = None
    inside: bool = True
    exists: bool = True
    file_sha256: str = ""
    file_bytes: int = 0
    all_bytes: int = 0
    folder: bool = False
    blocked: bool = False
    input_changed: bool = False


@dataclass(frozen=True)
class Ran:
    """One life of a session: opened, run over the test items, closed.

    Attributes:
        stage: Where it raised: "open", "run", "placements", "effective", "bind" or "close".
        outputs: Folder of an .npy file per output over all items, written as the core writes them.
        outputs_declared: Output -> TensorSpec as the session declares it.
        first: What one call gave: output -> TensorSpec with all sizes.
        single: Folder of the outputs of the first items, one at a time; empty where the session's batch is fixed.
        again_equal: The same items a second time gave equal bits.
        inputs_changed: Inputs that ``run`` wrote into.
        busy_threads: CPU time of the process over that of its busiest thread, in a loop of runs.
    """

    watched: Watched
    raised: Raised | None = None
    stage: str = ""
    inputs: Mapping[str, TensorSpec] = field(default_factory=dict)
    outputs_declared: Mapping[str, TensorSpec] = field(default_factory=dict)
    first: Mapping[str, TensorSpec] = field(default_factory=dict)
    missing_members: tuple[str, ...] = ()
    outputs: Path | None = None
    single: Path | None = None
    batch: int = 1
    again_equal: bool = True
    inputs_changed: tuple[str, ...] = ()
    busy_threads: float = 1.0
    effective: Mapping[str, str] = field(default_factory=dict)
    placements: tuple[Placement, ...] | None = None
    placements_gave: str = ""


@dataclass(frozen=True)
class Splits:
    """A workload's data and scores.

    Attributes:
        first, second: Split -> SHA-256 of its arrays, drawn in two calls.
        problem: Why the core refuses the data; empty where it does not.
        scores: [n, k] as JSON; ``None`` where there are no labels.
        permuted_equal: Scoring permuted items gave permuted scores.
        metric: Of the scores; ``None`` where aggregating them gave no finite number.
        aggregate: What aggregating them gave, as Python writes it.
    """

    watched: Watched
    raised: Raised | None = None
    stage: str = ""
    first: Mapping[str, str] = field(default_factory=dict)
    second: Mapping[str, str] = field(default_factory=dict)
    problem: str = ""
    scores: Any = None
    scores_shape: tuple[int, ...] = ()
    permuted_equal: bool = True
    metric: float | None = None
    aggregate: str = ""
    items: int = 0
