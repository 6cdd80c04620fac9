"""What stands in the way of a model: operators that are not translated, and whether the rest compiles."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Any

from harness.api import Finding, Model
from harness_onnx import as_given, is_quantized, operator_types, quantizable, quiet
from harness_openvino.probe import import_openvino

if TYPE_CHECKING:
    from harness_openvino.params import Params

_LEFT = re.compile("FrameworkNode|NotSupported")  # types of what a frontend did not translate


def examine(model: Model, params: Params) -> tuple[Finding, ...]:
    """Translate and compile a model as it is, and say whether a precision has something to act on."""
    del params
    wanted = model.precision
    if wanted.name == "float32" or as_given(model):
        with quiet():
            return _translated(model)
    if wanted.name in {"float16", "bfloat16", "binary"} or model.format != "onnx":
        return ()
    if is_quantized(model.path):
        return (Finding("the file is quantized already; baseline runs it as it is"),)
    total, stored = quantizable(model.path)
    if not stored:
        has = f"none of its {total} has stored weights" if total else "it has none"
        return (Finding(f"nothing to quantize: {has} (convolution, matrix product or recurrent layer)"),)
    return ()


def _translated(model: Model) -> tuple[Finding, ...]:
    graph, missing = _partially(model)
    if missing:
        told = ", ".join(f"{count} {name}" for name, count in missing.most_common())
        return (Finding(f"openvino does not translate {told}"),)
    import_openvino().Core().compile_model(graph, "CPU")
    return ()


def _partially(model: Model) -> tuple[Any, Counter[str]]:
    """Return the graph and, by type, how many operators were left as they came."""
    from openvino.frontend import FrontEndManager

    frontend = FrontEndManager().load_by_framework(model.format)
    graph = frontend.convert_partially(frontend.load(str(model.path)))
    left = [node.get_friendly_name() for node in graph.get_ops() if _LEFT.search(node.get_type_name())]
    # A placeholder's own attributes are not asked: reading them has ended the process (2026.3).
    types = operator_types(model.path) if left and model.format == "onnx" else {}
    return graph, Counter(types.get(name, repr(name)) for name in left)
