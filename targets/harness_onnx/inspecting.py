"""What an ONNX file holds, for ``harness inspect``."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from harness.api import Inspected, Model, Operators, Shapes, Weights
from harness_onnx.graph import import_onnx, load, node_macs, tensor_shapes

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto, TensorProto

HUGE = 1e9  # a calibration range that holds such a constant leaves nothing for the rest
LAYERS = frozenset({"Conv", "ConvTranspose", "MatMul", "Gemm", "LSTM", "GRU", "RNN"})  # what has weights to multiply
_OWN = {"", "ai.onnx"}


def inspect(model: Model, shapes: Shapes) -> Inspected:
    """Read a file; it is not run.

    Args:
        model: In format "onnx".
        shapes: Of its inputs at one item, for multiply-accumulates.
    """
    proto = load(model.path, values=False)
    producer = " ".join(text for text in (proto.producer_name, proto.producer_version) if text)
    versions = {f"opset{f' {item.domain}' if item.domain not in _OWN else ''}": str(item.version)
                for item in proto.opset_import if item.domain in _OWN or _uses(proto, item.domain)}  # fmt: skip
    versions["IR"] = str(proto.ir_version)
    operators, unknown = _operators(proto, shapes)
    remarks = tuple(_remarks(proto))
    if unknown:
        why = "their shapes are known only when it runs" if shapes else "sizes are free, and no data are given"
        remarks += (f"multiply-accumulates of {_many(unknown, 'layer')} are not counted: {why}",)
    return Inspected("onnx", producer, versions, operators, _weights(proto), remarks)


def nan_weights(model: Model) -> dict[str, int]:
    """Return the initializers of a file that hold NaN, and how many."""
    onnx = import_onnx()
    floats = {onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE}
    stored = (item for item in load(model.path).graph.initializer if item.data_type in floats)
    counts = {item.name: int(np.isnan(onnx.numpy_helper.to_array(item)).sum()) for item in stored}
    return {name: count for name, count in counts.items() if count}


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def nodes(graph: GraphProto) -> Iterator[tuple[NodeProto, GraphProto]]:
    """Yield all nodes, those of nested graphs too, each with the graph that it stands in."""
    for node in graph.node:
        yield node, graph
        for nested in nested_graphs(node):
            yield from nodes(nested)


def nested_graphs(node: NodeProto) -> Iterator[GraphProto]:
    """Yield the graphs that a node's attributes hold: the branches of If, the bodies of Loop and Scan."""
    for item in node.attribute:
        if item.HasField("g"):
            yield item.g
        yield from item.graphs


def _uses(proto: ModelProto, domain: str) -> bool:
    return any(node.domain == domain for node, _graph in nodes(proto.graph))


def _operators(proto: ModelProto, shapes: Shapes) -> tuple[tuple[Operators, ...], int]:
    """Return the operators by type, and how many products there are whose shapes are not known."""
    counts: dict[str, int] = defaultdict(int)
    macs: dict[str, int] = {}
    unknown = 0
    for node, known in _shaped(_inferred(proto, shapes).graph, {}):
        if node.op_type == "Constant":
            continue
        name = node.op_type if node.domain in _OWN else f"{node.domain}.{node.op_type}"
        counts[name] += 1
        found = node_macs(node, known)
        unknown += found is None and node.op_type in LAYERS
        if found is not None:
            macs[name] = macs.get(name, 0) + found
    rows = (Operators(name, count, macs.get(name)) for name, count in counts.items())
    return tuple(sorted(rows, key=lambda row: (-(row.macs or 0), -row.count, row.op))), unknown


def _shaped(graph: GraphProto, outer: Shapes) -> Iterator[tuple[NodeProto, Shapes]]:
    """Yield all nodes, each with the shapes that are known where it stands; a nested graph sees those around it."""
    known = {**outer, **tensor_shapes(graph)}
    for node in graph.node:
        yield node, known
        for nested in nested_graphs(node):
            yield from _shaped(nested, known)


def _inferred(proto: ModelProto, shapes: Shapes) -> ModelProto:
    """Return a copy with the inputs at these shapes and all others inferred; as it is where that fails."""
    onnx = import_onnx()
    fixed = onnx.ModelProto()
    fixed.CopyFrom(proto)
    for item in fixed.graph.input:
        dims = item.type.tensor_type.shape.dim
        for dim, size in zip(dims, shapes.get(item.name, ()), strict=False):
            dim.dim_value = size
    for item in fixed.graph.output:
        item.type.tensor_type.ClearField("shape")
    del fixed.graph.value_info[:]
    try:
        inferred: ModelProto = onnx.shape_inference.infer_shapes(fixed, data_prop=True)
        return inferred
    except Exception:  # noqa: BLE001  raised by the checker's C++ in several classes; counts need no shapes
        return proto


def _weights(proto: ModelProto) -> tuple[Weights, ...]:
    found: dict[tuple[str, str], list[int]] = {}
    for where, tensor in _stored(proto.graph):
        row = found.setdefault((where, _dtype(tensor)), [0, 0])
        row[0] += 1
        row[1] += _bytes(tensor)
    rows = (Weights(where, dtype, *row) for (where, dtype), row in found.items())
    return tuple(sorted(rows, key=lambda row: -row.bytes))


def _stored(graph: GraphProto, *, nested: bool = False) -> Iterator[tuple[str, TensorProto]]:
    """Yield every stored tensor with the kind of place that it lies in."""
    inside = " of subgraphs" if nested else ""
    for tensor in graph.initializer:
        outside = any(entry.key == "location" for entry in tensor.external_data)
        yield ("external data" if outside else f"initializers{inside}"), tensor
    for sparse in graph.sparse_initializer:
        yield f"sparse initializers{inside}", sparse.values
    for node in graph.node:
        for item in node.attribute:
            if item.HasField("t"):
                yield (f"Constant nodes{inside}" if node.op_type == "Constant" else f"attributes{inside}"), item.t
        for body in nested_graphs(node):
            yield from _stored(body, nested=True)


def _dtype(tensor: TensorProto) -> str:
    onnx = import_onnx()
    name = str(onnx.TensorProto.DataType.Name(tensor.data_type)).lower()
    return {"float": "float32", "double": "float64"}.get(name, name)


def _bytes(tensor: TensorProto) -> int:
    onnx = import_onnx()
    if tensor.data_type == onnx.TensorProto.STRING:
        return sum(len(text) for text in tensor.string_data)
    bits = 4 if _dtype(tensor) in {"int4", "uint4", "float4e2m1"} else 8 * _itemsize(tensor)
    elements: int = math.prod(tensor.dims)
    return (elements * bits + 7) // 8


def _itemsize(tensor: TensorProto) -> int:
    return int(import_onnx().helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)


def _remarks(proto: ModelProto) -> Iterator[str]:
    every = [node for node, _graph in nodes(proto.graph)]
    kinds = {node.op_type for node in every}
    if any("Quantize" in kind or kind.startswith("QLinear") for kind in kinds):
        yield "it is quantized already: baseline runs it as it is, and no other precision can be asked of it"
    flow = sorted(kinds & {"If", "Loop", "Scan"})
    if flow:
        inner = len(every) - len(proto.graph.node)
        yield f"control flow ({', '.join(flow)}) holds {inner} of {len(every)} operators in subgraphs"
    if proto.functions:
        yield f"{_many(len(proto.functions), 'function')} of its own, which are inlined first"
    foreign = sorted({node.domain for node in every if node.domain not in _OWN} - {f.domain for f in proto.functions})
    if foreign:
        yield f"operators of {', '.join(foreign)}, not of ONNX itself: only runtimes that know them can load it"
    yield from _values(proto)


def _values(proto: ModelProto) -> Iterator[str]:
    """Say which stored values spoil what is computed from them."""
    onnx = import_onnx()
    spoilt: list[str] = []
    masks: list[str] = []
    for where, tensor in _stored(proto.graph):
        if where == "external data" or _dtype(tensor) not in {"float32", "float16", "float64"}:
            continue
        values = onnx.numpy_helper.to_array(tensor)
        if values.size and np.isnan(values).any():
            spoilt.append(tensor.name)
        elif values.size and np.abs(values).max() >= HUGE:
            masks.append(tensor.name)
    if spoilt:
        names = ", ".join(map(repr, spoilt[:3]))
        yield f"{_many(len(spoilt), 'weight')} with NaN ({names}): so is all that is computed with them"
    if masks:
        yield f"{_many(len(masks), 'constant')} infinite or huge, as masks are: a calibration range must leave them out"


def quantizable(path: Path) -> tuple[int, int, int]:
    """Return how many layers multiply, how many of them have stored weights, and how many of those subgraphs hold."""
    total = stored = inside = 0
    main = load(path, values=False).graph
    for node, graph in nodes(main):
        if node.op_type not in LAYERS:
            continue
        total += 1
        held = any(name in _constant_names(graph) for name in node.input[1:])
        stored += held
        inside += held and graph is not main
    return total, stored, inside


def _constant_names(graph: GraphProto) -> set[str]:
    found = {item.name for item in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" or (node.input and all(name in found for name in node.input if name)):
            found.update(node.output)
    return found
