"""Networks of one layer kind each, small enough to be trained, exported and run in a second."""

from __future__ import annotations

# ruff: noqa: TID253  a module is pickled by its class, which must be importable; only functions import this file
from typing import Any

import torch
from torch import Tensor, nn


class Dense(nn.Module):
    """Two hidden layers over rows [n, 16]."""

    def __init__(self, classes: int, width: int) -> None:
        super().__init__()
        self.first = nn.Linear(16, 2 * width)
        self.second = nn.Linear(2 * width, width)
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits [n, classes]."""
        return self.head(torch.relu(self.second(torch.relu(self.first(x)))))


class Conv(nn.Module):
    """A stem, a residual block and a strided convolution over images [n, 3, 8, 8]."""

    def __init__(self, classes: int, width: int) -> None:
        super().__init__()
        self.stem, self.stem_norm = nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.inner, self.inner_norm = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.down = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)
        self.head = nn.Linear(2 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits [n, classes]."""
        value = torch.relu(self.stem_norm(self.stem(x)))
        value = torch.relu(value + self.inner_norm(self.inner(value)))
        return self.head(torch.relu(self.down(value)).mean((2, 3)))


class Depthwise(nn.Module):
    """Depthwise-separable convolutions over images [n, 3, 8, 8]."""

    def __init__(self, classes: int, width: int) -> None:
        super().__init__()
        self.stem, self.stem_norm = nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.deep = nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False)
        self.deep_norm = nn.BatchNorm2d(width)
        self.point = nn.Conv2d(width, 2 * width, 1)
        self.head = nn.Linear(2 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits [n, classes]."""
        value = nn.functional.relu6(self.stem_norm(self.stem(x)))
        value = nn.functional.relu6(self.deep_norm(self.deep(value)))
        return self.head(nn.functional.relu6(self.point(value)).mean((2, 3)))


class Recurrent(nn.Module):
    """A GRU or an LSTM over sequences [n, 8, 8]; the last step's state is classified."""

    def __init__(self, classes: int, width: int, kind: str) -> None:
        super().__init__()
        layer: Any = {"gru": nn.GRU, "lstm": nn.LSTM}[kind]
        self.layer = layer(8, width, batch_first=True)
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits [n, classes]."""
        return self.head(self.layer(x)[0][:, -1])


class Attention(nn.Module):
    """One transformer encoder layer over sequences [n, 8, 8]."""

    def __init__(self, classes: int, width: int) -> None:
        super().__init__()
        self.embed = nn.Linear(8, width)
        self.position = nn.Parameter(torch.randn(1, 8, width) * 0.02)
        self.layer = nn.TransformerEncoderLayer(width, 2, 2 * width, dropout=0.0, batch_first=True)
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits [n, classes]."""
        return self.head(self.layer(self.embed(x) + self.position).mean(1))


class Embedding(nn.Module):
    """A bag of tokens [n, 8] of int64."""

    def __init__(self, classes: int, width: int) -> None:
        super().__init__()
        self.table = nn.Embedding(32, width)
        self.hidden = nn.Linear(width, width)
        self.head = nn.Linear(width, classes)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return logits [n, classes]."""
        return self.head(torch.relu(self.hidden(self.table(tokens).mean(1))))


class Pair(nn.Module):
    """Two rows [n, 16], joined."""

    def __init__(self, classes: int, width: int) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(16, width), nn.Linear(16, width)
        self.head = nn.Linear(2 * width, classes)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Return logits [n, classes]."""
        return self.head(torch.relu(torch.cat([self.left(a), self.right(b)], 1)))
