"""What a .tflite file holds, for ``harness inspect``: read from the file, nothing is loaded into the runtime."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from harness.api import Inspected, Model, Operators, Shapes, Weights
from harness_tflite import flatbuffer
from harness_tflite.placement import multiply_accumulates, op_name

_INTEGERS = {"int4", "int8", "uint8", "int16"}
_STATES = {"VAR_HANDLE", "READ_VARIABLE", "ASSIGN_VARIABLE"}


def inspect(model: Model, shapes: Shapes) -> Inspected:
    """Read a file.

    Args:
        model: In format "tflite".
        shapes: Of its inputs at one item; multiply-accumulates are counted for the batch that the file has.
    """
    del shapes
    file = flatbuffer.open_model(model.path)
    description = (file.Description() or b"").decode(errors="replace")
    versions = {"schema": str(file.Version())} | _minimum(file)
    rows = list(_rows(file))
    weights = tuple(_weights(file))
    return Inspected("tflite", description, versions, _operators(rows), weights, tuple(_remarks(file, rows, weights)))


def _minimum(file: Any) -> dict[str, str]:
    """Return the runtime that the converter says is needed."""
    for place in range(file.MetadataLength()):
        entry = file.Metadata(place)
        if entry.Name() == b"min_runtime_version":
            raw = file.Buffers(entry.Buffer()).DataAsNumpy()
            text = bytes(raw).decode(errors="replace").strip("\0 ") if not isinstance(raw, int) else ""
            return {"runtime at least": text} if text else {}
    return {}


def _rows(file: Any) -> Iterator[tuple[str, int | None]]:
    """Yield each operator of all subgraphs with its multiply-accumulates, ``None`` where it has none."""
    for place in range(file.SubgraphsLength()):
        graph = file.Subgraphs(place)
        for index in range(graph.OperatorsLength()):
            operator = graph.Operators(index)
            op = _op(file.OperatorCodes(operator.OpcodeIndex()))
            inputs = [
                _entry(graph, operator.Inputs(i)) for i in range(operator.InputsLength()) if operator.Inputs(i) >= 0
            ]
            outputs = [_entry(graph, operator.Outputs(i)) for i in range(operator.OutputsLength())]
            yield op, multiply_accumulates(op, inputs, outputs) or None if outputs and inputs else None


def _op(code: Any) -> str:
    builtin = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
    name = flatbuffer.op_names().get(builtin, str(builtin))
    return f"custom {(code.CustomCode() or b'').decode()}" if name == "CUSTOM" else name


def _entry(graph: Any, index: int) -> dict[str, Any]:
    tensor = graph.Tensors(index)
    return {"shape": [tensor.Shape(axis) for axis in range(tensor.ShapeLength())], "dtype": _dtype(tensor)}


def _dtype(tensor: Any) -> str:
    from ai_edge_litert import schema_py_generated as schema

    names = {code: name for name, code in vars(schema.TensorType).items() if isinstance(code, int)}
    return str(names.get(tensor.Type(), tensor.Type())).lower()


def _operators(rows: Sequence[tuple[str, int | None]]) -> tuple[Operators, ...]:
    counts = Counter(op for op, _macs in rows)
    sums: Counter[str] = Counter()
    for op, macs in rows:
        sums[op] += macs or 0
    found = (
        Operators(op if op.startswith("custom") else f"{op_name(op)}", n, sums[op] or None) for op, n in counts.items()
    )
    return tuple(sorted(found, key=lambda row: (-(row.macs or 0), -row.count, row.op)))


def _weights(file: Any) -> Iterator[Weights]:
    found: dict[tuple[str, str], list[int]] = {}
    unfolded = _behind_conversion(file)
    for place in range(file.SubgraphsLength()):
        for index, tensor, _offset, length in flatbuffer.stored(file, place):
            where = "constant tensors" if place == 0 else "subgraphs"
            if tensor.Sparsity() is not None:
                where = "sparse tensors"
            elif place == 0 and index in unfolded:
                where = "constants behind DEQUANTIZE"
            row = found.setdefault((where, _dtype(tensor)), [0, 0])
            row[0] += 1
            row[1] += length
    rows = (Weights(where, dtype, *row) for (where, dtype), row in found.items())
    yield from sorted(rows, key=lambda row: -row.bytes)


def _behind_conversion(file: Any) -> set[int]:
    """Return the tensors of the main graph that a DEQUANTIZE turns into float32 before anything computes with them."""
    return {node.inputs[0] for node in flatbuffer.nodes(file) if node.op in {"DEQUANTIZE", "DENSIFY"}}


def _remarks(file: Any, rows: Sequence[tuple[str, int | None]], weights: Sequence[Weights]) -> Iterator[str]:
    kinds = {op for op, _macs in rows}
    half = sum(item.bytes for item in weights if item.dtype == "float16")
    if half:
        yield "weights are stored in float16 and unfolded to float32 at load: baseline computes in float32"
    if any(item.dtype in _INTEGERS and item.bytes > 4 * sum(w.bytes for w in weights if w.dtype == "float32")
           for item in weights):  # fmt: skip
        yield "it is quantized already: baseline runs it as it is, and no other precision can be asked of it"
    custom = sorted(op for op in kinds if op.startswith("custom"))
    if custom:
        yield f"operators that are not builtin ({', '.join(custom)}): the runtime must bring them"
    if kinds & _STATES:
        yield "it keeps a state inside from call to call: items are fed in the order of the data"
    if file.SubgraphsLength() > 1:
        yield f"{file.SubgraphsLength()} subgraphs"
    if file.SignatureDefsLength() > 1:
        yield f"{file.SignatureDefsLength()} signatures; the first is run"
