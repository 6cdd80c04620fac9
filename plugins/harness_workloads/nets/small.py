"""A network of two inputs, and a multilayer perceptron."""

from __future__ import annotations

# ruff: noqa: TID253  a module is pickled by its class, which must be importable; only functions import this file
import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional


class PairNetwork(nn.Module):
    """One encoder for both images, then a comparison of the two codes: same class or not."""

    def __init__(self, *, width: int = 16, blocks: int = 3, code: int = 64) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 1
        for block in range(blocks):
            outputs = width * 2 ** min(block, 2)
            conv = nn.Conv2d(inputs, outputs, 3, 2 if block else 1, 1, bias=False)
            layers += [conv, nn.BatchNorm2d(outputs), nn.ReLU()]
            inputs = outputs
        self.encoder, self.project = nn.Sequential(*layers), nn.Linear(inputs * 16, code)
        self.compare, self.head = nn.Linear(2 * code, code), nn.Linear(code, 2)

    def encode(self, x: Tensor) -> Tensor:
        """Map images [n, 1, h, w] to codes [n, code]."""
        return self.project(functional.adaptive_avg_pool2d(self.encoder(x), 4).flatten(1))

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Map two batches of images [n, 1, h, w] to logits [n, 2]: different, same."""
        first, second = self.encode(a), self.encode(b)
        both = torch.cat([torch.abs(first - second), first * second], dim=1)
        return self.head(functional.relu(self.compare(both)))


class Perceptron(nn.Module):
    """Linear layers with ReLU between them."""

    def __init__(self, features: int, hidden: int, layers: int, outputs: int) -> None:
        super().__init__()
        sizes = [features, *[hidden] * layers]
        body: list[nn.Module] = []
        for into, out in itertools.pairwise(sizes):
            body += [nn.Linear(into, out), nn.ReLU()]
        self.body, self.head = nn.Sequential(*body), nn.Linear(sizes[-1], outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Map rows [n, features] to [n, outputs]."""
        return self.head(self.body(x))
