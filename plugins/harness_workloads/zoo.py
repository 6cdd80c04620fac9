"""Networks of the usual sizes with seeded weights: for speed and memory, with no claim about accuracy."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from harness.api import Job, Model, NoParams, Split, SplitName, TensorSpec, WorkloadSpec, param
from harness_workloads.seeded import seeded_split

OUTPUTS = ("logits",)
SETTLE = 16  # seeded items that set the statistics of batch normalisation


@dataclass(frozen=True)
class ImageParams:
    """Resolution."""

    size: int = param(224, "side of the input image in pixels", ge=32, le=1024)


@lru_cache(maxsize=2)
def _normal(shape: tuple[int, ...], name: str, split: SplitName) -> Split:
    return seeded_split({name: TensorSpec("float32", (None, *shape))}, split, "the zoo")


def _initialise(module: Any) -> None:
    """Draw weights so that the signal keeps its size through the layers (He et al. 2015)."""
    from torch import nn

    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)


def settle(module: Any, inputs: tuple[Any, ...]) -> None:
    """Set the statistics of batch normalisation to those of a forward pass over ``inputs``."""
    import torch
    from torch import nn

    norms = [layer for layer in module.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
    if not norms:
        return
    usual = [layer.momentum for layer in norms]
    for layer in norms:
        layer.reset_running_stats()
        layer.momentum = None  # the plain mean over the pass
    module.train()
    with torch.no_grad():
        module(*inputs)
    module.eval()
    for layer, momentum in zip(norms, usual, strict=True):
        layer.momentum = momentum


def _fit(_params: Any, job: Job) -> Model:
    import torch

    import harness_torch

    torch.set_num_threads(job.threads)
    harness_torch.seed_everything(job.seed)
    module = job.workload.build()
    _initialise(module)
    job.progress(0.2, "setting the statistics of batch normalisation")
    settle(module, harness_torch.tensors(job.data.split("train").inputs, slice(SETTLE)))
    return harness_torch.new_model(module.eval(), job, job.workload.inputs, OUTPUTS, flags=("synthetic_weights",))


def _resnet18(_params: ImageParams, *, width: float = 1.0, depth: float = 1.0) -> Any:
    from harness_workloads.nets.resnet import ResNet

    return ResNet([max(1, round(2 * depth))] * 4, bottleneck=False, width=width)


def _resnet50(_params: ImageParams, *, width: float = 1.0, depth: float = 1.0) -> Any:
    from harness_workloads.nets.resnet import ResNet

    return ResNet([max(1, round(count * depth)) for count in (3, 4, 6, 3)], bottleneck=True, width=width)


def _mobilenet(_params: ImageParams, *, width: float = 1.0, depth: float = 1.0) -> Any:
    from harness_workloads.nets.mobilenet import MobileNetV2

    return MobileNetV2(width=width, depth=depth)


def _gru(_params: NoParams, *, width: float = 1.0, depth: float = 1.0) -> Any:
    from harness_workloads.nets.sequence import RecurrentClassifier

    return RecurrentClassifier(40, max(8, round(128 * width)), max(1, round(2 * depth)), 12)


def _transformer(_params: NoParams, *, width: float = 1.0, depth: float = 1.0) -> Any:
    from harness_workloads.nets.sequence import SequenceEncoder

    heads = max(1, round(4 * width))
    layers = max(1, round(2 * depth))
    return SequenceEncoder(40, tokens=64, width=32 * heads, heads=heads, layers=layers, hidden=128 * heads, classes=12)


def _spec(
    name: str, summary: str, model: Callable[..., Any], params: type, shape: Callable[[Any], tuple[int, ...]]
) -> WorkloadSpec[Any]:
    modality = "image" if params is ImageParams else "sequence"
    key = "image" if params is ImageParams else "features"
    return WorkloadSpec(
        name=f"zoo-{name}",
        modality=modality,
        summary=f"{summary}; seeded weights, for speed and memory only",
        params=params,
        inputs=lambda params: {key: TensorSpec("float32", (None, *shape(params)))},
        outputs=OUTPUTS,
        fit=_fit,
        split=lambda params, split: _normal(shape(params), key, split),
        model=model,
        labelled=False,
        flags=("synthetic_weights",),
    )


def workloads() -> Iterable[WorkloadSpec[Any]]:
    """Return the workloads of this module."""

    def image(params: ImageParams) -> tuple[int, ...]:
        return 3, params.size, params.size

    yield _spec("resnet18", "ResNet-18, 11.69 M parameters, 1000 classes", _resnet18, ImageParams, image)
    yield _spec("resnet50", "ResNet-50, 25.56 M parameters, 1000 classes", _resnet50, ImageParams, image)
    yield _spec("mobilenetv2", "MobileNetV2, 3.50 M parameters, 1000 classes", _mobilenet, ImageParams, image)
    yield _spec("gru", "a GRU of 2 layers of 128 over 50 steps", _gru, NoParams, lambda _params: (50, 40))
    yield _spec(
        "transformer", "a transformer encoder of 2 layers of 128 over 64 steps", _transformer, NoParams,
        lambda _params: (64, 40),
    )  # fmt: skip
