"""Mixed precision: int8 where it costs little, float32 where it costs most, by measured sensitivity under a budget."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.api import Calibration, Job, Model, Precision, param
from harness_quantization.simulated import calibration, hooked, input_ranges, layers, round_input, round_weight

if TYPE_CHECKING:
    from torch import nn

    from harness_torch.weights import Weight


@dataclass(frozen=True)
class MixedParams:
    """Parameters of ``mixed-precision``."""

    budget: float = param(
        0.005, "what simulated int8 may lose of the metric, in its own unit (0.005 of accuracy)", ge=0
    )
    samples: int = param(256, "items of the calibration split for ranges and sensitivity", ge=1)
    most: float = param(0.5, "share of layers that may stay float32", gt=0, le=1)


def wants(params: MixedParams) -> Precision:
    """Return static int8; the layers that stay float32 come with the model."""
    return Precision(
        weights="int8", activations="int8", scheme="static", calibration=Calibration(samples=params.samples)
    )


def compress(model: Model, params: MixedParams, job: Job) -> Model:
    """Find the layers that stay float32; the model itself is left as it is.

    Sensitivity of a layer is the mean squared change of the outputs when it alone is simulated in int8, on the
    calibration split. The most sensitive ones stay float, one more at a time, until the metric on the selection split
    is within the budget of the float model's. The test split is never seen.

    Raises:
        Unsupported: No layer can be quantized, or a split that it measures on is empty or has no labels.
    """
    from harness_torch import evaluate, example_inputs, load

    module = load(model)
    chosen = layers(module, example_inputs(job))
    ranges = input_ranges(module, chosen, job, params.samples)
    order = _by_sensitivity(module, chosen, ranges, params, job)
    before, sign = evaluate(module, job), 1 if job.workload.higher_is_better else -1
    kept: list[Weight] = []
    while True:
        rest = [item for item in chosen if item not in kept]
        lost = sign * (before - _simulated(rest, ranges, lambda: evaluate(module, job)))
        job.progress(0.9, f"{len(kept)} of {len(chosen)} layers in float32: loses {lost:.4f}")
        if lost <= params.budget or len(kept) >= params.most * len(chosen):
            break
        kept.append(order[len(kept)])
    if lost > params.budget:
        job.log.warning("mixed-precision: %d layers in float32 still lose %.4f of the metric", len(kept), lost)
    overrides = {item.name: "float32" for item in kept}
    wanted = dataclasses.replace(
        wants(params), overrides=overrides, storage=model.precision.storage, pattern=model.precision.pattern
    )
    return dataclasses.replace(model, precision=wanted)


def _by_sensitivity(
    module: nn.Module, chosen: Sequence[Weight], ranges: dict[str, tuple[float, float]], params: MixedParams, job: Job
) -> list[Weight]:
    """Return the layers, the most sensitive first."""
    errors = sensitivities(module, chosen, ranges, calibration(job, params.samples))
    return sorted(chosen, key=lambda item: -errors[item.name])


def sensitivities(
    module: nn.Module, chosen: Sequence[Weight], ranges: dict[str, tuple[float, float]], items: Any
) -> dict[str, float]:
    """Return the mean squared change of all outputs when one layer alone is in simulated int8, by weight."""
    import numpy as np

    from harness_torch import call

    plain = call(module, items)
    found = {}
    for item in chosen:
        changed = _simulated([item], ranges, lambda: call(module, items))
        found[item.name] = float(np.mean([np.mean((changed[name] - plain[name]) ** 2) for name in plain]))
    return found


def _simulated(chosen: Sequence[Weight], ranges: dict[str, tuple[float, float]], run: Any) -> Any:
    """Return what ``run`` gives while these layers compute in simulated int8."""
    import torch

    before = {item.name: item.parameter.detach().clone() for item in chosen}
    see = {
        item.name: lambda value, bounds=ranges[item.name]: round_input(value, *map(torch.tensor, bounds))
        for item in chosen
    }
    with torch.no_grad():
        for item in chosen:
            item.parameter.copy_(round_weight(item.parameter, item.out_dim))
    try:
        with hooked(chosen, see):
            return run()
    finally:
        with torch.no_grad():
            for item in chosen:
                item.parameter.copy_(before[item.name])
