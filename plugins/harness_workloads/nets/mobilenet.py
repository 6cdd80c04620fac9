"""MobileNetV2: depthwise separable convolutions in inverted residuals (Sandler et al. 2018)."""

from __future__ import annotations

# ruff: noqa: TID253  a module is pickled by its class, which must be importable; only functions import this file
from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

# expansion, channels, blocks, stride of the first: the paper's table 2, and one for 32x32 images
IMAGENET = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
SMALL = ((1, 16, 1, 1), (4, 24, 2, 2), (4, 32, 2, 2), (4, 64, 2, 2))


def _unit(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU6())


class InvertedResidual(nn.Module):
    """Widen by a 1x1 convolution, filter each channel by a 3x3, narrow by a 1x1 without activation."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        widen = [_unit(inputs, hidden, 1)] if expansion != 1 else []
        narrow = nn.Sequential(nn.Conv2d(hidden, outputs, 1, bias=False), nn.BatchNorm2d(outputs))
        self.body = nn.Sequential(*widen, _unit(hidden, hidden, 3, stride, hidden), narrow)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """Map [n, inputs, h, w] to [n, outputs, h / stride, w / stride]."""
        return x + self.body(x) if self.residual else self.body(x)


class MobileNetV2(nn.Module):
    """The network; with the defaults it has 3,504,872 parameters.

    Args:
        settings: Rows of (expansion, channels, blocks, stride).
        stem, last: Channels of the first and the last convolution.
        stem_stride: 1 for small images.
        width: Scales all channels, rounded to multiples of 8.
        depth: Scales the blocks of each row.
    """

    def __init__(
        self,
        settings: Sequence[tuple[int, int, int, int]] = IMAGENET,
        *,
        classes: int = 1000,
        stem: int = 32,
        last: int = 1280,
        stem_stride: int = 2,
        width: float = 1.0,
        depth: float = 1.0,
    ) -> None:
        super().__init__()
        stem, last = (max(8, round(size * width / 8) * 8) for size in (stem, last))
        layers: list[nn.Module] = [_unit(3, stem, 3, stem_stride)]
        inputs = stem
        for expansion, channels, count, stride in settings:
            outputs = max(8, round(channels * width / 8) * 8)
            for block in range(max(1, round(count * depth))):
                layers.append(InvertedResidual(inputs, outputs, 1 if block else stride, expansion))
                inputs = outputs
        self.features = nn.Sequential(*layers, _unit(inputs, last, 1))
        self.head = nn.Linear(last, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map images [n, 3, h, w] to logits [n, classes]."""
        return self.head(functional.adaptive_avg_pool2d(self.features(x), 1).flatten(1))
