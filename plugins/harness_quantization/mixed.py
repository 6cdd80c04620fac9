"""Mixed precision: few bits where they cost little, more where they cost most, by sensitivity under a budget."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from harness.api import Calibration, Job, Model, Precision, param
from harness_quantization.simulated import calibration, hooked, input_ranges, layers, round_input, round_weight

if TYPE_CHECKING:
    from torch import nn

    from harness_torch.weights import Weight

Ranges = Mapping[str, tuple[float, float]]

_FLOAT = "float32"
_BITS = {"int4": 4, "int8": 8}


@dataclass(frozen=True)
class MixedParams:
    """Parameters of ``mixed-precision``."""

    budget: float = param(
        0.005, "what the simulated model may lose of the metric, in its own unit (0.005 of accuracy)", ge=0
    )
    samples: int = param(256, "items of the calibration split for ranges and sensitivity", ge=1)
    most: float = param(0.5, "share of layers that may stay float32", gt=0, le=1)
    widths: Literal["int8/float32", "int4/int8/float32", "int4/float32"] = param(
        "int8/float32",
        "what a layer may have, narrowest first: from int8 static int8 arithmetic, from int4 weights alone",
    )


def wants(params: MixedParams) -> Precision:
    """Return the narrowest precision for all; the layers that have a wider one come with the model."""
    if _weights_alone(params):
        return Precision(weights="int4", scheme="weight-only")
    return Precision(
        weights="int8", activations="int8", scheme="static", calibration=Calibration(samples=params.samples)
    )


def _weights_alone(params: MixedParams) -> bool:
    return params.widths.startswith("int4")


def compress(model: Model, params: MixedParams, job: Job) -> Model:
    """Find the width of each layer; the model itself is left as it is.

    Sensitivity of a layer is the mean squared change of the outputs when it alone is simulated, on the calibration
    split. The layer that costs most gets the next width, one step at a time, until the metric on the selection split
    is within the budget of the float model's. The test split is never seen.

    The matrices of a recurrent layer take one width together, as a runtime has one kernel for them; their inputs are
    simulated where they enter the layer, not between its steps.

    Raises:
        Unsupported: No layer can be quantized, or a split that it measures on is empty or has no labels.
    """
    from harness_torch import evaluate, example_inputs, load

    items = calibration(job, params.samples)
    module = load(model)
    chosen = layers(module, example_inputs(job), attention=_weights_alone(params), recurrent=True)
    ranges = {} if _weights_alone(params) else input_ranges(module, chosen, job, params.samples)
    ladder = params.widths.split("/")
    errors = {width: sensitivities(module, chosen, ranges, items, width) for width in ladder[:-1]}
    together = _together(chosen)

    def score(widths: Mapping[str, str]) -> float:
        with _simulated(chosen, ranges, _of_weights(widths, together)):
            return evaluate(module, job)

    widths, lost = _climb(params, job, errors, score)
    counts = {f"layers_{width}": list(widths.values()).count(width) for width in ladder}
    (job.out / "effect.json").write_text(json.dumps({**counts, "simulated_loss": lost}))
    overrides = {name: width for name, width in _of_weights(widths, together).items() if width != ladder[0]}
    wanted = dataclasses.replace(
        wants(params), overrides=overrides, storage=model.precision.storage, pattern=model.precision.pattern
    )
    return dataclasses.replace(model, precision=wanted)


def _together(chosen: Sequence[Weight]) -> dict[str, list[Weight]]:
    """Return the weights that take one width together, by the name of the first of them."""
    from torch import nn

    found: dict[object, list[Weight]] = {}
    for item in chosen:
        found.setdefault(item.owner if isinstance(item.owner, nn.RNNBase) else item.name, []).append(item)
    return {own[0].name: own for own in found.values()}


def _of_weights(widths: Mapping[str, str], together: Mapping[str, Sequence[Weight]]) -> dict[str, str]:
    """Return the width of every weight from that of the first of those that go together."""
    return {item.name: width for first, width in widths.items() for item in together[first]}


def _climb(
    params: MixedParams,
    job: Job,
    errors: Mapping[str, Mapping[str, float]],
    score: Callable[[Mapping[str, str]], float],
) -> tuple[dict[str, str], float]:
    """Return the width of each layer by its first weight, and what the metric loses at these widths.

    Args:
        params: Widths, budget, and how many layers may be float.
        job: Hears of every step.
        errors: Width -> sensitivity of each layer in it.
        score: Widths -> the metric on the selection split.
    """
    ladder = params.widths.split("/")
    widths = dict.fromkeys(errors[ladder[0]], ladder[0])
    before = score(dict.fromkeys(widths, _FLOAT))
    sign = 1 if job.workload.higher_is_better else -1
    while True:
        lost = sign * (before - score(widths))
        told = ", ".join(f"{list(widths.values()).count(width)} {width}" for width in ladder)
        job.progress(0.9, f"layers in {told}: loses {lost:.4f}")
        if lost <= params.budget:
            return widths, lost
        full = list(widths.values()).count(_FLOAT) >= params.most * len(widths)
        ends = {_FLOAT, ladder[-2]} if full else {_FLOAT}
        rising = [name for name, width in widths.items() if width not in ends]
        if not rising:
            job.log.warning("mixed-precision: layers in %s still lose %.4f of the metric", told, lost)
            return widths, lost
        worst = max(rising, key=lambda name: errors[widths[name]][name])
        widths[worst] = ladder[ladder.index(widths[worst]) + 1]


def sensitivities(
    module: nn.Module, chosen: Sequence[Weight], ranges: Ranges, items: Any, width: str = "int8"
) -> dict[str, float]:
    """Return the mean squared change of all outputs when one layer alone is simulated in this width.

    By the layer's weight; a recurrent layer's matrices are simulated together, and the first names them.

    Args:
        module: Left as it is.
        chosen: The layers' weights.
        ranges: Of the layers' inputs by weight; a layer without one sees its inputs in float.
        items: Arrays by input name.
        width: "int8" or "int4".
    """
    import numpy as np

    from harness_torch import call

    plain = call(module, items)
    found = {}
    for first, own in _together(chosen).items():
        with _simulated(own, ranges, dict.fromkeys((item.name for item in own), width)):
            changed = call(module, items)
        found[first] = float(np.mean([np.mean((changed[name] - plain[name]) ** 2) for name in plain]))
    return found


@contextlib.contextmanager
def _simulated(chosen: Sequence[Weight], ranges: Ranges, widths: Mapping[str, str]) -> Iterator[None]:
    """Let these layers compute as they would in their widths."""
    import torch

    narrow = [item for item in chosen if widths[item.name] != _FLOAT]
    before = {item.name: item.parameter.detach().clone() for item in narrow}
    see = {
        item.name: lambda value, bounds=ranges[item.name]: round_input(value, *map(torch.tensor, bounds))
        for item in narrow
        if item.name in ranges
    }
    with torch.no_grad():
        for item in narrow:
            item.parameter.copy_(round_weight(item.parameter, item.out_dim, _BITS[widths[item.name]]))
    try:
        with hooked(narrow, see):
            yield
    finally:
        with torch.no_grad():
            for item in narrow:
                item.parameter.copy_(before[item.name])
