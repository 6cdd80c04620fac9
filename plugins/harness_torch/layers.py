"""Layers that methods leave in a model beside those of torch.nn: exporters and later steps know them by their base."""

from __future__ import annotations

# ruff: noqa: TID253  a module is pickled by its class, which must be importable; only functions import this file
from typing import Any

import torch
from torch import Tensor, nn


class _Sign(torch.autograd.Function):
    """+1 above zero, else -1; the gradient passes where |x| <= 1 (Hubara et al., "Binarized Neural Networks", 2016)."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        ctx.save_for_backward(value)
        return torch.where(value > 0, 1.0, -1.0)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (value,) = ctx.saved_tensors
        return gradients[0] * (value.abs() <= 1)


def binary(value: Tensor) -> Tensor:
    """Return +1 where a value is above zero, else -1: behind a ReLU a zero means "off"."""
    if value.requires_grad and torch.is_grad_enabled():
        result: Tensor = _Sign.apply(value)
        return result
    return torch.where(value > 0, 1.0, -1.0)  # what exporters see


class BinaryConv2d(nn.Conv2d):
    """A convolution of the signs of its input; zero padding stays zero."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  the name that torch.nn gives it
        """Return the convolution of plus and minus ones, [n, channels, height, width]."""
        return super().forward(binary(input))


class BinaryLinear(nn.Linear):
    """A linear layer on the signs of its input."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  the name that torch.nn gives it
        """Return the product with plus and minus ones, [n, features]."""
        return super().forward(binary(input))
