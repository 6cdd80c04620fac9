"""Unstructured pruning by magnitude (Han et al., "Learning both weights and connections", 2015)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from harness.api import Asked, Job, Model, Unsupported, param
from harness_pruning.masks import above, hold, keep_masks, share_at

if TYPE_CHECKING:
    from torch import Tensor, nn

    from harness_torch.tuning import Penalty
    from harness_torch.weights import Weight

RATIO = 0.8


@dataclass(frozen=True)
class Params:
    """Parameters of ``magnitude-pruning``."""

    ratio: float = param(RATIO, "share of the prunable weights that become zero", gt=0, lt=1)
    threshold: float | None = param(
        None, "zero what is smaller, instead of a share; with scope=local in standard deviations of a layer", gt=0
    )
    scope: Literal["global", "local"] = param("global", "rank all weights together, or those of each layer")
    schedule: Literal["once", "gradual"] = param("once", "zeros all at once, or rising by a cubic curve in fine-tuning")
    every: int = param(10, "training steps between two prunings of schedule=gradual", ge=1)
    until: float = param(0.7, "share of fine-tuning after which schedule=gradual reaches the ratio", gt=0, le=1)
    penalty: Literal["none", "l1", "l2"] = param("none", "what training adds to the loss of the prunable weights")
    strength: float = param(1e-4, "factor of the penalty: on the sum of magnitudes, or of squares", gt=0)
    before: int = param(2, "training epochs with the penalty before anything is pruned", ge=0)
    first: bool = param(False, "prune the first layer too")
    last: bool = param(False, "prune the last layer too")
    epochs: int = param(3, "fine-tuning epochs, zeros held; 0 for none", ge=0)
    lr: float = param(2e-3, "peak learning rate of fine-tuning", gt=0)
    distill: float = param(0.0, "share of the fine-tuning loss that the dense model's outputs give", ge=0, le=1)
    T: float = param(4.0, "temperature of distill", gt=0)

    @property
    def trains(self) -> bool:
        """Whether any training takes place."""
        return bool(self.epochs or (self.penalty != "none" and self.before))


def asks(params: Params) -> Asked:
    """Return the share of the weights that is to become zero."""
    if params.threshold is not None:
        return Asked(f"weights below {params.threshold:g} to become zero")
    return Asked(f"{params.ratio:g} of the prunable weights to become zero", {"nonzero_parameters": params.ratio})


def check(params: Params) -> str | None:
    """Say what is wrong with a combination of parameters."""
    if params.threshold is not None and params.ratio != RATIO:
        return "ratio and threshold both say which weights go; give one of them"
    if params.threshold is not None and params.schedule == "gradual":
        return "schedule=gradual raises a ratio step by step, so it takes no threshold"
    if params.schedule == "gradual" and not params.epochs:
        return "schedule=gradual prunes during fine-tuning, so it needs epochs of at least 1"
    if params.penalty != "none" and not params.before and params.schedule == "once":
        return f"penalty={params.penalty} acts in training before anything is pruned, so it needs before of at least 1"
    return no_epochs(params.epochs, params.distill)


def no_epochs(epochs: int, distill: float) -> str | None:
    """Say that distillation needs training, where there is none."""
    return "distill acts in fine-tuning, so it needs epochs of at least 1" if distill and not epochs else None


def compress(model: Model, params: Params, job: Job) -> Model:
    """Zero the smallest weights and fine-tune the rest with the zeros held.

    Raises:
        Unsupported: The model has no layer that may be pruned, no weight would go, or a layer would vanish.
    """
    from harness_torch import example_inputs, fine_tune, load, save
    from harness_torch.weights import weights_in_order

    module = load(model)
    chosen = inner(weights_in_order(module, example_inputs(job)), "magnitude-pruning", params.first, params.last)
    _refuse(module, chosen, _masks(chosen, params, 1.0), params, job)
    penalty = _penalty(chosen, params)
    if penalty:
        fine_tune(module, job, epochs=params.before, lr=params.lr, penalty=penalty)
    holder = _Holder(module, chosen, params, job)
    fine_tune(
        module, job, epochs=params.epochs, lr=params.lr, distill=params.distill, temperature=params.T,
        penalty=penalty if params.schedule == "gradual" else None, on_batch=holder.on_batch,
    )  # fmt: skip
    return save(module, model, job, precision=dataclasses.replace(model.precision, storage="sparse"))


def inner(weights: Sequence[Weight], method: str, first: bool, last: bool) -> list[Weight]:
    """Leave out the first and the last layer: they hold few weights and cost most accuracy.

    Raises:
        Unsupported: Nothing is left.
    """
    left = weights[0 if first else 1 : None if last else -1]
    if not left:
        raise Unsupported(
            f"{method} found no layer between the first and the last: the model has {len(weights)} weights",
            hint=f"{method}:first=true:last=true prunes them too",
        )
    return list(left)


def _refuse(module: nn.Module, weights: Sequence[Weight], masks: Sequence[Tensor], params: Params, job: Job) -> None:
    """Refuse masks under which nothing goes, or a layer vanishes.

    A ranking over all layers may empty one that the others bypass (a residual branch). Then the outputs still depend
    on the input, and it is only told.

    Raises:
        Unsupported: One of both is so.
    """
    if all(bool(mask.all()) for mask in masks):
        raise Unsupported("magnitude-pruning found no weight that is small enough to go; give a larger threshold")
    for weight, mask in zip(weights, masks, strict=True):
        if bool(mask.any()):
            continue
        text = f"magnitude-pruning would leave none of the {mask.numel()} weights of {weight.name!r}"
        if params.threshold is not None:
            raise Unsupported(text, hint="give a smaller threshold, or scope=local")
        if params.scope == "local":
            raise Unsupported(text, hint="give a smaller ratio")
        if _is_constant(module, weights, masks, job):
            text = f"{text}, and all inputs would give one output"
            raise Unsupported(
                text, hint="give a smaller ratio, or scope=local, which takes the same share of each layer"
            )
        job.log.warning("%s; scope=local takes the same share of each layer", text)


def _is_constant(module: nn.Module, weights: Sequence[Weight], masks: Sequence[Tensor], job: Job) -> bool:
    """Tell whether the outputs are the same for two inputs once the masked weights are zero."""
    import torch

    from harness_torch import example_inputs

    inputs = example_inputs(job, batch=2)
    if not any(value.is_floating_point() for value in inputs):
        return False  # examples of indices are zeros, one like the other
    before = [weight.parameter.detach().clone() for weight in weights]
    with torch.no_grad():
        hold(weights, masks)
        try:
            outputs = module.eval()(*inputs)
        finally:
            for weight, value in zip(weights, before, strict=True):
                weight.parameter.copy_(value)
    several = outputs if isinstance(outputs, (tuple, list)) else (outputs,)
    return all(torch.equal(output[0], output[1]) for output in several)


def _masks(chosen: Sequence[Weight], params: Params, share: float) -> list[Tensor]:
    weights = [weight.parameter for weight in chosen]
    if params.threshold is not None:
        return above(weights, params.threshold, scope=params.scope)
    return keep_masks(weights, params.ratio * share, scope=params.scope)


def _penalty(chosen: Sequence[Weight], params: Params) -> Penalty | None:
    import torch

    if params.penalty == "none":
        return None

    def penalty() -> Tensor:
        sums = [
            weight.parameter.abs().sum() if params.penalty == "l1" else weight.parameter.square().sum()
            for weight in chosen
        ]
        return params.strength * torch.stack(sums).sum()

    return penalty


class _Holder:
    """Masks, made at once or step by step, held after every step of the optimizer."""

    def __init__(self, module: nn.Module, chosen: Sequence[Weight], params: Params, job: Job) -> None:
        self.chosen, self.params = chosen, params
        self.gradual = params.schedule == "gradual"
        self.masks = _masks(chosen, params, 0.0 if self.gradual else 1.0)
        if not self.gradual:
            _refuse(module, chosen, self.masks, params, job)  # training with a penalty may have changed what is small
        hold(chosen, self.masks)

    def on_batch(self, _module: nn.Module, step: int, steps: int) -> None:
        if self.gradual:
            end = max(1, round(self.params.until * steps))
            if step == end or (step < end and step % self.params.every == 0):
                self.masks = _masks(self.chosen, self.params, share_at(step, end, 1.0))
        hold(self.chosen, self.masks)
