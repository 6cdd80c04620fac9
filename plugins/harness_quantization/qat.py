"""Quantization-aware training: weights and input ranges are learned through simulated int8, and bind when lowered."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.api import Calibration, Job, Model, Precision, param
from harness_quantization.simulated import grid_range, input_leaders, input_ranges, layers, round_input, round_weight

if TYPE_CHECKING:
    from torch import Tensor, nn

    from harness_torch.weights import Weight

    Bounds = Mapping[str, tuple[float, float]]

_LEAST = 1e-3  # of a range while it is learned


@dataclass(frozen=True)
class QatParams:
    """Parameters of ``qat``."""

    epochs: int = param(3, "training epochs through simulated int8; 0 only takes the calibrated ranges", ge=0)
    lr: float = param(5e-4, "peak learning rate of weights and ranges", gt=0)
    samples: int = param(256, "items of the calibration split from which ranges start", ge=1)


def wants(params: QatParams) -> Precision:
    """Return static int8; the encodings come with the model."""
    return Precision(
        weights="int8", activations="int8", scheme="static", calibration=Calibration(samples=params.samples)
    )


def compress(model: Model, params: QatParams, job: Job) -> Model:
    """Fold batch norms, train through int8 weights and inputs, and leave weights on their grid beside their ranges.

    Tensors that no layer reads, such as the sums of residual branches, are calibrated by the target.

    Raises:
        Unsupported: No layer can be quantized, or there is nothing to calibrate with.
    """
    import dataclasses

    import torch

    from harness_torch import example_inputs, load, save
    from harness_torch.flow import fold_batch_norms

    module = load(model)
    fold_batch_norms(module, example_inputs(job))
    chosen = layers(module, example_inputs(job))
    found = input_ranges(module, chosen, job, params.samples)
    leaders = input_leaders(module, chosen, example_inputs(job))
    learned = _train(
        module, chosen, {name: found[name] for name in leaders.values()}, leaders, params, job,
        keep_zeros=model.precision.storage == "sparse",
    )  # fmt: skip
    found = {name: learned[leader] for name, leader in leaders.items()}
    with torch.no_grad():
        for item in chosen:
            item.parameter.copy_(round_weight(item.parameter, item.out_dim))
    path = write_encodings(job.out / "encodings.json", found)
    wanted = dataclasses.replace(
        wants(params), realise="exact", encodings=path, storage=model.precision.storage, pattern=model.precision.pattern
    )
    return save(module, model, job, precision=wanted)


def write_encodings(path: Path, found: Mapping[str, tuple[float, float]]) -> Path:
    """Write the input range of each layer, moved onto its grid."""
    layers = {name: {"input": list(grid_range(low, high))} for name, (low, high) in found.items()}
    path.write_text(json.dumps({"schema": 1, "layers": layers}, sort_keys=True, indent=1), encoding="utf-8")
    return path


def _train(
    module: nn.Module,
    chosen: Sequence[Weight],
    found: Bounds,
    leaders: Mapping[str, str],
    params: QatParams,
    job: Job,
    *,
    keep_zeros: bool,
) -> dict[str, tuple[float, float]]:
    import torch
    from torch import nn

    from harness_quantization.simulated import hooked
    from harness_torch import fit
    from harness_torch.grids import seen_through, straight_through

    seen: Any = seen_through(
        module, chosen, lambda item, value: straight_through(value, round_weight(value, item.out_dim))
    )
    keys = {name: name.replace(".", "/") for name in found}  # a parameter's name has no dot
    bounds = {name: torch.tensor(found[name]) for name in keys}
    seen.bounds = nn.ParameterDict({keys[name]: nn.Parameter(value) for name, value in bounds.items()})

    def see(name: str) -> Callable[[Tensor], Tensor]:
        bound = seen.bounds[keys[leaders[name]]]
        return lambda value: round_input(value, bound[0].clamp(max=0), bound[1].clamp(min=_LEAST))

    zeros = {item.name: item.parameter == 0 for item in chosen} if keep_zeros else {}

    def hold(_module: nn.Module, _step: int, _steps: int) -> None:
        with torch.no_grad():
            for item in chosen:
                if item.name in zeros:
                    item.parameter.masked_fill_(zeros[item.name], 0)

    with hooked(chosen, {item.name: see(item.name) for item in chosen}):
        fit(seen, job, epochs=params.epochs, lr=params.lr, on_batch=hold)
    learned = {name: seen.bounds[keys[name]].detach() for name in keys}
    return {name: (min(float(b[0]), 0.0), max(float(b[1]), _LEAST)) for name, b in learned.items()}
