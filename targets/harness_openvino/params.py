"""Parameters of the target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from harness.api import param


@dataclass(frozen=True)
class Params:
    """What can be chosen about OpenVINO."""

    bias_correction: Literal["off", "fast", "full"] = param(
        "off",
        "static int8 shifts biases by the mean error: fast from statistics of each layer, full by running the model; "
        "off, for fast was seen to lose up to 8 dB (a U-Net), and full takes several times as long",
    )
    smooth_quant: bool = param(False, "static int8 of models with attention moves outliers into weights first")
    accuracy_drop: float = param(
        0.0,
        "static int8 leaves layers float until the selection metric drops by at most this; 0: off",
        ge=0,
    )
    device: Literal["CPU", "GPU", "NPU", "AUTO"] = param("CPU", "OpenVINO's device")
    hint: Literal["latency", "throughput"] = param("latency", "PERFORMANCE_HINT; throughput opens several streams")
    precision: Literal["artifact", "f32", "bf16", "f16"] = param(
        "artifact", "INFERENCE_PRECISION_HINT; artifact: f32, or f16 for a float16 file where the device has it"
    )
    group_size: int = param(0, "weight-only int4: how many weights of an output channel share a scale; 0: all", ge=0)
    dynamic_quantization: int = param(
        0,
        "DYNAMIC_QUANTIZATION_GROUP_SIZE: weight-only layers quantize activations to int8 in groups of this size; "
        "0: they stay float, 32 is OpenVINO's own default",
        ge=0,
    )
    cache: bool = param(False, "keep the compiled model on disk, so that the next load is shorter")
    pinning: bool = param(False, "let OpenVINO pin its threads; off, because the harness has pinned the process")
