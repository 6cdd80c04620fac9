"""What stands in the way of a model, told by translating and compiling it as it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.api import Finding, Model
from harness_onnx import as_given, is_quantized, quantizable, quiet
from harness_openvino.probe import import_openvino
from harness_openvino.reading import read
from harness_openvino.session import fix_batch, plain_session

if TYPE_CHECKING:
    from harness_openvino.params import Params


def examine(model: Model, params: Params) -> tuple[Finding, ...]:
    """Translate and compile a model as it is, and say whether a precision has something to act on."""
    del params
    wanted = model.precision
    onnx = model.format == "onnx"
    if wanted.name == "float32" or (onnx and as_given(model)):
        with quiet():
            return _loaded(model)
    if wanted.name in {"float16", "bfloat16", "binary"} or not onnx:
        return ()
    if is_quantized(model.path):
        return (Finding("the file is quantized already; baseline runs it as it is"),)
    total, stored, _inside = quantizable(model.path)
    if not stored:
        has = f"none of its {total} has stored weights" if total else "it has none"
        return (Finding(f"nothing to quantize: {has} (convolution, matrix product or recurrent layer)"),)
    return ()


def _loaded(model: Model) -> tuple[Finding, ...]:
    graph = read(model)
    fix_batch(graph, import_openvino(), 1)
    plain_session(graph).close()
    return ()
