"""Weights of one bit with a scale per output channel (Rastegari et al., "XNOR-Net", 2016: binary weight networks)."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from harness.api import Asked, Job, MethodSpec, Model, Precision, hookimpl, param
from harness_binarization import levels


@dataclass(frozen=True)
class Params:
    """Parameters of ``binarization``."""

    epochs: int = param(5, "training epochs with one-bit weights; 0 only rounds", ge=0)
    lr: float = param(5e-3, "peak learning rate of the latent weights", gt=0)
    first: bool = param(False, "binarize the first layer too")
    last: bool = param(False, "binarize the last layer too")
    activations: bool = param(False, "layers see the signs of their inputs: both sides have one bit")


def wants(params: Params) -> Precision:
    """Return the binary precision where activations are binary too, else float32: the arithmetic stays the model's."""
    return Precision(weights="binary", activations="binary", scheme="static") if params.activations else Precision()


def compress(model: Model, params: Params, job: Job) -> Model:
    """Train with one-bit weights, starting from the trained ones, and leave them as dense float values.

    With float activations the result computes in float32; ``Precision.storage`` "packed" says that a weight needs one
    bit and each output channel one scale. With binary ones it asks for the precision "binary".

    Raises:
        Unsupported: The model has no layer that may be binarized.
    """
    import torch

    from harness_binarization.chosen import inner_weights
    from harness_binarization.training import binarize, binary_inputs, clip, latent
    from harness_torch import example_inputs, fit, load, save
    from harness_torch.weights import weights_in_order

    module = load(model)
    chosen = inner_weights(weights_in_order(module, example_inputs(job)), first=params.first, last=params.last)
    if params.activations:
        chosen = binary_inputs(chosen)
    if params.epochs:
        fit(latent(module, chosen), job, epochs=params.epochs, lr=params.lr, on_batch=lambda *_step: clip(chosen))
    with torch.no_grad():
        for weight in chosen:
            weight.parameter.copy_(binarize(weight.parameter, weight.out_dim))
    wanted = wants(params) if params.activations else model.precision
    return save(module, model, job, precision=dataclasses.replace(wanted, storage="packed"))


# What changes the weights anew would undo their few values, so it comes before.
_EARLIER = frozenset({"channel-pruning", "distillation", "decomposition", "weight-equalization"})
_RIVALS = frozenset({"none", "binarization", "magnitude-pruning", "codebook", "fixed-point", "bias-correction", "qat"})


@hookimpl
def harness_methods() -> Iterator[MethodSpec[Any]]:
    """Offer ``binarization``, ``ternary`` and ``fixed-binary``."""
    yield MethodSpec(
        name="binarization",
        techniques=("binarization", "binarization:activations=true"),
        family="binarization",
        summary="one-bit weights with a scale per channel, straight-through trained",
        params=Params,
        asks=lambda params: Asked("weights and activations of 1 bit" if params.activations else "weights of 1 bit"),
        compress=compress,
        needs=frozenset({"training"}),
        wants=wants,
        after=_EARLIER,
        conflicts=_RIVALS,  # one bit has no room for a zero
    )
    yield MethodSpec(
        name="ternary",
        techniques=("ternary weights",),
        family="binarization",
        summary="weights -1, 0, 1 with a scale per channel, straight-through trained",
        params=levels.TernaryParams,
        asks=lambda params: Asked(f"3 values for a weight, zero below {params.threshold:g} of the mean"),
        compress=levels.compress_ternary,
        needs=lambda params: frozenset({"training"} if params.epochs else ()),
        after=_EARLIER,
        conflicts=_RIVALS,
        defaults=(),
    )
    yield MethodSpec(
        name="fixed-binary",
        techniques=("fixed-point binary (power-of-two)",),
        family="binarization",
        summary="weights round(x 2^B) / 2^B of B + 1 bits, straight-through trained",
        params=levels.FixedBinaryParams,
        asks=lambda params: Asked(f"weights of {params.bits or params.fraction + 1} bits"),
        compress=levels.compress_fixed_binary,
        needs=lambda params: frozenset({"training"} if params.epochs else ()),
        check=levels.check_fixed_binary,
        after=_EARLIER,
        conflicts=_RIVALS,
        defaults=(),
    )
