"""Weights of few levels: ternary, and binary fixed point."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.api import Job, Model, param

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from harness_torch.weights import Weight


@dataclass(frozen=True)
class TernaryParams:
    """Parameters of ``ternary``."""

    threshold: float = param(0.7, "weights below this times the channel's mean |w| become zero", gt=0, lt=3)
    epochs: int = param(5, "training epochs with ternary weights; 0 only rounds", ge=0)
    lr: float = param(5e-3, "peak learning rate of the latent weights", gt=0)
    first: bool = param(False, "make the first layer ternary too")
    last: bool = param(False, "make the last layer ternary too")


@dataclass(frozen=True)
class FixedBinaryParams:
    """Parameters of ``fixed-binary``."""

    fraction: int = param(4, "B: weights are round(x 2^B) / 2^B", ge=0, le=15)
    bits: int | None = param(None, "width of a weight, sign included; none is B + 1, for [-1, 1)", ge=2, le=16)
    epochs: int = param(2, "training epochs through the rounding; 0 only rounds", ge=0)
    lr: float = param(1e-3, "peak learning rate of the latent weights", gt=0)
    first: bool = param(True, "round the first layer too")
    last: bool = param(True, "round the last layer too")


def check_fixed_binary(params: FixedBinaryParams) -> str | None:
    """Say what is wrong with parameters together."""
    if params.bits is None and params.fraction < 1:
        return "fraction=0 leaves one bit for a signed number; give bits of at least 2"
    return None


def ternary(weight: Tensor, out_dim: int = 0, threshold: float = 0.7) -> Tensor:
    """Return alpha x {-1, 0, +1} by output channel (Li et al., "Ternary Weight Networks", 2016, equations 5 and 6).

    Delta = threshold x mean |w|; alpha = mean of |w| where |w| > Delta, the scale of least squared error.

    Args:
        weight: Latent weight.
        out_dim: Dimension of the output channels.
        threshold: 0.7 is the paper's optimum for normal weights.
    """
    import torch

    others = [dim for dim in range(weight.dim()) if dim != out_dim]
    magnitude = weight.abs()
    kept = magnitude > threshold * magnitude.mean(dim=others, keepdim=True)
    count = kept.sum(dim=others, keepdim=True).clamp(min=1)
    alpha = (magnitude * kept).sum(dim=others, keepdim=True) / count
    return torch.where(kept, torch.where(weight > 0, alpha, -alpha), torch.zeros_like(weight))


def fixed_binary(weight: Tensor, fraction: int, bits: int) -> Tensor:
    """Return clip(round(x 2^B), -2^(bits-1), 2^(bits-1) - 1) / 2^B: a scale that is a power of two."""
    top = 2 ** (bits - 1)
    return (weight * 2.0**fraction).round().clamp(-top, top - 1) * 2.0**-fraction


def compress_ternary(model: Model, params: TernaryParams, job: Job) -> Model:
    """Train with ternary weights, starting from the trained ones, and leave them as dense float values.

    Raises:
        Unsupported: The model has no layer that may be ternary.
    """

    def project(item: Weight, value: Tensor) -> Tensor:
        return ternary(value, item.out_dim, params.threshold)

    return _compress(model, params, job, project)


def compress_fixed_binary(model: Model, params: FixedBinaryParams, job: Job) -> Model:
    """Train with weights in binary fixed point, after batch norms are folded, and leave them rounded.

    Raises:
        Unsupported: The model has no layer that may be rounded.
    """
    bits = params.bits or params.fraction + 1
    return _compress(model, params, job, lambda _item, value: fixed_binary(value, params.fraction, bits), fold=True)


def _compress(
    model: Model,
    params: TernaryParams | FixedBinaryParams,
    job: Job,
    project: Callable[[Weight, Tensor], Tensor],
    *,
    fold: bool = False,
) -> Model:
    from harness_binarization.chosen import inner_weights
    from harness_torch import example_inputs, load, save
    from harness_torch.flow import fold_batch_norms
    from harness_torch.grids import fit_on_grid
    from harness_torch.weights import weights_in_order

    module = load(model)
    if fold:  # a scale of a norm is no power of two; a ternary channel takes its norm's scale into its own
        fold_batch_norms(module, example_inputs(job))
    chosen = inner_weights(weights_in_order(module, example_inputs(job)), first=params.first, last=params.last)
    fit_on_grid(module, job, chosen, project, epochs=params.epochs, lr=params.lr)
    return save(module, model, job, precision=dataclasses.replace(model.precision, storage="codebook"))
