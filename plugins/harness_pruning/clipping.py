"""Weight clipping: weights clamped to [-c, c], which alone shrinks nothing but narrows what quantization must cover."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from harness.api import Job, Model, Unsupported, param
from harness_pruning.magnitude import no_epochs
from harness_pruning.masks import hold

if TYPE_CHECKING:
    from torch import Tensor

    from harness_torch.weights import Weight

CANDIDATES = 100  # limits tried, evenly spaced up to the largest magnitude, as is usual for MSE calibration


@dataclass(frozen=True)
class Params:
    """Parameters of ``weight-clipping``."""

    limit: Literal["percentile", "mse", "value"] = param("percentile", "how the limit c is chosen")
    bits: int = param(8, "width of the integer grid whose squared error limit=mse makes least", ge=2, le=16)
    percentile: float = param(
        99.9, "share in percent of a tensor's magnitudes below c (limit=percentile)", gt=0, le=100
    )
    c: float | None = param(None, "the limit itself (limit=value)", gt=0)
    granularity: Literal["per-tensor", "per-channel"] = param("per-tensor", "one limit, or one per output channel")
    epochs: int = param(0, "epochs of training in which weights are clipped after every step", ge=0)
    lr: float = param(1e-3, "peak learning rate of this training", gt=0)
    distill: float = param(0.0, "share of the training loss that the dense model's outputs give", ge=0, le=1)
    T: float = param(4.0, "temperature of distill", gt=0)


def check(params: Params) -> str | None:
    """Say what is wrong with a combination of parameters."""
    if (params.limit == "value") != (params.c is not None):
        return "limit=value and c=… belong together: give both or neither"
    return no_epochs(params.epochs, params.distill)


def compress(model: Model, params: Params, job: Job) -> Model:
    """Clamp the weights of all layers, and go on training within the limits where epochs are given.

    Raises:
        Unsupported: The model has no weights, or no weight lies beyond its limit.
    """
    from harness_torch import example_inputs, fine_tune, load, save
    from harness_torch.weights import weights_in_order

    module = load(model)
    weights = weights_in_order(module, example_inputs(job))
    limits = [limits_of(weight.parameter.movedim(weight.out_dim, 0), params) for weight in weights]
    masks = [weight.parameter != 0 for weight in weights]  # zeros that an earlier step made stay
    if not clip(weights, limits) and not params.epochs:
        raise Unsupported("weight-clipping found no weight beyond its limit, so nothing would change")

    def again(*_step: Any) -> None:
        clip(weights, limits)
        hold(weights, masks)

    fine_tune(
        module, job, epochs=params.epochs, lr=params.lr, distill=params.distill, temperature=params.T, on_batch=again
    )
    return save(module, model, job)


def limits_of(weight: Tensor, params: Params) -> Tensor:
    """Return the limit c of each output channel, or one for all: shape [channels] or [1].

    Args:
        weight: Output channels first.
        params: How the limit is chosen.
    """
    import torch

    sizes = weight.detach().abs().flatten(1)
    if params.granularity == "per-tensor":
        sizes = sizes.reshape(1, -1)
    if params.limit == "value":
        return torch.full((len(sizes),), float(params.c or 0.0))
    if params.limit == "percentile":
        return torch.quantile(sizes.double(), params.percentile / 100, dim=1).float()
    return least_error(sizes, params.bits)


def least_error(sizes: Tensor, bits: int) -> Tensor:
    """Return for each row the limit whose symmetric grid of 2^bits - 1 levels has the least squared error.

    Both errors count: what is clipped, and what is rounded within the limit, in steps of c / (2^(bits-1) - 1).

    Args:
        sizes: Magnitudes, shape [rows, n].
        bits: Of the integers.

    Returns:
        Shape [rows]; the largest of equally good ones of 100 evenly spaced candidates up to each row's maximum.
    """
    import torch

    most, levels = sizes.amax(1), 2 ** (bits - 1) - 1
    best, error = most.clone(), torch.full_like(most, float("inf"))
    for part in range(CANDIDATES, 0, -1):
        limit = most * (part / CANDIDATES)
        step = (limit / levels).clamp_min(torch.finfo(torch.float32).tiny)[:, None]
        now = (sizes - (sizes / step).round().clamp_max(levels) * step).square().sum(1)
        best, error = torch.where(now < error, limit, best), torch.minimum(now, error)
    return best


def clip(weights: Sequence[Weight], limits: Sequence[Tensor]) -> int:
    """Clamp weights in place and return how many entries lay beyond their limit."""
    import torch

    beyond = 0
    with torch.no_grad():
        for weight, limit in zip(weights, limits, strict=True):
            value = weight.parameter.movedim(weight.out_dim, 0)
            bound = limit.view(-1, *[1] * (value.dim() - 1))
            beyond += int((value.abs() > bound).sum())
            value.copy_(torch.minimum(torch.maximum(value, -bound), bound))
    return beyond
