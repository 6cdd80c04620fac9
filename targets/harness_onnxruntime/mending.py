"""Static int8 that keeps its answers: fewer kinds of operators are quantized where that saves an output."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.api import Artifact, Model, Options, Unsupported
from harness_onnx import Loss, loss
from harness_onnxruntime.session import OnnxRuntimeSession, open_session

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from harness_onnxruntime.params import Params

    Feed = Mapping[str, NDArray[Any]]
    Quantize = Callable[[Collection[str]], None]

_COMPARED = 4  # calls
_GAIN = 1.0  # decibel that quantizing less has to bring
_LAYERS = ("Conv", "Gemm", "MatMul")
_MOVES = (
    "AveragePool", "Clip", "Concat", "Flatten", "Gather", "GlobalAveragePool", "MaxPool", "Pad", "Relu", "Reshape",
    "Resize", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze",
)  # fmt: skip
# What is quantized, from most to least, and what then stays float. Each has all layers, and so all multiplications.
_WAYS: Mapping[str, Collection[str]] = {
    "": (),
    "element-wise operators": (*_LAYERS, *_MOVES),
    "all but layers": _LAYERS,
}


def keep_answers(
    quantize: Quantize, model: Model, out: Path, feeds: Sequence[Feed], params: Params
) -> tuple[Loss | None, str]:
    """Quantize, and quantize fewer kinds of operators while an output keeps too little on calibration items.

    Sums, products and roots in eight bits ruin a normalization or a logarithm that a graph writes out.

    Args:
        quantize: Writes ``out`` with operators of these types quantized, all that can be where there are none.
        model: In float32.
        out: The quantized file.
        feeds: Of the calibration.
        params: Of the target.

    Returns:
        What is lost in the end, or None where every output keeps enough; and what stays float, "" for nothing.
    """
    exact, compared = _session(model.path, params), feeds[:_COMPARED]
    best = out.with_suffix(".best.onnx")
    found: Loss | None = None
    chosen = ""
    for kept, types in _WAYS.items():
        try:
            quantize(types)
        except Unsupported:
            if not types:
                raise
            continue
        lost = loss(exact, _session(out, params), compared)
        if not types or lost is None or (found is not None and lost.sqnr_db >= found.sqnr_db + _GAIN):
            found, chosen = lost, kept
            shutil.copyfile(out, best)
        if lost is None:
            break
    shutil.move(best, out)
    return found, chosen


def _session(path: Path, params: Params) -> OnnxRuntimeSession:
    artifact = Artifact(path, "onnx", "", "", "", artifact_bytes=0, stored_bytes=0)
    return open_session(artifact, params, Options(), "accuracy")
