"""Cross-layer equalization: equal ranges of weights before they are quantized."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.api import Job, Model, Unsupported, param

if TYPE_CHECKING:
    from torch import Tensor

    from harness_torch.weights import Weight

_PASSES = 50
_STILL = 1e-4  # a pass that scales no channel by more than this has converged


@dataclass(frozen=True)
class EqualizationParams:
    """Parameters of ``weight-equalization``."""

    passes: int = param(_PASSES, "passes over all pairs of layers at most", ge=1)


def equalize(model: Model, params: EqualizationParams, job: Job) -> Model:
    """Give the channels between two layers equal ranges on both sides, without changing the function.

    s = sqrt(r1 / r2) by channel, with r the largest |w| of the first layer's output and the second's input channel;
    W1 / s, b1 / s, W2 * s (Nagel et al., "Data-Free Quantization", 2019, equation 11). Batch norms are folded first.

    Raises:
        Unsupported: No layer reaches another through a ReLU at most.
    """
    from harness_torch import example_inputs, load, save
    from harness_torch.flow import chained_weights, fold_batch_norms
    from harness_torch.weights import weights_in_order

    module, inputs = load(model), example_inputs(job)
    fold_batch_norms(module, inputs)
    known = {item.name: item for item in weights_in_order(module, inputs)}
    pairs = [(known[a], known[b]) for a, b in chained_weights(module, inputs) if _fits(known[a], known[b])]
    if not pairs:
        raise Unsupported("no layer of the model feeds another one through a ReLU at most, so nothing can be equalized")
    for number in range(params.passes):
        moved = max(_equalize(first, second) for first, second in pairs)
        job.progress((number + 1) / params.passes, f"{len(pairs)} pairs, largest scale {moved:.4f}")
        if moved < _STILL:
            break
    return save(module, model, job)


def _fits(first: Weight, second: Weight) -> bool:
    groups = getattr(second.owner, "groups", 1)
    depthwise = groups == second.parameter.shape[0] == first.parameter.shape[0]
    return first.out_dim == second.out_dim == 0 and (groups == 1 or depthwise)


def _by_input(weight: Weight) -> Tensor:
    """Return the weight with its input channels first; a depthwise one has them where its outputs are."""
    value = weight.parameter.data
    return value if getattr(weight.owner, "groups", 1) > 1 else value.transpose(0, 1)


def _equalize(first: Weight, second: Weight) -> float:
    """Scale one pair in place and return the largest |log2| of its scales."""
    import torch

    with torch.no_grad():
        given, taken = first.parameter.data, _by_input(second)
        r1, r2 = given.flatten(1).abs().amax(1), taken.flatten(1).abs().amax(1)
        scale = torch.where((r1 > 0) & (r2 > 0), (r1 / r2).sqrt(), torch.ones_like(r1))
        given.div_(scale.reshape(-1, *[1] * (given.dim() - 1)))
        taken.mul_(scale.reshape(-1, *[1] * (taken.dim() - 1)))
        bias = getattr(first.owner, "bias", None)
        if bias is not None:
            bias.data.div_(scale)
        return float(scale.log2().abs().max())
