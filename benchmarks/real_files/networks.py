"""Networks in the shapes that users bring, for ``--workload benchmarks.real_files.networks:NAME`` and as ``.pt2``.

They are not trained: normalisation layers have seen the data once, so that their statistics are not those of a fresh
layer, and what is judged is how close a compressed network stays to itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.real_files import inputs
from harness_workloads import UserWorkload

Arrays = Mapping[str, NDArray[Any]]
ITEMS = 96


def _block(wide_in: int, wide_out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(wide_in, wide_out, 3, padding=1, bias=False),
        nn.BatchNorm2d(wide_out),
        nn.ReLU(),
        nn.Conv2d(wide_out, wide_out, 3, padding=1, bias=False),
        nn.BatchNorm2d(wide_out),
        nn.ReLU(),
    )


class UNet(nn.Module):
    """Masks of three classes: a transposed convolution up, a plain resize up, and skips joined by concatenation."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.deep, self.floor = _block(3, 12), _block(12, 24), _block(24, 32)
        self.rise = nn.ConvTranspose2d(32, 24, 2, stride=2)
        self.up, self.top = _block(48, 24), _block(36, 12)
        self.head = nn.Conv2d(12, 3, 1)

    def forward(self, image: Tensor) -> Tensor:
        first = self.down(image)
        second = self.deep(functional.max_pool2d(first, 2))
        third = self.floor(functional.max_pool2d(second, 2))
        middle = self.up(torch.cat([self.rise(third), second], 1))
        raised = functional.interpolate(middle, scale_factor=2.0, mode="nearest")
        masks: Tensor = self.head(self.top(torch.cat([raised, first], 1)))
        return masks


class Detector(nn.Module):
    """Boxes in pixels and class scores in one output, as YOLO's exports have them, and the features beside."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            nn.Conv2d(3, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.SiLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.BatchNorm2d(32),
            nn.SiLU(), nn.Conv2d(32, 32, 3, 2, 1), nn.BatchNorm2d(32), nn.SiLU(),
        )  # fmt: skip
        self.boxes, self.scores = nn.Conv2d(32, 4, 1), nn.Conv2d(32, 5, 1)
        self.register_buffer("stride", torch.tensor(8.0))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        features = self.trunk(image)
        boxes = self.boxes(features).flatten(2).exp() * self.stride
        scores = self.scores(features).flatten(2).sigmoid()
        return torch.cat([boxes, scores], 1), features


class SpeechToText(nn.Module):
    """Convolutions over frames, a bidirectional LSTM, and logits of each frame for CTC."""

    def __init__(self) -> None:
        super().__init__()
        self.front = nn.Sequential(nn.Conv1d(40, 48, 5, 2, 2), nn.BatchNorm1d(48), nn.ReLU())
        self.body = nn.LSTM(48, 32, bidirectional=True, batch_first=True)
        self.head = nn.Linear(64, 29)

    def forward(self, frames: Tensor) -> Tensor:
        states, _last = self.body(self.front(frames.transpose(1, 2)).transpose(1, 2))
        logits: Tensor = self.head(states)
        return logits


class LanguageModel(nn.Module):
    """A causal transformer whose head is its embedding."""

    def __init__(self, words: int = 64, width: int = 48, longest: int = 24) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(words, width), nn.Embedding(longest, width)
        self.join, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.before, self.between, self.after = (nn.LayerNorm(width) for _ in range(3))
        self.wide, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.head = nn.Linear(width, words, bias=False)
        self.head.weight = self.words.weight
        self.register_buffer("mask", torch.full((longest, longest), float("-inf")).triu(1))

    def forward(self, ids: Tensor) -> Tensor:
        length = ids.shape[1]
        flow = self.words(ids) + self.places(torch.arange(length, device=ids.device))
        query, key, value = self.join(self.before(flow)).reshape(-1, length, 3, 4, 12).permute(2, 0, 3, 1, 4)
        weights = (query @ key.transpose(-1, -2) / 12**0.5 + self.mask[:length, :length]).softmax(-1)
        flow = flow + self.out((weights @ value).transpose(1, 2).reshape(-1, length, 48))
        flow = flow + self.narrow(functional.gelu(self.wide(self.between(flow))))
        logits: Tensor = self.head(self.after(flow))
        return logits


class Recommender(nn.Module):
    """A bag of item ids, a user id and numbers, of three dtypes; its inputs are not in alphabetical order."""

    def __init__(self) -> None:
        super().__init__()
        self.bags, self.users = nn.EmbeddingBag(200, 24, mode="mean"), nn.Embedding(50, 24)
        self.deep = nn.Sequential(nn.Linear(54, 64), nn.ReLU(), nn.Linear(64, 2))

    def forward(self, user: Tensor, items: Tensor, numbers: Tensor) -> Tensor:
        joined = torch.cat([self.users(user), self.bags(items), numbers], 1)
        logits: Tensor = self.deep(joined)
        return logits


class Siamese(nn.Module):
    """Two pictures through one encoder, and the angle between them."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(_block(3, 16), nn.AvgPool2d(4), _block(16, 24), nn.AdaptiveAvgPool2d(1))
        self.project = nn.Linear(24, 16)

    def forward(self, probe: Tensor, gallery: Tensor) -> tuple[Tensor, Tensor]:
        one, other = (functional.normalize(self.project(self.encoder(x).flatten(1))) for x in (probe, gallery))
        return (one * other).sum(1, keepdim=True), one


class SequenceClassifier(nn.Module):
    """Two layers of bidirectional LSTM over a sequence; the last states decide."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.LSTM(12, 24, num_layers=2, bidirectional=True, batch_first=True)
        self.head = nn.Linear(48, 6)

    def forward(self, steps: Tensor) -> Tensor:
        _all, (last, _cells) = self.body(steps)
        logits: Tensor = self.head(torch.cat([last[-2], last[-1]], 1))
        return logits


class Grouped(nn.Module):
    """Grouped and depthwise convolutions with shuffled channels, one of them used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 24, 3, 2, 1)
        self.mix = nn.Conv2d(24, 24, 1, groups=3)
        self.depth = nn.Conv2d(24, 24, 3, padding=1, groups=24)
        self.norm = nn.BatchNorm2d(24)
        self.head = nn.Linear(24, 10)

    def forward(self, image: Tensor) -> Tensor:
        flow = functional.relu(self.stem(image))
        for _turn in range(2):  # the same weights on both turns
            mixed = self.mix(flow)
            shuffled = mixed.reshape(-1, 3, 8, *mixed.shape[2:]).transpose(1, 2).flatten(1, 2)
            flow = functional.relu(flow + self.norm(self.depth(shuffled)))
        logits: Tensor = self.head(flow.mean((2, 3)))
        return logits


def _pictures(seed: int, size: int = 32) -> NDArray[np.float32]:
    return np.ascontiguousarray(inputs.pictures(seed, ITEMS, size, size).transpose(0, 3, 1, 2))


def _ids(seed: int, high: int, *shape: int) -> NDArray[np.int64]:
    return np.minimum(np.random.default_rng(seed).zipf(1.4, (ITEMS, *shape)), high) - 1


def _ready(module: nn.Module, data: Arrays) -> nn.Module:
    """Let normalisation layers see the data once, and leave the module in evaluation mode."""
    module.train()
    with torch.no_grad():
        module(*(torch.from_numpy(value) for value in data.values()))
    return module.eval()


def _workload(kind: Callable[[], nn.Module], data: Arrays, *outputs: str) -> UserWorkload:
    torch.manual_seed(0)
    return UserWorkload(model=_ready(kind(), data), inputs=data, outputs=outputs)


def unet() -> UserWorkload:
    return _workload(UNet, {"image": _pictures(20)}, "masks")


def detector() -> UserWorkload:
    return _workload(Detector, {"image": _pictures(21, 64)}, "predictions", "features")


def ctc() -> UserWorkload:
    frames = inputs.spectra(22, ITEMS, 60, window=400, hop=160, bands=40)
    return _workload(SpeechToText, {"frames": frames}, "logits")


def language_model() -> UserWorkload:
    return _workload(LanguageModel, {"ids": _ids(23, 64, 24)}, "logits")


def recommender() -> UserWorkload:
    numbers = np.random.default_rng(26).normal(size=(ITEMS, 6)).astype(np.float32)
    return _workload(Recommender, {"user": _ids(24, 50), "items": _ids(25, 200, 8), "numbers": numbers}, "logits")


def siamese() -> UserWorkload:
    return _workload(Siamese, {"probe": _pictures(27), "gallery": _pictures(28)}, "similarity", "embedding")


def bilstm() -> UserWorkload:
    steps = inputs.brain_waves(29, ITEMS, 40, channels=12).transpose(0, 2, 1)
    return _workload(SequenceClassifier, {"steps": np.ascontiguousarray(steps)}, "logits")


def grouped() -> UserWorkload:
    return _workload(Grouped, {"image": _pictures(30)}, "logits")


FACTORIES: Mapping[str, Callable[[], UserWorkload]] = {
    made.__name__: made for made in (unet, detector, ctc, language_model, recommender, siamese, bilstm, grouped)
}


def write_program(name: str, folder: Path) -> tuple[Path, Path]:
    """Write one as ``.pt2``, with its data beside it, and return both paths."""
    made = FACTORIES[name]()
    batch = torch.export.Dim("batch", min=1, max=1024)
    example = tuple(torch.from_numpy(value[:2]) for value in made.inputs.values())
    program = torch.export.export(made.model, example, dynamic_shapes=tuple({0: batch} for _ in example))
    model, data = folder / f"{name}.pt2", folder / f"{name}.npz"
    torch.export.save(program, model)
    names = map(str, program.graph_signature.user_inputs)
    np.savez(data, **dict(zip(names, made.inputs.values(), strict=True)))
    return model, data
