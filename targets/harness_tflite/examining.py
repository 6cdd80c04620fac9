"""What stands in the way of a model, told by an interpreter that allocates its tensors."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from harness.api import Finding, Model
from harness_tflite import flatbuffer
from harness_tflite.chatter import captured

if TYPE_CHECKING:
    from harness_tflite.params import Params

_LOG = logging.getLogger("harness_tflite")
_WEIGHTED = {"CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "FULLY_CONNECTED", "BATCH_MATMUL"}


def examine(model: Model, params: Params) -> tuple[Finding, ...]:
    """Load a file as it is, or say whether a precision has something to act on."""
    del params
    wanted = model.precision
    quantized = flatbuffer.is_quantized(model.path)
    if wanted.name == "float32" or (quantized and wanted.realise == "exact" and wanted.encodings is None):
        return _loaded(model)
    if quantized:
        return (Finding("the file is quantized already; baseline runs it as it is"),)
    if not any(node.op in _WEIGHTED for node in flatbuffer.nodes(flatbuffer.open_model(model.path))):
        return (Finding("nothing to quantize: it has no convolution and no matrix product"),)
    return ()


def _loaded(model: Model) -> tuple[Finding, ...]:
    from ai_edge_litert.interpreter import Interpreter

    with captured(_LOG):
        Interpreter(str(model.path), num_threads=1).allocate_tensors()
    return ()
