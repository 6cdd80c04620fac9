"""Residual networks: MLPerf Tiny's ResNet-8 for 32x32 images, and ResNet-18 and ResNet-50 at their usual size."""

from __future__ import annotations

# ruff: noqa: TID253  a module is pickled by its class, which must be importable; only functions import this file
from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)


class TinyBlock(nn.Module):
    """Two 3x3 convolutions; where the shape changes, the shortcut is a 1x1 convolution with bias and no norm."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = _conv(inputs, outputs, 3, stride), nn.BatchNorm2d(outputs)
        self.conv2, self.norm2 = _conv(outputs, outputs, 3), nn.BatchNorm2d(outputs)
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else nn.Conv2d(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map [n, inputs, h, w] to [n, outputs, h / stride, w / stride]."""
        y = functional.relu(self.norm1(self.conv1(x)))
        return functional.relu(self.norm2(self.conv2(y)) + self.shortcut(x))


class ResNet8(nn.Module):
    """MLPerf Tiny's image classification network (Banbury et al. 2021): 77,658 parameters with 1 channel, 10 classes.

    Args:
        channels: Of the image.
        classes: Outputs.
        width: Scales 16, 32 and 64 channels, rounded to multiples of 4.
        depth: Scales the three blocks; they are dealt to the stages in turn.
    """

    def __init__(self, channels: int, classes: int, *, width: float = 1.0, depth: float = 1.0) -> None:
        super().__init__()
        widths = [max(4, round(base * width / 4) * 4) for base in (16, 32, 64)]
        blocks = max(1, round(3 * depth))
        self.stem, self.norm = _conv(channels, widths[0], 3), nn.BatchNorm2d(widths[0])
        layers, inputs = [], widths[0]
        for stage, outputs in enumerate(widths):
            for block in range(blocks // 3 + (stage < blocks % 3)):
                layers.append(TinyBlock(inputs, outputs, 2 if stage and block == 0 else 1))
                inputs = outputs
        self.blocks = nn.Sequential(*layers)
        self.head = nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map images [n, channels, 32, 32] to logits [n, classes]."""
        x = self.blocks(functional.relu(self.norm(self.stem(x))))
        return self.head(functional.adaptive_avg_pool2d(x, 1).flatten(1))


class Block(nn.Module):
    """ResNet's basic (expansion 1) or bottleneck (expansion 4) block (He et al. 2015), stride on the 3x3."""

    def __init__(self, inputs: int, width: int, stride: int, *, bottleneck: bool) -> None:
        super().__init__()
        outputs = width * (4 if bottleneck else 1)
        sizes = ((1, 1), (3, stride), (1, 1)) if bottleneck else ((3, stride), (3, 1))
        layers: list[nn.Module] = []
        last = inputs
        for i, (kernel, step) in enumerate(sizes):
            into = outputs if i == len(sizes) - 1 else width
            layers += [_conv(last, into, kernel, step), nn.BatchNorm2d(into), nn.ReLU()]
            last = into
        self.body = nn.Sequential(*layers[:-1])
        same = stride == 1 and inputs == outputs
        change = nn.Sequential(_conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))
        self.shortcut = nn.Identity() if same else change

    def forward(self, x: Tensor) -> Tensor:
        """Map [n, inputs, h, w] to [n, outputs, h / stride, w / stride]."""
        return functional.relu(self.body(x) + self.shortcut(x))


class ResNet(nn.Module):
    """ResNet for 224x224 images: [2, 2, 2, 2] basic blocks are ResNet-18, [3, 4, 6, 3] bottlenecks ResNet-50."""

    def __init__(self, blocks: Sequence[int], *, bottleneck: bool, classes: int = 1000, width: float = 1.0) -> None:
        super().__init__()
        widths = [max(8, round(base * width / 8) * 8) for base in (64, 128, 256, 512)]
        self.stem = nn.Sequential(
            nn.Conv2d(3, widths[0], 7, 2, 3, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU(), nn.MaxPool2d(3, 2, 1)
        )
        layers, inputs = [], widths[0]
        for stage, (count, size) in enumerate(zip(blocks, widths, strict=True)):
            for block in range(count):
                layers.append(Block(inputs, size, 2 if stage and block == 0 else 1, bottleneck=bottleneck))
                inputs = size * (4 if bottleneck else 1)
        self.blocks = nn.Sequential(*layers)
        self.head = nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map images [n, 3, h, w] to logits [n, classes]."""
        x = self.blocks(self.stem(x))
        return self.head(functional.adaptive_avg_pool2d(x, 1).flatten(1))
