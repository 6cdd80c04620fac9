"""Which operators of a loaded model XNNPACK runs, in which precision, and with how many multiply-accumulates."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.api import Placement, Unsupported

# LiteRT's builtin names -> the field's; others are put into CamelCase.
_NAMES = {
    "CONV_2D": "Conv",
    "DEPTHWISE_CONV_2D": "DepthwiseConv",
    "TRANSPOSE_CONV": "ConvTranspose",
    "FULLY_CONNECTED": "MatMul",
    "BATCH_MATMUL": "MatMul",
}
_WEIGHTED = frozenset({"CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "FULLY_CONNECTED", "BATCH_MATMUL"})


@dataclass(frozen=True)
class Graph:
    """What an interpreter says of a loaded model.

    Attributes:
        nodes: The operators of the file, then one DELEGATE node per partition that XNNPACK took over.
        tensors: Details by index: name, shape, dtype (a numpy type or its name).
        inputs: Indices of the inputs.
    """

    nodes: Sequence[Mapping[str, Any]]
    tensors: Mapping[int, Mapping[str, Any]]
    inputs: frozenset[int]


def graph_of(interpreter: Any) -> Graph:
    """Read an allocated interpreter.

    Raises:
        Unsupported: This release of LiteRT does not list operators.
    """
    tensors = {entry["index"]: entry for entry in interpreter.get_tensor_details()}
    inputs = frozenset(int(entry["index"]) for entry in interpreter.get_input_details())
    return Graph(list_nodes(interpreter), tensors, inputs)


def placements(graph: Graph, *, batch: int) -> tuple[Placement, ...]:
    """Return one entry per operator that runs, in the order of the file.

    Args:
        graph: Of the loaded model.
        batch: Of its inputs; multiply-accumulates are given per item.
    """
    operators = [entry for entry in graph.nodes if entry["op_name"] != "DELEGATE"]
    taken = delegated(operators, [entry for entry in graph.nodes if entry["op_name"] == "DELEGATE"])
    at_load = unpacked_at_load(operators, taken, set(graph.inputs))
    return tuple(
        _placement(entry, graph.tensors, batch, xnnpack=entry["index"] in taken)
        for entry in operators
        if entry["index"] not in at_load
    )


def list_nodes(interpreter: Any) -> list[Mapping[str, Any]]:
    """Return the interpreter's nodes: index, op_name, inputs, outputs. There is no public call for it in LiteRT 2.3.

    Raises:
        Unsupported: This release of LiteRT does not list operators.
    """
    if not hasattr(interpreter, "_get_ops_details"):
        raise Unsupported("this release of LiteRT does not list operators")
    nodes: list[Mapping[str, Any]] = interpreter._get_ops_details()
    return nodes


def unpacked_at_load(operators: Sequence[Mapping[str, Any]], taken: frozenset[int], inputs: set[int]) -> frozenset[int]:
    """Return the operators that never run: XNNPACK dequantizes and densifies constant weights while it loads."""
    made = inputs | {int(tensor) for entry in operators for tensor in entry["outputs"]}
    return frozenset(
        entry["index"]
        for entry in operators
        if entry["op_name"] in {"DEQUANTIZE", "DENSIFY"} and entry["index"] in taken
        if not made & {int(tensor) for tensor in entry["inputs"]}
    )


def delegated(operators: Sequence[Mapping[str, Any]], partitions: Sequence[Mapping[str, Any]]) -> frozenset[int]:
    """Return the indices of the operators inside the partitions.

    A partition's outputs are all that is read outside it, and its inputs all that it reads from outside. So its
    operators are those met on the way from its outputs back to its inputs.
    """
    producer = {int(tensor): entry for entry in operators for tensor in entry["outputs"]}
    found: set[int] = set()
    for partition in partitions:
        border = {int(tensor) for tensor in partition["inputs"]}
        open_ends = [int(tensor) for tensor in partition["outputs"]]
        while open_ends:
            tensor = open_ends.pop()
            if tensor in border or tensor not in producer or producer[tensor]["index"] in found:
                continue
            found.add(producer[tensor]["index"])
            open_ends += [int(source) for source in producer[tensor]["inputs"]]
    return frozenset(found)


def op_name(op: str) -> str:
    """Return the field's name of one of LiteRT's builtin operators."""
    return _NAMES.get(op, op.title().replace("_", ""))


def _placement(entry: Mapping[str, Any], tensors: Mapping[int, Any], batch: int, *, xnnpack: bool) -> Placement:
    op = entry["op_name"]
    inputs = [tensors[int(index)] for index in entry["inputs"] if int(index) in tensors]
    outputs = [tensors[int(index)] for index in entry["outputs"] if int(index) in tensors]
    macs = multiply_accumulates(op, inputs, outputs)
    return Placement(
        op=op_name(op),
        name=outputs[0]["name"] if outputs else "",
        kernel=f"XNNPACK {op}" if xnnpack else f"LiteRT builtin {op}",
        device="cpu",
        precision=arithmetic(op, inputs, outputs),
        macs=None if macs is None else macs // batch,
    )


def arithmetic(op: str, inputs: Sequence[Mapping[str, Any]], outputs: Sequence[Mapping[str, Any]]) -> str:
    """Return the dtype that an operator computes in.

    That of its data input; but int8 where float data meets int8 weights: LiteRT and XNNPACK quantize the data then,
    while weights of a weight-only model pass a DEQUANTIZE first.
    """
    types = [_dtype(entry) for entry in (*inputs, *outputs)]
    if op in _WEIGHTED and len(inputs) > 1:
        data, weights = _dtype(inputs[0]), _dtype(inputs[1])
        return weights if data == "float32" and weights in {"int8", "int4"} else data
    return types[0] if types else "unknown"


def _dtype(entry: Mapping[str, Any]) -> str:
    found = entry["dtype"]
    return found if isinstance(found, str) else str(found.__name__)


def multiply_accumulates(
    op: str, inputs: Sequence[Mapping[str, Any]], outputs: Sequence[Mapping[str, Any]]
) -> int | None:
    """Count from shapes: outputs times what is summed up for each; 0 for operators without weights or products.

    Shapes are LiteRT's: convolution weights [out, h, w, in], depthwise [1, h, w, out], fully connected [out, in].
    """
    if op not in _WEIGHTED:
        return 0
    shapes = [tuple(int(size) for size in entry["shape"]) for entry in inputs]
    items = math.prod(int(size) for size in outputs[0]["shape"])
    if op == "CONV_2D":
        return items * math.prod(shapes[1][1:])  # in is per group already
    if op == "DEPTHWISE_CONV_2D":
        return items * shapes[1][1] * shapes[1][2]
    if op == "TRANSPOSE_CONV":  # inputs: output shape, weights, data; each datum meets every weight of its channel
        return math.prod(shapes[2]) * shapes[1][0] * shapes[1][1] * shapes[1][2]
    if op == "FULLY_CONNECTED":
        return items * shapes[1][-1]
    return _matmul(shapes[0], shapes[1], items, tuple(int(size) for size in outputs[0]["shape"]))


def _matmul(left: tuple[int, ...], right: tuple[int, ...], items: int, out: tuple[int, ...]) -> int:
    """Return items times the inner dimension, whichever operand is transposed: m·k · k·n / (m·n) = k²."""
    rows, columns = out[-2], out[-1]
    inner = math.isqrt(left[-1] * left[-2] * right[-1] * right[-2] // (rows * columns))
    return items * inner
