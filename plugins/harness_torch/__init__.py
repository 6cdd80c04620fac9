"""What every method and workload in PyTorch needs: load, save, train, predict count; importing it loads no torch."""

from __future__ import annotations

from harness_torch.counting import macs, nonzero, parameters
from harness_torch.files import effect, load, new_model, save
from harness_torch.inference import call, evaluate, example_inputs, tensors
from harness_torch.plain import Plain, plain
from harness_torch.training import fit, seed_everything
from harness_torch.travelling import copied
from harness_torch.tuning import fine_tune

__all__ = [
    "Plain",
    "call",
    "copied",
    "effect",
    "evaluate",
    "example_inputs",
    "fine_tune",
    "fit",
    "load",
    "macs",
    "new_model",
    "nonzero",
    "parameters",
    "plain",
    "save",
    "seed_everything",
    "tensors",
]
