"""Files that compute in float16 or float64 as files that compute in float32: quantizers know no other weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.api import Model
from harness_onnx.graph import consumers, import_onnx, load, nested_nodes, put_at, subgraphs

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, TensorProto

_TYPES = ("to", "dtype")  # attributes that name the type of what an operator gives


def widened(model: Model, out: Path) -> Model:
    """Return a model whose file computes in float32; the same model where its file does already.

    Inputs and outputs keep their types. Float16 becomes more exact by it, float64 less so, as in every quantized file.

    Args:
        model: An ONNX model.
        out: Where another file goes, if one is needed.
    """
    onnx = import_onnx()
    file, kinds = load(model.path), {onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE}
    if not any(item.data_type in kinds for graph in _graphs(file.graph) for item in graph.initializer):
        return model
    for graph in _graphs(file.graph):
        _widen_tensors(graph, kinds)
    _keep_interface(file, kinds)
    onnx.save(file, str(out))
    return dataclasses.replace(model, path=out)


def _graphs(graph: GraphProto) -> Iterator[GraphProto]:
    yield graph
    for node in nested_nodes(graph.node):
        yield from subgraphs(node)


def _widen_tensors(graph: GraphProto, kinds: set[int]) -> None:
    """Turn what a graph stores, and what its operators are told to give, into float32."""
    onnx = import_onnx()
    del graph.value_info[:]
    for item in graph.initializer:
        _widen(item, kinds)
    for node in graph.node:
        for given in node.attribute:
            if given.type == onnx.AttributeProto.TENSOR:
                _widen(given.t, kinds)
            elif given.name in _TYPES and given.type == onnx.AttributeProto.INT and given.i in kinds:
                given.i = onnx.TensorProto.FLOAT


def _widen(tensor: TensorProto, kinds: set[int]) -> None:
    onnx = import_onnx()
    if tensor.data_type in kinds:
        values = onnx.numpy_helper.to_array(tensor).astype("float32")
        tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))


def _keep_interface(file: ModelProto, kinds: set[int]) -> None:
    """Cast at the borders of the file, and declare float32 at those of nested graphs."""
    onnx = import_onnx()
    graph = file.graph
    for inner in list(_graphs(graph))[1:]:
        for port in (*inner.input, *inner.output):
            if port.type.tensor_type.elem_type in kinds:
                port.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    readers, makers = consumers(graph), {name: node for node in graph.node for name in node.output}
    stored = {item.name for item in graph.initializer}
    casts: list[Any] = []
    for port in graph.input:
        if port.type.tensor_type.elem_type in kinds and port.name not in stored:
            wide = f"{port.name}/float32"
            for reader, place in readers.get(port.name, []):
                reader.input[place] = wide
            casts.append(_cast(port.name, wide, onnx.TensorProto.FLOAT))
    for port in graph.output:
        if port.type.tensor_type.elem_type in kinds and port.name in makers:
            wide, maker = f"{port.name}/float32", makers[port.name]
            maker.output[list(maker.output).index(port.name)] = wide
            for reader, place in readers.get(port.name, []):
                reader.input[place] = wide
            graph.node.append(_cast(wide, port.name, port.type.tensor_type.elem_type))
    put_at(file, 0, casts)


def _cast(source: str, result: str, kind: int) -> Any:
    return import_onnx().helper.make_node("Cast", [source], [result], name=f"{result}/cast", to=kind)
