"""What stands in the way of a model, told by loading it without optimizations."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.api import Finding, MissingDependency, Model
from harness_onnx import as_given, is_quantized, quantizable
from harness_onnxruntime.probe import HINT, providers

if TYPE_CHECKING:
    from harness_onnxruntime.params import Params


def examine(model: Model, params: Params) -> tuple[Finding, ...]:
    """Load a graph as it is, and say whether a precision has something to act on."""
    wanted = model.precision
    if wanted.name == "float32" or as_given(model):
        return _loaded(model, params)
    if wanted.name not in {"float16", "binary"} and is_quantized(model.path):
        return (Finding("the file is quantized already; baseline runs it as it is"),)
    total, stored, inside = quantizable(model.path)
    if wanted.name not in {"float16", "binary"} and not stored:
        has = f"none of its {total} has stored weights" if total else "it has none"
        return (Finding(f"nothing to quantize: {has} (convolution, matrix product or recurrent layer)"),)
    if wanted.name in {"int8", "dynamic-int8"} and inside:
        told = f"{inside} of {stored} layers lie in branches or loops, which the quantizer does not enter"
        return (Finding(told, stops=inside == stored),)
    return ()


def _loaded(model: Model, params: Params) -> tuple[Finding, ...]:
    try:
        import onnxruntime
    except (ImportError, OSError) as error:
        raise MissingDependency(f"onnxruntime cannot be imported: {error}", hint=HINT) from error
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    onnxruntime.InferenceSession(str(model.path), options, providers=providers(params))
    return ()
