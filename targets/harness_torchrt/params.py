"""Parameters of the target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from harness.api import param


@dataclass(frozen=True)
class Params:
    """What can be chosen about PyTorch as a runtime."""

    mode: Literal["eager", "compile"] = param("eager", "run the exported operators one by one, or by torch.compile")
    device: Literal["cpu", "cuda"] = param("cpu", "where it runs")
    channels_last: bool = param(False, "weights and 4-D inputs with the channels innermost")
    freezing: bool = param(True, "compile only: fold constants and pack weights; int8 always does")
    loops: bool = param(
        False,
        "cpu only: run half floats that oneDNN has no kernels for, by loops ten and more times slower than float32",
    )
    cuda_graphs: bool = param(False, "cuda only: capture a run once and replay it")
    tf32: bool = param(False, "cuda only: let float32 products run in TensorFloat-32")
