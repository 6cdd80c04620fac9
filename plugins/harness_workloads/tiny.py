"""Test models of one layer kind each: what the conformance kit runs methods, exporters and targets on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

from harness.api import Examined, Job, Model, Sample, Split, SplitName, TensorSpec, WorkloadSpec, param
from harness_workloads.scoring import accuracy, correct, cross_entropy

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Arrays = Mapping[str, NDArray[Any]]

CLASSES = 4
WIDTH = 16
SIZES: Mapping[SplitName, int] = {"train": 256, "calibration": 64, "selection": 64, "test": 61}  # 61 fills no batch
OUTPUTS = ("logits",)


@dataclass(frozen=True)
class Params:
    """Training of a test model."""

    epochs: int = param(8, "passes over the training split", ge=0)


@dataclass(frozen=True)
class _Kind:
    """One test model: the layer kind in it, its network, its inputs."""

    name: str
    exercises: str
    summary: str
    net: Callable[[Any, int], Any]
    inputs: Mapping[str, TensorSpec]


def _net(name: str, *more: Any) -> Callable[[Any, int], Any]:
    def make(nets: Any, width: int) -> Any:
        return getattr(nets, name)(CLASSES, width, *more)

    return make


_ROW, _IMAGE, _SEQUENCE = (TensorSpec("float32", (None, *shape)) for shape in ((16,), (3, 8, 8), (8, 8)))
_KINDS = (
    _Kind("tiny-dense", "dense", "linear layers", _net("Dense"), {"x": _ROW}),
    _Kind("tiny-conv", "conv", "convolutions with a residual", _net("Conv"), {"x": _IMAGE}),
    _Kind("tiny-depthwise", "depthwise", "depthwise-separable convolutions", _net("Depthwise"), {"x": _IMAGE}),
    _Kind("tiny-gru", "recurrent", "a GRU", _net("Recurrent", "gru"), {"x": _SEQUENCE}),
    _Kind("tiny-lstm", "lstm", "an LSTM", _net("Recurrent", "lstm"), {"x": _SEQUENCE}),
    _Kind("tiny-attention", "attention", "a transformer layer", _net("Attention"), {"x": _SEQUENCE}),
    _Kind("tiny-tokens", "embedding", "an embedding", _net("Embedding"), {"tokens": TensorSpec("int64", (None, 8))}),
    _Kind("tiny-pair", "two inputs", "two inputs", _net("Pair"), {"a": _ROW, "b": _ROW}),
)


@lru_cache(maxsize=32)
def _split(kind: str, name: SplitName) -> Split:
    """Draw items around one centre per class; every split has its own items."""
    import numpy as np

    inputs = next(item.inputs for item in _KINDS if item.name == kind)
    centres, items = np.random.default_rng(1), np.random.default_rng([2, list(SIZES).index(name)])
    labels = items.integers(0, CLASSES, SIZES[name])
    arrays: dict[str, NDArray[Any]] = {}
    for key, spec in inputs.items():
        shape = tuple(size for size in spec.shape[1:] if size is not None)
        if spec.dtype == "int64":  # each class draws from its own part of the vocabulary, and from all of it
            own, other = items.integers(0, 8, (len(labels), *shape)), items.integers(0, 32, (len(labels), *shape))
            arrays[key] = np.where(items.random(own.shape) < 0.6, labels[:, None] * 8 + own, other)
            continue
        centre = centres.normal(size=(CLASSES, *shape))
        arrays[key] = (centre[labels] + items.normal(size=(len(labels), *shape))).astype(spec.dtype)
    return Split(arrays, labels)


def _model(kind: _Kind, _params: Params, *, width: float = 1.0, depth: float = 1.0) -> Any:
    from harness_workloads.nets import tiny

    del depth  # these have one depth
    return kind.net(tiny, max(4, 2 * round(WIDTH * width / 2)))


def _fit(params: Params, job: Job) -> Model:
    import harness_torch

    harness_torch.seed_everything(job.seed)
    module = job.workload.build()
    harness_torch.fit(module, job, epochs=params.epochs, lr=1e-2, batch_size=32)
    return harness_torch.new_model(module, job, job.workload.inputs, OUTPUTS)


def _run(model: Model, inputs: Arrays) -> Arrays:
    import harness_torch

    return harness_torch.call(harness_torch.load(model), inputs, outputs=model.outputs)


def _examine(model: Model, inputs: Arrays) -> Examined:
    import harness_torch

    module = harness_torch.load(model)
    one = harness_torch.tensors({key: value[:1] for key, value in inputs.items()})
    foreign = {
        type(layer).__qualname__
        for layer in module.modules()
        if any(True for _ in layer.parameters(recurse=False))
        # a traced network is plain torch too: what it owns itself are the parameters that its code reads
        and not type(layer).__module__.startswith(("torch.nn.", "torch.fx.", "harness_torch", f"{__package__}.nets"))
    }
    counted = harness_torch.parameters(module), harness_torch.nonzero(module), harness_torch.macs(module, one)
    return Examined(*counted, tuple(sorted(foreign)))


def _workload(kind: _Kind) -> WorkloadSpec[Any]:
    return WorkloadSpec(
        name=kind.name,
        modality="test",
        summary=f"a test model of the conformance kit: {kind.summary}",
        params=Params,
        inputs=lambda _params: kind.inputs,
        outputs=OUTPUTS,
        fit=_fit,
        split=lambda _params, name: _split(kind.name, name),
        score=correct,
        aggregate=accuracy,
        model=partial(_model, kind),
        loss=cross_entropy,
        sample=Sample(exercises=kind.exercises, run=_run, examine=_examine),
    )


def workloads() -> Iterable[WorkloadSpec[Any]]:
    """Return the test models."""
    return [_workload(kind) for kind in _KINDS]
