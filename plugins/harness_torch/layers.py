"""Layers that methods leave in a model beside those of torch.nn: exporters and later steps know them by their base."""

from __future__ import annotations

# ruff: noqa: TID253  a module is pickled by its class, which must be importable; only functions import this file
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


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


class Bag(nn.EmbeddingBag):
    """An embedding bag that looks up bags of one size and reduces them: exporters know no bag as such."""

    def forward(self, input: Tensor, offsets: Tensor | None = None, per_sample_weights: Tensor | None = None) -> Tensor:  # noqa: A002  torch's own names
        """Return the sum, mean or maximum of each bag, [n, features] for indices [n, k]; others go torch's own way."""
        plain = self.max_norm is None and self.padding_idx is None and offsets is None
        if not plain or input.dim() != 2 or (per_sample_weights is not None and self.mode != "sum"):
            return super().forward(input, offsets, per_sample_weights)
        found = functional.embedding(input, self.weight)
        if per_sample_weights is not None:
            found = found * per_sample_weights[..., None]
        if self.mode == "max":
            return found.amax(1)
        return found.sum(1) if self.mode == "sum" else found.mean(1)
