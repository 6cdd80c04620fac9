"""Clip weights at a percentile of their magnitudes, layer by layer.

Under a symmetric int8 scale one large weight makes the step coarse for all others. Migacz, "8-bit Inference with
TensorRT" (2017), has the same idea for activations.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import harness_torch
from harness.api import Job, Model, param


@dataclass(frozen=True)
class Params:
    """Parameters of ``weight-clipping``; the command line, its help and its checks come from here."""

    percentile: float = param(99.9, "share of each layer's weights, in percent, that is kept as it is", gt=50, le=100)


def compress(model: Model, params: Params, job: Job) -> Model:
    """Return the model with every weight matrix and kernel clipped."""
    module = harness_torch.load(model)
    job.progress(0.5, "clipping weights")
    clip(module, params.percentile)
    return harness_torch.save(module, model, job)


def clip(module: Any, percentile: float) -> None:
    """Clip every parameter of two and more dimensions of a ``torch.nn.Module`` in place."""
    import torch

    with torch.no_grad():
        for weight in module.parameters():
            if weight.dim() >= 2:
                kept = max(1, math.floor(weight.numel() * percentile / 100))
                limit = weight.abs().flatten().kthvalue(kept).values.item()
                weight.clamp_(-limit, limit)
