"""Bring a foreign .tflite file into the form that its quantizer knows: float32 weights, a signature, names that differ.

Files of the years before the quantizer hold float16 weights behind DEQUANTIZE, sparse ones behind DENSIFY, operator
codes in a field that newer readers do not look at, and no signature. What a file computes stays the same, which is
checked on one item with LiteRT's reference kernels; where it does not, the file is used as it came.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness_tflite import flatbuffer

if TYPE_CHECKING:
    from numpy.typing import NDArray

_UNFOLDED = {"DEQUANTIZE", "DENSIFY"}
_BYTE = 127  # the code that stands for all larger ones in the field of old files
_TOLERANCE = 1e-5  # of an output's largest value: float16 weights are the same numbers in float32


def normal_form(path: Path, out: Path) -> tuple[Path, str]:
    """Return a file in normal form, and why it is the file as it came, with a signature at most, where it is.

    Args:
        path: The file; not changed.
        out: Where another goes, if one is needed.
    """
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromObj(flatbuffer.open_model(path))
    changed = _carry_codes(model)
    changed |= _unfold(schema, model, path)
    changed |= _tell_apart(model)
    changed |= flatbuffer.sign(schema, model)
    if not changed:
        return path, ""
    out.write_bytes(flatbuffer.pack(model))
    why = _difference(path, out)
    if not why:
        return out, ""
    given = schema.ModelT.InitFromObj(flatbuffer.open_model(path))
    if not flatbuffer.sign(schema, given):
        return path, why
    out.write_bytes(flatbuffer.pack(given))
    return out, why


def _carry_codes(model: Any) -> bool:
    """Put operator codes where new readers look for them."""
    old = [code for code in model.operatorCodes if code.builtinCode < code.deprecatedBuiltinCode]
    for code in old:
        code.builtinCode = code.deprecatedBuiltinCode
    return bool(old)


def _tell_apart(model: Any) -> bool:
    """Give tensors names that differ: the quantizer keeps ranges by name."""
    graph, seen, changed = model.subgraphs[0], Counter[bytes](), False
    for index, tensor in enumerate(graph.tensors):
        name = tensor.name or b""
        seen[name] += 1
        if not name or seen[name] > 1:
            tensor.name, changed = (name or b"tensor") + f"#{index}".encode(), True
    return changed


def _unfold(schema: Any, model: Any, path: Path) -> bool:
    """Store what DEQUANTIZE and DENSIFY make of constants in float16, and drop these operators."""
    graph = model.subgraphs[0]
    codes = [max(code.builtinCode, code.deprecatedBuiltinCode) for code in model.operatorCodes]
    wanted = {getattr(schema.BuiltinOperator, name) for name in _UNFOLDED}
    source: dict[int, int] = {}  # tensor that such an operator makes -> the constant that it starts from
    kept = []
    for operator in graph.operators:
        first = int(operator.inputs[0]) if operator.inputs is not None and len(operator.inputs) else -1
        at = source.get(first, first)
        known = at >= 0 and model.buffers[graph.tensors[at].buffer].data is not None
        if codes[operator.opcodeIndex] in wanted and known and graph.tensors[at].type == schema.TensorType.FLOAT16:
            source[int(operator.outputs[0])] = at
        else:
            kept.append(operator)
    if not source:
        return False
    for index, values in _made(model, source, path).items():
        tensor, buffer = graph.tensors[index], schema.BufferT()
        tensor.name, tensor.type, tensor.sparsity = graph.tensors[source[index]].name, schema.TensorType.FLOAT32, None
        buffer.data = values.astype("<f4").reshape(-1).view("uint8")
        model.buffers.append(buffer)
        tensor.buffer = len(model.buffers) - 1
    graph.operators = kept
    _drop_unread(model)
    return True


def _made(model: Any, source: Mapping[int, int], path: Path) -> dict[int, NDArray[Any]]:
    """Return the values of tensors by index, each from a float16 constant; LiteRT itself unpacks sparse ones."""
    import numpy as np

    tensors = model.subgraphs[0].tensors
    sparse = [index for index, constant in source.items() if tensors[constant].sparsity is not None]
    found = {}
    for index, constant in source.items():
        if index not in sparse:
            raw = np.array(model.buffers[tensors[constant].buffer].data, np.uint8)
            found[index] = raw.view(np.float16).astype(np.float32)
    interpreter = _run_once(path, keep=True) if sparse else None
    return found | {index: interpreter.get_tensor(index).copy() for index in sparse if interpreter}


def _drop_unread(model: Any) -> None:
    """Remove the tensors of the main subgraph that nothing reads or writes, and the bytes of their buffers."""
    graph = model.subgraphs[0]
    used = {int(index) for operator in graph.operators for index in (*operator.inputs, *operator.outputs)}
    used |= {int(index) for index in (*graph.inputs, *graph.outputs)}
    order = [index for index in range(len(graph.tensors)) if index in used]
    new = {index: place for place, index in enumerate(order)} | {-1: -1}
    for operator in graph.operators:
        operator.inputs = [new[int(index)] for index in operator.inputs]
        operator.outputs = [new[int(index)] for index in operator.outputs]
    graph.inputs = [new[int(index)] for index in graph.inputs]
    graph.outputs = [new[int(index)] for index in graph.outputs]
    for signature in model.signatureDefs or []:
        if signature.subgraphIndex == 0:
            for entry in (*signature.inputs, *signature.outputs):
                entry.tensorIndex = new[entry.tensorIndex]
    graph.tensors = [graph.tensors[index] for index in order]
    read = {tensor.buffer for part in model.subgraphs for tensor in part.tensors}
    read |= {entry.buffer for entry in model.metadata or []}
    for place, buffer in enumerate(model.buffers):
        if place not in read:
            buffer.data = None  # indices of buffers must not move


def _difference(path: Path, other: Path) -> str:
    """Run one item of normal numbers through both files, and say how their outputs differ; empty where they do not."""
    import numpy as np

    try:
        given, found = (_outputs(_run_once(file)) for file in (path, other))
    except (RuntimeError, ValueError) as error:
        return f"the normal form does not run: {str(error).strip().splitlines()[0]}"
    for place, (one, two) in enumerate(zip(given, found, strict=True)):
        limit = _TOLERANCE * max(float(np.abs(one, dtype=np.float64).max(initial=0)), 1e-6)
        if one.shape != two.shape or not np.allclose(one, two, rtol=0, atol=limit, equal_nan=True):
            return f"output {place} of the normal form differs from the file's"
    return ""


def _run_once(path: Path, *, keep: bool = False) -> Any:
    """Return an interpreter that has run on seeded inputs: with reference kernels, or XNNPACK where these lack one."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    made = partial(Interpreter, model_path=str(path), experimental_preserve_all_tensors=keep)
    interpreter = made(experimental_op_resolver_type=OpResolverType.BUILTIN_REF)
    try:
        interpreter.allocate_tensors()
    except RuntimeError:  # some custom operators are XNNPACK's alone
        interpreter = made()
        interpreter.allocate_tensors()
    _feed(interpreter)
    interpreter.invoke()
    return interpreter


def _feed(interpreter: Any) -> None:
    import numpy as np

    chance = np.random.default_rng(0)
    for entry in interpreter.get_input_details():
        if np.dtype(entry["dtype"]).kind == "f":
            interpreter.set_tensor(entry["index"], chance.standard_normal(entry["shape"]).astype(entry["dtype"]))
        else:
            interpreter.set_tensor(entry["index"], np.ones(entry["shape"], entry["dtype"]))


def _outputs(interpreter: Any) -> list[NDArray[Any]]:
    return [interpreter.get_tensor(entry["index"]) for entry in interpreter.get_output_details()]
