"""Tiny torch workloads and the job around them, so that methods are tested through what a plugin author sees."""

from __future__ import annotations

import dataclasses
import itertools
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_diabetes, load_digits
from torch import nn

from harness.api import Job, Model, Split, TensorSpec
from harness_torch import fit, new_model

torch.set_num_threads(1)  # two threads that wait for each other on a busy machine are slower than one


class TinyCnn(nn.Module):
    """Convolutions with a residual, a depthwise layer and a dense head over flattened maps."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, width, 3, padding=1)
        self.norm = nn.BatchNorm2d(width)
        self.inner = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.inner_norm = nn.BatchNorm2d(width)
        self.depthwise = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.point = nn.Conv2d(width, 2 * width, 1)
        self.hidden = nn.Linear(2 * width * 4, 24)
        self.head = nn.Linear(24, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        value = torch.relu(self.norm(self.stem(image)))
        value = torch.relu(value + self.inner_norm(self.inner(value)))
        value = torch.relu(self.point(torch.relu(self.depthwise(value))))
        value = nn.functional.adaptive_avg_pool2d(value, 2).flatten(1)
        return self.head(torch.relu(self.hidden(value)))


class TinyGru(nn.Module):
    """Rows of the image as a sequence."""

    def __init__(self, width: int = 16, layers: int = 1) -> None:
        super().__init__()
        self.gru = nn.GRU(8, width, num_layers=layers, batch_first=True)
        self.head = nn.Linear(width, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.head(self.gru(image.squeeze(1))[0][:, -1])


class TinyTransformer(nn.Module):
    """Rows of the image as tokens."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.embed = nn.Linear(8, width)
        self.position = nn.Parameter(torch.randn(1, 8, width) * 0.02)
        layer = nn.TransformerEncoderLayer(width, 2, 2 * width, dropout=0.0, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(width, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.head(self.layers(self.embed(image.squeeze(1)) + self.position).mean(1))


class TinyMlp(nn.Module):
    """Regression of one value from ten."""

    def __init__(self, width: int = 32, depth: int = 3) -> None:
        super().__init__()
        sizes = [10, *[width] * (depth - 1)]
        self.hidden = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(sizes))
        self.head = nn.Linear(sizes[-1], 1)

    def forward(self, row: torch.Tensor) -> torch.Tensor:
        for layer in self.hidden:
            row = torch.relu(layer(row))
        return self.head(row)


@dataclass(frozen=True)
class TinyWorkload:
    """A ``WorkloadView``: classification of digits, or regression of the diabetes rows."""

    name: str
    kind: type[nn.Module]
    base: int
    inputs: Mapping[str, TensorSpec]
    task: str = "classification"
    outputs: tuple[str, ...] = ("output",)
    augment: Any = None

    @property
    def higher_is_better(self) -> bool:
        return self.task == "classification"

    def build(self, *, width: float = 1.0, depth: float = 1.0) -> nn.Module:
        del depth  # these models have one depth
        return self.kind(max(2, 2 * round(self.base * width / 2)))  # two heads of attention share it

    def loss(self, outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        if self.task == "classification":
            return nn.functional.cross_entropy(outputs, labels)
        return nn.functional.mse_loss(outputs[:, 0], labels)

    def score(self, outputs: Mapping[str, np.ndarray], labels: np.ndarray) -> np.ndarray:
        value = outputs[self.outputs[0]]
        if self.task == "classification":
            return (value.argmax(1) == labels)[:, None].astype(np.float64)
        return (value[:, 0] - labels)[:, None] ** 2

    def aggregate(self, scores: np.ndarray) -> float:
        return float(scores.mean())


@dataclass
class TinyData:
    """Splits of one data set by position in a seeded order; the test split is refused, as in a build step."""

    x: np.ndarray
    y: np.ndarray | None
    input_name: str
    bounds: Mapping[str, tuple[float, float]] = field(
        default_factory=lambda: {"train": (0, 0.7), "calibration": (0.7, 0.8), "selection": (0.8, 1)}
    )

    def split(self, name: str) -> Split:
        low, high = (int(share * len(self.x)) for share in self.bounds[name])
        labels = None if self.y is None else self.y[low:high]
        return Split({self.input_name: self.x[low:high]}, labels)


def digits(items: int = 320) -> TinyData:
    """Return digits as [n, 1, 8, 8] with classes."""
    data = load_digits()
    order = np.random.default_rng(0).permutation(len(data.target))[:items]
    images = (data.images[order, None] / 8 - 1).astype(np.float32)
    return TinyData(images, data.target[order].astype(np.int64), "image")


def diabetes() -> TinyData:
    """Return 442 rows of ten standardized values, and their target."""
    data = load_diabetes()
    target = (data.target - data.target.mean()) / data.target.std()
    return TinyData((data.data * 20).astype(np.float32), target.astype(np.float32), "row")


_IMAGE = {"image": TensorSpec("float32", (None, 1, 8, 8))}
WORKLOADS = {
    "cnn": TinyWorkload("cnn", TinyCnn, 8, _IMAGE),
    "gru": TinyWorkload("gru", TinyGru, 16, _IMAGE),
    "transformer": TinyWorkload("transformer", TinyTransformer, 16, _IMAGE),
    "mlp": TinyWorkload("mlp", TinyMlp, 32, {"row": TensorSpec("float32", (None, 10))}, task="regression"),
}


def make_job(out: Path, workload: str = "cnn", *, seed: int = 0, channel_multiple: int = 1, data: Any = None) -> Job:
    """Return a job in a fresh folder below ``out``, without a reference."""
    view = WORKLOADS[workload]
    folder = out / f"step{len(list(out.iterdir())) if out.exists() else 0}"
    folder.mkdir(parents=True)
    return Job(
        out=folder,
        seed=seed,
        threads=1,
        data=data or (diabetes() if workload == "mlp" else digits()),
        workload=view,
        progress=lambda share, text: None,
        log=logging.getLogger("harness"),
        hardware=SimpleNamespace(channel_multiple=channel_multiple),
    )


def trained(out: Path, workload: str = "cnn", *, epochs: int = 3) -> Model:
    """Return the workload's model after a short training."""
    job = make_job(out, workload)
    torch.manual_seed(0)
    module = job.workload.build()
    fit(module, job, epochs=epochs, lr=5e-3)
    return new_model(module, job, job.workload.inputs, job.workload.outputs)


def compress(spec: Any, model: Model, job: Job, reference: Model | None = None, **params: Any) -> Model:
    """Run one method as the build plane does."""
    return spec.compress(model, spec.params(**params), dataclasses.replace(job, reference=reference or model))
