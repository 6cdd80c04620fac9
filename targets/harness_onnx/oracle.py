"""The answers of an ONNX file: by ONNX's own evaluator, or by ONNX Runtime with every optimization off."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.api import Job, MissingDependency, Model, Oracle, Unsupported, first_line

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Arrays = Mapping[str, NDArray[Any]]

NOISE = 1e-6  # of the power: 60 dB, where another order of sums leaves 90 and more
MOSTLY = 0.99  # of integers and texts
EVALUATOR = "onnx ReferenceEvaluator"
HINT = "pip install 'compression-harness[onnxruntime]'"


@dataclass(frozen=True)
class Runner:
    """A file loaded by something with ONNX Runtime's ``run``."""

    label: str
    outputs: tuple[str, ...]
    session: Any

    def run(self, inputs: Arrays) -> Arrays:
        """Run one batch."""
        return dict(zip(self.outputs, self.session.run(list(self.outputs), dict(inputs)), strict=True))


def open_oracles(model: Model, job: Job) -> Iterator[Oracle]:
    """Yield ONNX's evaluator, then ONNX Runtime.

    Where both are here, the evaluator is believed as far as ONNX Runtime gives the same for the first items: it is
    meant to be read, and some of its operators have never met a real network.

    Raises:
        MissingDependency: Neither package is here.
    """
    evaluator, runtime = _evaluator(model), _runtime(model, job)
    if runtime is None and not isinstance(evaluator, Runner):
        raise MissingDependency("neither onnx nor onnxruntime can read the model here", hint=HINT)
    if evaluator is not None:
        yield evaluator if runtime is None or isinstance(evaluator, Unread) else Confirmed(evaluator, runtime)
    if runtime is not None:
        yield runtime


@dataclass(frozen=True)
class Unread:
    """A program that cannot read the file: it is passed over, and the cell says so."""

    label: str
    why: str

    def run(self, inputs: Arrays) -> Arrays:  # noqa: ARG002  as of an oracle
        """Say why there is no answer.

        Raises:
            Unsupported: Always.
        """
        raise Unsupported(self.why)


@dataclass
class Confirmed:
    """The first one's answers, once the second one gave the same for the first items."""

    first: Runner
    second: Runner
    confirmed: bool = False

    @property
    def label(self) -> str:
        """Whose answers they are."""
        return self.first.label

    def run(self, inputs: Arrays) -> Arrays:
        """Run one batch.

        Raises:
            Unsupported: The two do not agree.
        """
        found = self.first.run(inputs)
        if not self.confirmed:
            other = self.second.run(inputs)
            odd = next((name for name in found if not _agree(found[name], other[name])), None)
            if odd is not None:
                raise Unsupported(f"it gives another {odd!r} than {self.second.label}")
            self.confirmed = True
        return found


def _agree(one: Any, other: Any) -> bool:
    """Tell whether two outputs are the same but for the order of sums."""
    import numpy as np

    mine, theirs = np.asarray(one), np.asarray(other)
    if mine.shape != theirs.shape or not np.issubdtype(theirs.dtype, np.floating):
        return mine.shape == theirs.shape and float(np.mean(mine == theirs)) > MOSTLY
    error = np.asarray(mine, np.float64) - theirs
    known = np.isfinite(theirs)
    return float(np.sum(error[known] ** 2)) <= NOISE * float(np.sum(np.asarray(theirs, np.float64)[known] ** 2))


def _evaluator(model: Model) -> Runner | Unread | None:
    try:
        from onnx.reference import ReferenceEvaluator
    except ImportError:
        return None
    try:
        return Runner(EVALUATOR, model.outputs, ReferenceEvaluator(str(model.path)))
    except Exception as error:  # noqa: BLE001  it lacks operators, and says so in many ways; ONNX Runtime is asked next
        return Unread(EVALUATOR, f"it cannot read the file ({type(error).__name__}: {first_line(str(error))})")


def _runtime(model: Model, job: Job) -> Runner | None:
    try:
        import onnxruntime
    except ImportError:
        return None
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = job.threads
    settings.inter_op_num_threads = 1
    settings.log_severity_level = 4
    settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = onnxruntime.InferenceSession(str(model.path), settings, providers=["CPUExecutionProvider"])
    except Exception:  # noqa: BLE001  what it cannot load, the evaluator may read
        return None
    return Runner("onnxruntime, every optimization disabled", model.outputs, session)
