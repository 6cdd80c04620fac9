"""Bias correction: take back the mean shift that rounding the weights causes in every channel of a layer's output."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.api import Job, Model, param
from harness_quantization.simulated import calibration, layers, round_weight

if TYPE_CHECKING:
    from torch import Tensor, nn

    from harness_torch.weights import Weight


@dataclass(frozen=True)
class CorrectionParams:
    """Parameters of ``bias-correction``."""

    bits: int = param(8, "bits of the grid that weights are rounded to", ge=2, le=8)
    samples: int = param(256, "items of the calibration split over which means are taken", ge=1)


def compress(model: Model, params: CorrectionParams, job: Job) -> Model:
    """Round weights per channel and correct biases layer by layer (Nagel et al., 2019, section 4.2, empirical form).

    b' = b - (E[y~] - E[y]), with y of the float model and y~ of the model whose earlier layers are rounded and
    corrected already. Weights are left on their grid, so that int8 after this step finds the same scales.

    Raises:
        Unsupported: No layer can be quantized, or there is nothing to calibrate with.
    """
    import torch

    from harness_torch import example_inputs, load, save
    from harness_torch.flow import fold_batch_norms

    module, reference = load(model), load(model)
    for each in (module, reference):
        fold_batch_norms(each, example_inputs(job))
    items = calibration(job, params.samples)
    pairs = list(zip(layers(module, example_inputs(job)), layers(reference, example_inputs(job)), strict=True))
    for done, (rounded, plain) in enumerate(pairs):
        job.progress(done / len(pairs), f"correcting {rounded.name}")
        wanted = output_mean(reference, plain, items)
        with torch.no_grad():
            rounded.parameter.copy_(round_weight(rounded.parameter, rounded.out_dim, params.bits))
            shift = output_mean(module, rounded, items) - wanted
            _bias(rounded).sub_(shift)
    storage = "codebook" if model.precision.storage == "dense" and params.bits < 8 else model.precision.storage
    return save(module, model, job, precision=dataclasses.replace(model.precision, storage=storage))


def output_mean(module: nn.Module, weight: Weight, items: Mapping[str, Any]) -> Tensor:
    """Return the mean output of a layer by channel, over all items and positions."""
    import torch
    from torch import nn

    from harness_torch import call

    sums: list[Tensor] = []

    def note(_layer: nn.Module, _given: object, output: Tensor) -> None:
        channel = -1 if isinstance(weight.owner, nn.Linear) else 1
        flat = output.detach().movedim(channel, 0).flatten(1).double()
        sums.append(torch.stack([flat.sum(1), torch.full((len(flat),), flat.shape[1], dtype=torch.float64)]))

    handle = weight.owner.register_forward_hook(note)
    try:
        call(module, items)
    finally:
        handle.remove()
    total = torch.stack(sums).sum(0)
    return (total[0] / total[1]).float()


def _bias(weight: Weight) -> Tensor:
    """Return the layer's bias, a new one of zeros where it has none."""
    import torch
    from torch import nn

    owner: Any = weight.owner
    if owner.bias is None:
        channels = owner.out_features if isinstance(owner, nn.Linear) else owner.out_channels
        owner.bias = nn.Parameter(torch.zeros(channels))
    bias: Tensor = owner.bias.data
    return bias
