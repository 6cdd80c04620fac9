"""Networks over sequences: a gated recurrent network, a transformer encoder and a small vision transformer."""

from __future__ import annotations

# ruff: noqa: TID253  a module is pickled by its class, which must be importable; only functions import this file
import torch
from torch import Tensor, nn


class RecurrentClassifier(nn.Module):
    """GRU layers, then a linear layer on the last step."""

    def __init__(self, features: int, hidden: int, layers: int, classes: int) -> None:
        super().__init__()
        self.recurrent = nn.GRU(features, hidden, layers, batch_first=True)
        self.head = nn.Linear(hidden, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map sequences [n, steps, features] to logits [n, classes]."""
        return self.head(self.recurrent(x)[0][:, -1])


class Attention(nn.Module):
    """Multi-head self-attention of linear layers and matrix products, which every exporter reads."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.out = nn.Linear(width, width)

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Map [n, tokens, width] to the same shape."""
        query, key, value = self._split(self.query(x)), self._split(self.key(x)), self._split(self.value(x))
        weights = torch.softmax(query @ key.transpose(-2, -1) * query.shape[-1] ** -0.5, dim=-1)
        return self.out((weights @ value).transpose(1, 2).flatten(2))


class EncoderBlock(nn.Module):
    """Pre-norm encoder block: attention, then two linear layers with GELU, each added to its input."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(width), Attention(width, heads)
        self.norm2, self.up, self.act, self.down = (
            nn.LayerNorm(width),
            nn.Linear(width, hidden),
            nn.GELU(),
            nn.Linear(hidden, width),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map [n, tokens, width] to the same shape."""
        x = x + self.attention(self.norm1(x))
        return x + self.down(self.act(self.up(self.norm2(x))))


class Encoder(nn.Module):
    """Learned positions, encoder blocks, a last norm, the mean over tokens, a linear layer."""

    def __init__(self, tokens: int, width: int, heads: int, layers: int, hidden: int, classes: int) -> None:
        super().__init__()
        self.position = nn.Parameter(torch.randn(1, tokens, width) * 0.02)
        self.blocks = nn.Sequential(*(EncoderBlock(width, heads, hidden) for _ in range(layers)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens [n, tokens, width] to logits [n, classes]."""
        return self.head(self.norm(self.blocks(x + self.position)).mean(1))


class SequenceEncoder(nn.Module):
    """A transformer encoder over feature vectors."""

    def __init__(
        self, features: int, *, tokens: int, width: int, heads: int, layers: int, hidden: int, classes: int
    ) -> None:
        super().__init__()
        self.embed = nn.Linear(features, width)
        self.encoder = Encoder(tokens, width, heads, layers, hidden, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map sequences [n, tokens, features] to logits [n, classes]."""
        return self.encoder(self.embed(x))


def _stem(channels: int, width: int) -> nn.Sequential:
    """Three 3x3 convolutions that quarter the sides: with few items they learn what patches alone do not."""
    layers: list[nn.Module] = []
    for inputs, outputs, stride in ((channels, width // 4, 1), (width // 4, width // 2, 2), (width // 2, width, 2)):
        layers += [nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv2d(width, width, 1))


class VisionTransformer(nn.Module):
    """A small vision transformer (Dosovitskiy et al. 2021) with a convolutional stem (Xiao et al. 2021).

    A token stands for 4x4 pixels; the mean over tokens stands in for a class token.

    Args:
        side: Of the square image, in pixels, a multiple of 4.
        width: Of a token, a multiple of ``heads`` and of 4.
    """

    def __init__(self, *, side: int, width: int, heads: int, layers: int, classes: int, channels: int = 3) -> None:
        super().__init__()
        self.embed = _stem(channels, width)
        self.encoder = Encoder((side // 4) ** 2, width, heads, layers, 2 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map images [n, channels, side, side] to logits [n, classes]."""
        return self.encoder(self.embed(x).flatten(2).transpose(1, 2))
