"""Modules on disk, and what a step measured about its result."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

from harness.api import Job, Model, Precision, TensorSpec, Unsupported
from harness_torch import travelling
from harness_torch.counting import macs, nonzero, parameters
from harness_torch.inference import evaluate, example_inputs

if TYPE_CHECKING:
    from torch import nn

EFFECT_FILE = "effect.json"


def load(model: Model) -> nn.Module:
    """Return the module of a model in format "torch", on the CPU and in evaluation mode; of parts, their chain.

    Raises:
        Unsupported: The model has another format.
    """
    if model.format != "torch":
        raise Unsupported(f"a step in PyTorch cannot read a model of format {model.format!r}")
    if model.parts:
        from harness_torch.parts import Chain

        return Chain([load(part) for part in model.parts], list(model.inputs), model.parts).eval()
    return travelling.read(model.path).eval()


def save(
    module: nn.Module,
    like: Model,
    job: Job,
    *,
    name: str = "model.pt",
    precision: Precision | None = None,
    counted: Mapping[str, float] | None = None,
) -> Model:
    """Write a module and its effect into the job's folder, and return the model that points to it.

    Args:
        module: Left in evaluation mode.
        like: The model it was made from: inputs, outputs, lineage and flags carry over.
        job: Of the step; ``effect.json`` beside the model is read into the lineage.
        name: File name.
        precision: What arithmetic the result wants; that of ``like`` where not given.
        counted: What the step counted itself, such as ``layers_touched``: told beside its effect.
    """
    path = job.out / name
    module.zero_grad(set_to_none=True)
    _share_names(module)
    travelling.write(module.eval(), path)
    (job.out / EFFECT_FILE).write_text(json.dumps({**effect(module, job), **(counted or {})}, sort_keys=True))
    return dataclasses.replace(like, format="torch", path=path, precision=precision or like.precision)


def _share_names(module: nn.Module) -> None:
    """Let equal names of recurrent layers be one object: pickle writes a string anew for each object that holds it.

    Without this the same weights give other bytes, depending on what ran before in the process.
    """
    for layer in module.modules():
        parameters = dict(layer._parameters)
        layer._parameters.clear()
        layer._parameters.update((sys.intern(name), value) for name, value in parameters.items())
        names = getattr(layer, "_flat_weights_names", None)
        if isinstance(names, list):
            names[:] = map(sys.intern, names)
            for group in layer._all_weights:
                group[:] = map(sys.intern, group)


def new_model(
    module: nn.Module,
    job: Job,
    inputs: Mapping[str, TensorSpec],
    outputs: tuple[str, ...],
    *,
    flags: tuple[str, ...] = (),
    axes: Mapping[str, int | None] | None = None,
) -> Model:
    """Write a workload's fitted module and return its model, with no lineage yet."""
    like = Model("torch", job.out / "model.pt", dict(inputs), tuple(outputs), flags=flags, axes=dict(axes or {}))
    return save(module, like, job)


def effect(module: nn.Module, job: Job) -> dict[str, float]:
    """Measure what a step left.

    Returns:
        ``parameters`` and ``nonzero_parameters``; ``macs`` per item; and, where the workload is labelled,
        ``selection_score``, its metric on the selection split.
    """
    facts = {
        "parameters": float(parameters(module)),
        "nonzero_parameters": float(nonzero(module)),
        "macs": float(macs(module, example_inputs(job))),
    }
    labels = job.data.split("selection").labels
    if labels is not None and len(labels):
        facts["selection_score"] = evaluate(module, job)
    return facts
