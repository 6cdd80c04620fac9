"""A network cut into parts that run one after another: the same function, each part deployed and timed alone."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from harness.api import Job, Model, TensorSpec, Unsupported, first_line, param
from harness_decomposition.steps import runs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor, nn

    from harness_torch.parts import Cuttable

ITEMS = 256  # of the calibration split, whose values at each cut are kept for quantizers


@dataclass(frozen=True)
class SplitParams:
    """Parameters of ``split``."""

    parts: int = param(2, "networks that run one after another", ge=2)
    balance: str = param("macs", "what the parts get equal shares of", choices=("macs", "parameters"))


def compress(model: Model, params: SplitParams, job: Job) -> Model:
    """Cut a network where only batches of tensors cross, and leave a model of its parts.

    Raises:
        Unsupported: The code cannot be followed, there are too few places to cut at, or the incoming model binds
            encodings, which belong to the whole.
    """
    from harness_torch import effect, example_inputs, load

    if model.precision.encodings is not None or model.precision.overrides:
        last = model.lineage[-1].name if model.lineage else "the step before"
        raise Unsupported(f"split does not cut what {last} says of single tensors: scales, codebooks or precisions")
    module = load(model)
    inputs = example_inputs(model.inputs, batch=2)
    whole = _several(runs("split", module, inputs))
    network = _traced(module, inputs, example_inputs(model.inputs, batch=3))
    most = len(network.places) + 1
    if most < params.parts:
        raise Unsupported(
            f"split into {params.parts} parts needs {params.parts - 1} places that only tensors with the batch first "
            f"cross, and this network has {most - 1}"
        )
    costs = network.macs if params.balance == "macs" else network.parameters
    cuts = network.best(params.parts, costs)
    made = _saved(network, cuts, model, job)
    _same(whole, made, inputs)
    facts = effect(module, job)
    start = 0
    for at, end in enumerate([*(cut.after + 1 for cut in cuts), len(network.nodes)], start=1):
        facts[f"part_{at}_macs"] = float(sum(network.macs[start:end]) // 2)  # counted at batch 2
        facts[f"part_{at}_parameters"] = float(sum(network.parameters[start:end]))
        start = end
    (job.out / "effect.json").write_text(json.dumps(facts, sort_keys=True))
    return made


def _traced(module: nn.Module, two: Sequence[Tensor], three: Sequence[Tensor]) -> Cuttable:
    from harness_torch.parts import Cuttable

    try:
        return Cuttable(module, two, three)
    except Exception as error:  # noqa: BLE001  any error of the model's own code under tracing
        first = first_line(str(error)) or type(error).__name__
        raise Unsupported(f"split cannot follow the code of this model: {first}") from None


def _saved(network: Cuttable, cuts: Sequence[Any], model: Model, job: Job) -> Model:
    """Write the parts, each with what reaches it of the calibration split."""
    from harness_torch import travelling

    known = _calibration(model, job)
    parts = []
    own = dict(zip((node.name for node in network.inputs), model.inputs, strict=True))  # argument -> the model's name
    for at, (module, takes, gives) in enumerate(network.cut(cuts)):
        folder = job.out / "parts" / str(at)
        folder.mkdir(parents=True)
        travelling.write(module.eval(), folder / "model.pt")
        inputs = {own.get(name, name): _spec(network, own, name, model) for name in takes}
        outputs = tuple(gives) or model.outputs
        feeds = _feeds(module, inputs, outputs, known, folder)
        parts.append(Model("torch", folder / "model.pt", inputs, outputs, flags=model.flags, feeds=feeds))
    return dataclasses.replace(model, path=job.out / "parts", parts=tuple(parts))


def _spec(network: Cuttable, own: dict[str, str], name: str, model: Model) -> TensorSpec:
    return model.inputs[own[name]] if name in own else TensorSpec("float32", network.shape(name))


def _calibration(model: Model, job: Job) -> dict[str, Any]:
    try:
        arrays = job.data.split("calibration").inputs
    except Unsupported:
        return {}
    return {name: arrays[name][:ITEMS] for name in model.inputs} if arrays else {}


def _feeds(
    module: nn.Module, inputs: dict[str, TensorSpec], outputs: tuple[str, ...], known: dict[str, Any], folder: Path
) -> Path | None:
    """Keep what reaches a part, and add what it gives to what is known."""
    import numpy as np

    from harness_torch import call

    if not known or not len(next(iter(known.values()))):
        return None
    feeds = folder / "feeds"
    feeds.mkdir()
    own = {name: np.asarray(known[name]) for name in inputs}
    for name, array in own.items():
        np.save(feeds / f"{quote(name, safe='')}.npy", array)
    known.update(call(module, own, outputs=outputs))
    return feeds


def _same(whole: Sequence[Tensor], made: Model, inputs: Sequence[Tensor]) -> None:
    """Hold the chain of the parts against the network, bit by bit: the same operations in the same order."""
    import torch

    from harness_torch import load

    for old, new in zip(whole, _several(runs("split", load(made), inputs)), strict=True):
        if not torch.equal(old, new):
            raise Unsupported("split would change the outputs: the code of the model is not the same at every call")


def _several(outputs: Any) -> tuple[Any, ...]:
    return tuple(outputs) if isinstance(outputs, (tuple, list)) else (outputs,)
