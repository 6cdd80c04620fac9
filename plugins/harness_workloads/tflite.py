"""What a .tflite file computes in, told from its tensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harness.api import Precision

_INTEGERS = {"int8", "uint8", "int16"}
_CONVERSIONS = {"QUANTIZE", "DEQUANTIZE"}
_LOOKUPS = {"GATHER", "EMBEDDING_LOOKUP"}  # they read a table of integers without computing with it


def own_precision(path: Path) -> Precision:
    """Return the precision of a file as it is.

    Integer results of operators are static int8, integer weights of operators with float results dynamic int8, and
    integer weights that are turned into floats first weight-only int8; all else is float32.

    Args:
        path: A .tflite file that ``declared`` could read.
    """
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path))
    integers = {int(item["index"]) for item in interpreter.get_tensor_details() if item["dtype"].__name__ in _INTEGERS}
    nodes: list[Any] = interpreter._get_ops_details()  # there is no public list of operators
    changing = {int(index) for node in nodes for index in node["outputs"]}
    changing |= {int(item["index"]) for item in interpreter.get_input_details()}
    working = [node for node in nodes if node["op_name"] not in _CONVERSIONS]
    if any(integers & set(node["outputs"]) for node in working):
        return Precision("int8", "int8", "static", realise="exact")
    weights = integers - changing
    if any(weights & set(node["inputs"]) for node in working if node["op_name"] not in _LOOKUPS):
        return Precision("int8", "int8", "dynamic", realise="exact")
    if any(weights & set(node["inputs"]) for node in nodes if node["op_name"] == "DEQUANTIZE"):
        return Precision("int8", scheme="weight-only", realise="exact")
    return Precision()
