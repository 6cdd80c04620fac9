"""Parameters of the target."""

from __future__ import annotations

from dataclasses import dataclass

from harness.api import param


@dataclass(frozen=True)
class Params:
    """What can be chosen about OpenVINO."""

    fast_bias_correction: bool = param(True, "static int8 corrects biases layer by layer, not by running the model")
    smooth_quant: bool = param(False, "static int8 of models with attention moves outliers into weights first")
    pinning: bool = param(False, "let OpenVINO pin its threads; off, because the harness has pinned the process")
