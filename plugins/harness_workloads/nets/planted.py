"""A network of two like inputs whose answers show each common fault of a conversion."""

from __future__ import annotations

# ruff: noqa: TID253  a module is pickled by its class, which must be importable; only functions import this file
import torch
from torch import Tensor, nn

SIZE = 8  # of every dimension, so that each fault leaves every shape as it is


class Planted(nn.Module):
    """Convolution, batch norm, a square linear layer and a softmax; one thing may be wrong.

    Args:
        fault: "none", or a fault that the workload "planted-answers" names: the inputs are taken for each other, the
            linear layer's weight is transposed, the image's axes are taken for channels last, a channel's weights are
            a tenth too large, the batch norm has another epsilon, the softmax runs over the axis beside, or all
            weights are another network's.
    """

    def __init__(self, fault: str = "none") -> None:
        super().__init__()
        self.fault = fault
        self.conv = nn.Conv2d(SIZE, SIZE, 3, padding=1)
        self.norm = nn.BatchNorm2d(SIZE, eps=1e-3 if fault == "epsilon" else 1e-5)
        self.linear = nn.Linear(SIZE, SIZE)
        generator = torch.Generator().manual_seed(1 if fault == "other" else 0)
        with torch.no_grad():
            for value in self.parameters():
                value.copy_(torch.randn(value.shape, generator=generator) * 0.4)
            self.norm.running_mean.copy_(torch.randn(SIZE, generator=generator) * 0.1)
            self.norm.running_var.copy_(torch.rand(SIZE, generator=generator) * 0.2 + 0.02)
            if fault == "transposed-weight":
                self.linear.weight.copy_(self.linear.weight.T.clone())
            if fault == "channel-scale":
                self.conv.weight[3] *= 1.1

    def forward(self, zeta: Tensor, alpha: Tensor) -> Tensor:
        """Return shares [n, 8, 8] of two images [n, 8, 8, 8]."""
        if self.fault == "swapped-inputs":
            zeta, alpha = alpha, zeta
        if self.fault == "layout":
            zeta = zeta.permute(0, 3, 1, 2)
        rows = (torch.relu(self.norm(self.conv(zeta))) - alpha).mean(3)
        return torch.softmax(self.linear(rows), dim=1 if self.fault == "softmax-axis" else 2)
