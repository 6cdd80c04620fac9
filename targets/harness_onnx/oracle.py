"""The answers of an ONNX file: by ONNX's own evaluator, or by ONNX Runtime with every optimization off."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.api import Job, MissingDependency, Model

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Runner:
    """A file loaded by something with ONNX Runtime's ``run``."""

    label: str
    outputs: tuple[str, ...]
    session: Any

    def run(self, inputs: Arrays) -> Arrays:
        """Run one batch."""
        return dict(zip(self.outputs, self.session.run(list(self.outputs), dict(inputs)), strict=True))


def open_oracles(model: Model, job: Job) -> Iterator[Runner]:
    """Yield ONNX's evaluator, then ONNX Runtime.

    Raises:
        MissingDependency: Neither package is here.
    """
    evaluator = _evaluator(model)
    if evaluator is not None:
        yield evaluator
    runtime = _runtime(model, job)
    if runtime is not None:
        yield runtime
    if evaluator is None and runtime is None:
        raise MissingDependency("neither onnx nor onnxruntime can read the model here")


def _evaluator(model: Model) -> Runner | None:
    try:
        from onnx.reference import ReferenceEvaluator

        return Runner("onnx ReferenceEvaluator", model.outputs, ReferenceEvaluator(str(model.path)))
    except Exception:  # noqa: BLE001  it lacks operators, and says so in many ways; ONNX Runtime is asked next
        return None


def _runtime(model: Model, job: Job) -> Runner | None:
    try:
        import onnxruntime
    except ImportError:
        return None
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = job.threads
    settings.inter_op_num_threads = 1
    settings.log_severity_level = 3
    settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(model.path), settings, providers=["CPUExecutionProvider"])
    return Runner("onnxruntime, every optimization disabled", model.outputs, session)
