"""Weights of one bit with a scale per output channel (Rastegari et al., "XNOR-Net", 2016: binary weight networks)."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.api import Job, MethodSpec, Model, Unsupported, hookimpl, param

if TYPE_CHECKING:
    from harness_torch.weights import Weight


@dataclass(frozen=True)
class Params:
    """Parameters of ``binarization``."""

    epochs: int = param(5, "training epochs with one-bit weights; 0 only rounds", ge=0)
    lr: float = param(5e-3, "peak learning rate of the latent weights", gt=0)
    first: bool = param(False, "binarize the first layer too")
    last: bool = param(False, "binarize the last layer too")


def compress(model: Model, params: Params, job: Job) -> Model:
    """Train with one-bit weights, starting from the trained ones, and leave them as dense float values.

    The result computes in float32; ``Precision.storage`` "packed" says that a weight needs one bit and each
    output channel one scale.

    Raises:
        Unsupported: The model has no layer that may be binarized.
    """
    import torch

    from harness_binarization.training import binarize, clip, latent
    from harness_torch import example_inputs, fit, load, save
    from harness_torch.weights import weights_in_order

    module = load(model)
    chosen = _chosen(weights_in_order(module, example_inputs(job)), params)
    if params.epochs:
        fit(latent(module, chosen), job, epochs=params.epochs, lr=params.lr, on_batch=lambda *_step: clip(chosen))
    with torch.no_grad():
        for weight in chosen:
            weight.parameter.copy_(binarize(weight.parameter, weight.out_dim))
    return save(module, model, job, precision=dataclasses.replace(model.precision, storage="packed"))


def _chosen(weights: Sequence[Weight], params: Params) -> list[Weight]:
    """Leave out the first and the last layer: all binary networks of the field keep them in float."""
    inner = weights[0 if params.first else 1 : None if params.last else -1]
    if not inner:
        raise Unsupported(
            f"binarization found no layer between the first and the last: the model has {len(weights)} weights",
            hint="binarization:first=true:last=true takes them too",
        )
    return list(inner)


@hookimpl
def harness_methods() -> Iterator[MethodSpec[Params]]:
    """Offer ``binarization``."""
    yield MethodSpec(
        name="binarization",
        family="binarization",
        summary="one-bit weights with a scale per channel, straight-through trained",
        params=Params,
        compress=compress,
        needs=frozenset({"training"}),
        # what changes the weights anew would undo the two values, so it comes before
        after=frozenset({"channel-pruning", "distillation", "decomposition"}),
        conflicts=frozenset({"none", "binarization", "magnitude-pruning"}),  # one bit has no room for a zero
    )
