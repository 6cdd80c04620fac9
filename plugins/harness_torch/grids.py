"""Weights that take few values: train through the rounding, and leave them on their grid."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from harness.api import Job
from harness_torch.training import fit
from harness_torch.weights import Weight

if TYPE_CHECKING:
    from torch import Tensor, nn

    Project = Callable[[Weight, Tensor], Tensor]


def straight_through(value: Tensor, rounded: Tensor) -> Tensor:
    """Return ``rounded`` with the gradient of ``value`` (Bengio et al., 2013)."""
    return value + (rounded - value).detach()


def seen_through(module: nn.Module, chosen: Sequence[Weight], see: Project) -> nn.Module:
    """Return a module that runs ``module`` with its chosen weights replaced by what ``see`` makes of them.

    The parameters of ``module`` are the latent weights and are trained in place.
    """
    import torch
    from torch import nn

    class Seen(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = module

        def forward(self, *inputs: Tensor) -> Any:
            weights = {item.name: see(item, item.parameter) for item in chosen}
            return torch.func.functional_call(self.module, weights, inputs)

    return Seen()


def fit_on_grid(
    module: nn.Module, job: Job, chosen: Sequence[Weight], project: Project, *, epochs: int, lr: float
) -> None:
    """Train with weights as ``project`` rounds them, gradients passing straight through, and leave them rounded.

    Args:
        module: Trained in place.
        job: Of the step.
        chosen: Which weights are rounded.
        project: (weight, its value) -> the nearest values of the grid; of the same shape.
        epochs: 0 only rounds.
        lr: Peak learning rate.
    """
    import torch

    if epochs:
        seen = seen_through(module, chosen, lambda item, value: straight_through(value, project(item, value)))
        fit(seen, job, epochs=epochs, lr=lr)
    with torch.no_grad():
        for item in chosen:
            item.parameter.copy_(project(item, item.parameter))
