"""Workloads on rendered characters: the fonts of the test split were never seen in training."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from harness.api import Job, Model, Split, SplitName, TensorSpec, WorkloadSpec, param
from harness_workloads.augment import moved, noisy
from harness_workloads.scoring import accuracy, correct, cross_entropy

OUTPUTS = ("logits",)
CLASSES = 36
SIZES: Mapping[SplitName, int] = {"calibration": 512, "selection": 2000, "test": 10_080}


@dataclass(frozen=True)
class Params:
    """Data and training of the convolutional networks."""

    epochs: int = param(6, "passes over the training split", ge=0)
    lr: float = param(4e-3, "peak learning rate", gt=0)
    items: int = param(12_000, "rendered training items", ge=64)
    strength: float = param(1.0, "scale of warp, occlusion and noise; 1 is tuned for 88 to 94 % in float32", ge=0, le=2)
    noise: float = param(0.0, "deviation of more noise on the test items alone, as share of their own", ge=0)
    width: float = param(1.0, "scale of the network's channels, or of the transformer's heads", gt=0, le=8)


@dataclass(frozen=True)
class MobileNetParams(Params):
    """Data and training of the depthwise network, which learns in fewer, slower passes."""

    epochs: int = param(5, "passes over the training split", ge=0)


@dataclass(frozen=True)
class TransformerParams(Params):
    """Data and training of the vision transformer."""

    epochs: int = param(9, "passes over the training split", ge=0)
    lr: float = param(2e-3, "peak learning rate", gt=0)


@lru_cache(maxsize=4)
def _split(items: int, strength: float, name: SplitName) -> Split:
    from harness_workloads.rendering import render

    images, classes = render(name, SIZES.get(name, items), strength)
    return Split({"image": images}, classes)


def split(params: Params, name: SplitName) -> Split:
    """Return the items of a split; the number of training items changes the training split alone."""
    items = _split(params.items if name == "train" else 0, params.strength, name)
    return noisy(items, name, params.noise)


def _resnet8(params: Params, *, width: float = 1.0, depth: float = 1.0) -> Any:
    from harness_workloads.nets.resnet import ResNet8

    return ResNet8(3, CLASSES, width=params.width * width, depth=depth)


def _mobilenet(params: Params, *, width: float = 1.0, depth: float = 1.0) -> Any:
    from harness_workloads.nets.mobilenet import SMALL, MobileNetV2

    return MobileNetV2(
        SMALL, classes=CLASSES, stem=16, last=128, stem_stride=1, width=params.width * width, depth=depth
    )


def _transformer(params: TransformerParams, *, width: float = 1.0, depth: float = 1.0) -> Any:
    from harness_workloads.nets.sequence import VisionTransformer

    heads = max(1, round(4 * params.width * width))
    layers = max(1, round(3 * depth))
    return VisionTransformer(side=32, width=16 * heads, heads=heads, layers=layers, classes=CLASSES)


def _inputs(_params: Params) -> dict[str, TensorSpec]:
    return {"image": TensorSpec("float32", (None, 3, 32, 32))}


def _fit(params: Params, job: Job) -> Model:
    import harness_torch

    harness_torch.seed_everything(job.seed)
    module = job.workload.build()
    harness_torch.fit(module, job, epochs=params.epochs, lr=params.lr, augment=job.workload.augment)
    return harness_torch.new_model(module, job, job.workload.inputs, OUTPUTS)


def workloads() -> Iterable[WorkloadSpec[Any]]:
    """Return the workloads of this module."""
    for name, net, model, params in (
        ("glyphs-resnet8", "MLPerf Tiny's ResNet-8", _resnet8, Params),
        ("glyphs-mobilenet", "a small MobileNetV2 (depthwise, inverted residuals)", _mobilenet, MobileNetParams),
        ("glyphs-transformer", "a small vision transformer with a convolutional stem", _transformer, TransformerParams),
    ):
        yield WorkloadSpec(
            name=name,
            modality="image",
            summary=f"{net} on rendered characters, tested on 10,080 items in unseen fonts",
            params=params,
            inputs=_inputs,
            outputs=OUTPUTS,
            fit=_fit,
            split=split,
            score=correct,
            aggregate=accuracy,
            model=model,
            loss=cross_entropy,
            augment=moved,
        )
