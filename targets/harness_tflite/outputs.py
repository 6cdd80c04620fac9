"""Outputs of a graph that its operators read too: the quantizer cannot leave these float and quantize the reader."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from harness_tflite import flatbuffer


def read_apart(path: Path, out: Path) -> Path:
    """Return a file in which no operator reads an output of the graph: a reshape that changes nothing gives it.

    A state that a network gives and goes on with is such an output. The batch may still be resized.

    Args:
        path: The file; not changed.
        out: Where another goes, if one is needed.
    """
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromObj(flatbuffer.open_model(path))
    graph = model.subgraphs[0]
    read = {int(index) for operator in graph.operators for index in operator.inputs}
    shared = [int(index) for index in graph.outputs if index in read and len(graph.tensors[index].shape)]
    if not shared:
        return path
    moved = {index: _reshaped(schema, model, index) for index in dict.fromkeys(shared)}
    graph.outputs = [moved.get(int(index), int(index)) for index in graph.outputs]
    for signature in model.signatureDefs or []:
        for entry in signature.outputs if signature.subgraphIndex == 0 else ():
            entry.tensorIndex = moved.get(entry.tensorIndex, entry.tensorIndex)
    out.write_bytes(flatbuffer.pack(model))
    return out


def _reshaped(schema: Any, model: Any, index: int) -> int:
    """Append a reshape of a tensor to its own shape, and return the tensor that it gives."""
    import numpy as np

    graph, source = model.subgraphs[0], model.subgraphs[0].tensors[index]
    sizes = np.array([-1, *source.shape[1:]], "<i4")
    result, shape, buffer = copy.copy(source), schema.TensorT(), schema.BufferT()
    result.name, result.buffer = source.name + b"/output", 0  # the first buffer is empty by the format
    buffer.data = sizes.view(np.uint8)
    model.buffers.append(buffer)
    shape.name, shape.type, shape.shape = (
        source.name + b"/shape",
        schema.TensorType.INT32,
        np.array([len(sizes)], "<i4"),
    )
    shape.buffer = len(model.buffers) - 1
    graph.tensors += [result, shape]
    operator = schema.OperatorT()
    operator.opcodeIndex = _code(schema, model)
    operator.inputs, operator.outputs = [index, len(graph.tensors) - 1], [len(graph.tensors) - 2]
    operator.builtinOptionsType = schema.BuiltinOptions.ReshapeOptions
    operator.builtinOptions = schema.ReshapeOptionsT()
    operator.builtinOptions.newShape = sizes
    graph.operators.append(operator)
    return len(graph.tensors) - 2


def _code(schema: Any, model: Any) -> int:
    """Return the place of the reshape among a model's operator codes, where it is put if need be."""
    kind = schema.BuiltinOperator.RESHAPE
    for place, code in enumerate(model.operatorCodes):
        if code.builtinCode == kind:
            return place
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = kind
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1
