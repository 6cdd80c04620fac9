"""What stands in the way of a module, told by exporting it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.api import Finding, Model
from harness_torchrt import program

if TYPE_CHECKING:
    from harness_torchrt.params import Params


def examine(model: Model, params: Params) -> tuple[Finding, ...]:
    """Export the module as lowering does; what a precision acts on is known only when it is quantized."""
    del params
    if model.precision.name != "float32":
        return ()
    import harness_torch

    program.export(harness_torch.load(model), harness_torch.example_inputs(model.inputs, batch=2), model.inputs)
    return ()
