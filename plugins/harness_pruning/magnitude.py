"""Unstructured pruning by magnitude (Han et al., "Learning both weights and connections", 2015)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from harness.api import Job, Model, Unsupported, param

if TYPE_CHECKING:
    from torch import Tensor

    from harness_torch.weights import Weight


@dataclass(frozen=True)
class Params:
    """Parameters of ``magnitude-pruning``."""

    ratio: float = param(0.8, "share of the prunable weights that become zero", gt=0, lt=1)
    scope: Literal["global", "local"] = param("global", "rank all weights together, or those of each layer")
    first: bool = param(False, "prune the first layer too")
    last: bool = param(False, "prune the last layer too")
    epochs: int = param(3, "fine-tuning epochs, zeros held; 0 for none", ge=0)
    lr: float = param(2e-3, "peak learning rate of fine-tuning", gt=0)


def compress(model: Model, params: Params, job: Job) -> Model:
    """Zero the smallest weights and fine-tune the rest with the zeros held.

    Raises:
        Unsupported: The model has no layer that may be pruned.
    """
    from harness_torch import example_inputs, fit, load, save
    from harness_torch.weights import weights_in_order

    module = load(model)
    chosen = _chosen(weights_in_order(module, example_inputs(job)), params)
    masks = keep_masks([weight.parameter for weight in chosen], params.ratio, scope=params.scope)
    _hold(chosen, masks)
    if params.epochs:
        fit(module, job, epochs=params.epochs, lr=params.lr, on_batch=lambda *_step: _hold(chosen, masks))
    return save(module, model, job, precision=dataclasses.replace(model.precision, storage="sparse"))


def keep_masks(weights: Sequence[Tensor], ratio: float, *, scope: str = "global") -> list[Tensor]:
    """Return for each weight a mask of the entries that stay: the largest in magnitude.

    Args:
        weights: Of any shapes.
        ratio: Share of the entries that go, rounded to a whole number; ties go in order of position.
        scope: "global" ranks all entries together, "local" those of each weight.
    """
    import torch

    if scope == "local":
        return [mask for weight in weights for mask in keep_masks([weight], ratio)]
    sizes = [weight.detach().abs().flatten() for weight in weights]
    order = torch.cat(sizes).argsort(stable=True)
    keep = torch.ones_like(order, dtype=torch.bool)
    keep[order[: round(ratio * len(order))]] = False
    parts = keep.split([len(size) for size in sizes])
    return [part.view(weight.shape) for part, weight in zip(parts, weights, strict=True)]


def _chosen(weights: Sequence[Weight], params: Params) -> list[Weight]:
    """Leave out the first and the last layer: they hold few weights and cost most accuracy."""
    inner = weights[0 if params.first else 1 : None if params.last else -1]
    if not inner:
        raise Unsupported(
            f"magnitude-pruning found no layer between the first and the last: the model has {len(weights)} weights",
            hint="magnitude-pruning:first=true:last=true prunes them too",
        )
    return list(inner)


def _hold(weights: Sequence[Weight], masks: Sequence[Tensor]) -> None:
    import torch

    with torch.no_grad():
        for weight, mask in zip(weights, masks, strict=True):
            weight.parameter.masked_fill_(~mask, 0.0)  # a product would leave -0.0, which does not pack as zero
