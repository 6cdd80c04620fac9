"""Read what the LiteRT interpreter does not tell from a .tflite file, rename its signature, give it further outputs."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.api import BadModel, Span

# schema.fbs TensorType -> numpy name; types that packing cannot read are left out.
_DTYPES = {
    0: "float32", 1: "float16", 2: "int32", 3: "uint8", 4: "int64", 7: "int16", 9: "int8", 10: "float64", 17: "int4",
    18: "bfloat16",
}  # fmt: skip
_INTEGERS = frozenset({"int4", "int8", "uint8", "int16"})
_ALIGNMENT = 16  # of buffers, which the runtime maps
_CHANNELS_LAST = frozenset({"DEPTHWISE_CONV_2D"})  # its weights are [1, h, w, channels], all others [channels, …]


@dataclass(frozen=True)
class Node:
    """One operator of the file: builtin name, and tensor indices (-1 where an optional input is absent)."""

    op: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


def open_model(path: Path) -> Any:
    """Return the root ``Model`` of the file.

    Raises:
        BadModel: The file is no TFLite flatbuffer.
    """
    from ai_edge_litert import schema_py_generated as schema

    raw = path.read_bytes()
    if raw[4:8] != b"TFL3":
        raise BadModel(f"{path.name} is not a TFLite file", hint="its bytes 4 to 8 must read TFL3")
    return schema.Model.GetRootAs(raw)


def op_names() -> dict[int, str]:
    """Return the name of each builtin operator by its code."""
    from ai_edge_litert import schema_py_generated as schema

    return {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}


def nodes(model: Any) -> tuple[Node, ...]:
    """List the operators of the main subgraph in execution order."""
    names = op_names()
    graph = model.Subgraphs(0)
    found = []
    for index in range(graph.OperatorsLength()):
        operator = graph.Operators(index)
        code = model.OperatorCodes(operator.OpcodeIndex())
        # Files older than schema 3a keep the code in a byte; the larger of the two is the one in force.
        builtin = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
        inputs = tuple(operator.Inputs(slot) for slot in range(operator.InputsLength()))
        outputs = tuple(operator.Outputs(slot) for slot in range(operator.OutputsLength()))
        found.append(Node(names.get(builtin, str(builtin)), inputs, outputs))
    return tuple(found)


def tensor_names(model: Any) -> tuple[str, ...]:
    """List the names of the main subgraph's tensors by index."""
    graph = model.Subgraphs(0)
    return tuple((graph.Tensors(index).Name() or b"").decode() for index in range(graph.TensorsLength()))


def inputs(model: Any) -> tuple[int, ...]:
    """List the main subgraph's inputs by tensor index."""
    graph = model.Subgraphs(0)
    return tuple(graph.Inputs(index) for index in range(graph.InputsLength()))


def outputs(model: Any) -> tuple[int, ...]:
    """List the main subgraph's outputs by tensor index."""
    graph = model.Subgraphs(0)
    return tuple(graph.Outputs(index) for index in range(graph.OutputsLength()))


def constants(model: Any) -> dict[str, int]:
    """Map the names of the main subgraph's constant tensors to their number of items."""
    return {
        (tensor.Name() or b"").decode(): math.prod(tensor.Shape(axis) for axis in range(tensor.ShapeLength()))
        for _index, tensor, _offset, _length in _constants(model)
    }


def constant_bytes(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield name and raw bytes of each constant tensor of the main subgraph."""
    raw = path.read_bytes()
    for _index, tensor, offset, length in _constants(open_model(path)):
        yield (tensor.Name() or b"").decode(), raw[offset : offset + length]


def not_a_number(path: Path) -> Iterator[tuple[str, int, int]]:
    """Yield the name of each constant that holds NaN, how many it holds, and its size."""
    import numpy as np

    raw = path.read_bytes()
    for _index, tensor, offset, length in _constants(open_model(path)):
        dtype = _DTYPES.get(tensor.Type(), "")
        if dtype in {"float32", "float16"}:
            lost = np.isnan(np.frombuffer(raw, dtype, length // np.dtype(dtype).itemsize, offset))
            if lost.any():
                yield (tensor.Name() or b"").decode(), int(lost.sum()), lost.size


def is_quantized(path: Path) -> bool:
    """Tell whether a file holds weights of integers: matrices or kernels that some operator reads."""
    model = open_model(path)
    read = {index for node in nodes(model) for index in node.inputs}
    return any(
        tensor.ShapeLength() >= 2 and _DTYPES.get(tensor.Type()) in _INTEGERS and index in read
        for index, tensor, _offset, _length in _constants(model)
    )


def weight_spans(path: Path) -> tuple[Span, ...]:
    """Return where the constant tensors of two and more dimensions lie in the file."""
    model = open_model(path)
    channels_last = {index for node in nodes(model) if node.op in _CHANNELS_LAST for index in node.inputs}
    spans: dict[int, Span] = {}
    for index, tensor, offset, length in _constants(model):
        shape = tuple(tensor.Shape(axis) for axis in range(tensor.ShapeLength()))
        if len(shape) >= 2 and tensor.Sparsity() is None:
            axis = len(shape) - 1 if index in channels_last else 0
            # Tensors may share a buffer: it is packed once.
            spans.setdefault(offset, Span(offset, length, _DTYPES.get(tensor.Type(), "other"), shape, axis))
    return tuple(spans[offset] for offset in sorted(spans))


def _constants(model: Any) -> Iterator[tuple[int, Any, int, int]]:
    return stored(model, 0)


def stored(model: Any, subgraph: int) -> Iterator[tuple[int, Any, int, int]]:
    """Yield the constant tensors of a subgraph: index, tensor, and offset and length of their bytes in the file."""
    graph = model.Subgraphs(subgraph)
    for index in range(graph.TensorsLength()):
        tensor = graph.Tensors(index)
        offset, length = _place(model.Buffers(tensor.Buffer()))
        if length:
            yield index, tensor, offset, length


def _place(buffer: Any) -> tuple[int, int]:
    """Return offset and length of a buffer's bytes: behind the flatbuffer for large files, else inside it."""
    if buffer.Offset() > 1:
        return int(buffer.Offset()), int(buffer.Size())
    if not buffer.DataLength():
        return 0, 0
    field = buffer._tab.Offset(4)  # Buffer.data, first field of the table in schema.fbs
    return int(buffer._tab.Vector(field)), int(buffer.DataLength())


def rename_signature(path: Path, names: Mapping[str, str]) -> None:
    """Give the only signature's inputs and outputs other names, without touching another byte of the model.

    The new strings are appended to the file and the name fields, which are forward offsets, are pointed at them; so
    the 16-byte alignment of the weights, which a repacking with the Python flatbuffers library loses, is kept.

    Args:
        path: The file, changed in place.
        names: Name in the file -> new name, for every input and output.

    Raises:
        BadModel: The file has not exactly one signature, or its names are not these.
    """
    model = open_model(path)
    if model.SignatureDefsLength() != 1:
        raise BadModel(f"{path.name} has {model.SignatureDefsLength()} signatures where one is expected")
    signature = model.SignatureDefs(0)
    entries = [signature.Inputs(index) for index in range(signature.InputsLength())]
    entries += [signature.Outputs(index) for index in range(signature.OutputsLength())]
    found = [entry.Name().decode() for entry in entries]
    if sorted(found) != sorted(names):
        raise BadModel(f"{path.name} has the inputs and outputs {', '.join(found)}; expected {', '.join(names)}")
    raw = bytearray(path.read_bytes())
    for entry, name in zip(entries, found, strict=True):
        _point_at(raw, entry._tab.Pos + entry._tab.Offset(4), names[name])  # TensorMap.name, its first field
    path.write_bytes(raw)


def with_outputs(path: Path, more: Sequence[int]) -> bytes:
    """Return a file's bytes with tensors as further outputs of the main subgraph, behind those that it has.

    Nothing else moves, as in ``rename_signature``: buffers behind the flatbuffer are found by their offset in the file.

    Args:
        path: The file; not changed.
        more: Tensor indices.
    """
    graph = open_model(path).Subgraphs(0)
    outputs = [graph.Outputs(index) for index in range(graph.OutputsLength())]
    outputs += [index for index in more if index not in outputs]
    raw = bytearray(path.read_bytes())
    field = graph._tab.Pos + graph._tab.Offset(8)  # SubGraph.outputs, its third field
    _append(raw, field, struct.pack(f"<I{len(outputs)}i", len(outputs), *outputs))
    return bytes(raw)


def _point_at(raw: bytearray, field: int, text: str) -> None:
    encoded = text.encode()
    _append(raw, field, struct.pack("<I", len(encoded)) + encoded + b"\0")


def _append(raw: bytearray, field: int, vector: bytes) -> None:
    """Put a vector at the end of a file and let a field, which is a forward offset, point at it."""
    raw.extend(bytes(-len(raw) % 4))
    struct.pack_into("<I", raw, field, len(raw) - field)
    raw.extend(vector)


def signature_names(path: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the input and output names of the first signature in order; both empty where there is none."""
    model = open_model(path)
    if not model.SignatureDefsLength():
        return (), ()
    signature = model.SignatureDefs(0)
    return (
        tuple(signature.Inputs(index).Name().decode() for index in range(signature.InputsLength())),
        tuple(signature.Outputs(index).Name().decode() for index in range(signature.OutputsLength())),
    )


def sign(schema: Any, model: Any) -> bool:
    """Give an unpacked model without a signature one that names tensors by themselves; tell whether it had none."""
    if model.signatureDefs:
        return False
    graph, signature = model.subgraphs[0], schema.SignatureDefT()
    signature.signatureKey, signature.subgraphIndex = "serving_default", 0
    signature.inputs = [_entry(schema, graph, index) for index in graph.inputs]
    signature.outputs = [_entry(schema, graph, index) for index in graph.outputs]
    model.signatureDefs = [signature]
    return True


def _entry(schema: Any, graph: Any, index: int) -> Any:
    entry = schema.TensorMapT()
    entry.name, entry.tensorIndex = graph.tensors[index].name, int(index)
    return entry


def pack(model: Any) -> bytes:
    """Serialize with buffers aligned for kernels that read them in place, which the generated code would not do."""
    import flatbuffers  # type: ignore[import-untyped]  # comes with ai-edge-litert, has no stubs

    for buffer in model.buffers:
        if buffer.data is not None:
            buffer.__class__ = _aligned(type(buffer))
    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _aligned(base: type) -> type:
    from ai_edge_litert import schema_py_generated as schema

    class Aligned(base):  # type: ignore[misc]  # the generated class, found at run time
        def Pack(self, builder: Any) -> Any:  # noqa: N802  its name is the generated one
            raw = bytes(memoryview(self.data))
            builder.StartVector(1, len(raw), _ALIGNMENT)
            builder.head -= len(raw)
            builder.Bytes[builder.head : builder.head + len(raw)] = raw
            vector = builder.EndVector()
            schema.BufferStart(builder)
            schema.BufferAddData(builder, vector)
            return schema.BufferEnd(builder)

    return Aligned


def one_op_model() -> bytes:
    """Return a model that adds two float32 vectors of four items: the probe's."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT()
    model.version = 3
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.ADD
    code.version = 1
    graph = schema.SubGraphT()
    graph.tensors = [_vector(schema, name) for name in ("a", "b", "sum")]
    graph.inputs, graph.outputs, graph.operators = [0, 1], [2], [_add(schema)]
    model.operatorCodes, model.subgraphs, model.buffers = [code], [graph], [schema.BufferT()]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _vector(schema: Any, name: str) -> Any:
    tensor = schema.TensorT()
    tensor.shape, tensor.type, tensor.buffer, tensor.name = [1, 4], schema.TensorType.FLOAT32, 0, name
    return tensor


def _add(schema: Any) -> Any:
    operator = schema.OperatorT()
    operator.inputs, operator.outputs, operator.opcodeIndex = [0, 1], [2], 0
    operator.builtinOptionsType = schema.BuiltinOptions.AddOptions
    operator.builtinOptions = schema.AddOptionsT()
    return operator
