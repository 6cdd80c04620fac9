"""Read an ExecuTorch program: what its interpreter calls, and the graphs that it hands to XNNPACK.

The Python package has no profiler of XNNPACK's operators, so there are no shares of time. ``flatc``, which ships in
the package, turns the flatbuffers into JSON.
"""

from __future__ import annotations

import json
import math
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.api import HarnessError, Placement
from harness_executorch import runtime

_NAMES = {
    "XNNConv2d": "Conv", "XNNDepthwiseConv2d": "DepthwiseConv", "XNNConvTranspose2d": "ConvTranspose",
    "XNNFullyConnected": "MatMul", "XNNBatchMatrixMultiply": "MatMul",
}  # fmt: skip
_DTYPES = {
    "fp32": "float32", "fp16": "float16", "qint8": "int8", "quint8": "uint8", "qint32": "int32", "qcint8": "int8",
    "qcint32": "int32", "qcint4": "int4", "qdint8": "int8", "qbint4": "int4", "qpint8": "int8", "int32": "int32",
}  # fmt: skip
_BARE = re.compile(r": ([+-]?)inf\b")  # flatc writes an infinite float so, which is no JSON
_INPUTS = ("input_id", "input1_id", "query_id")


def read_program(raw: bytes, *, batch: int) -> tuple[Placement, ...]:
    """Return one entry per operator, in the order in which they run.

    Args:
        raw: The program.
        batch: Of its inputs; multiply-accumulates are given per item.
    """
    with runtime.quiet():
        from executorch.exir._serialize._program import deserialize_pte_binary

        program = deserialize_pte_binary(raw).program
    (plan,) = (plan for plan in program.execution_plan if plan.name == runtime.METHOD)
    found: list[Placement] = []
    for step in (instruction.instr_args for chain in plan.chains for instruction in chain.instructions):
        if hasattr(step, "delegate_index"):
            delegate = plan.delegates[step.delegate_index]
            found += _delegated(program, delegate, batch)
        elif hasattr(step, "op_index"):
            found.append(_portable(plan, step))
    return tuple(found)


def _portable(plan: Any, step: Any) -> Placement:
    """Return a call of the interpreter: ExecuTorch's own kernel, without vectors."""
    name = plan.operators[step.op_index].name
    values = [plan.values[index].val for index in step.args if 0 <= index < len(plan.values)]
    types = [value.scalar_type.name.lower() for value in values if hasattr(value, "scalar_type")]
    known = {"float": "float32", "half": "float16", "char": "int8", "byte": "uint8", "long": "int64", "int": "int32"}
    op = name.split("::")[-1]
    return Placement(
        op=op, name=op, kernel=f"portable {name}", device="cpu",
        precision=known.get(types[0], types[0]) if types else "unknown", macs=0 if op not in _PRODUCTS else None,
    )  # fmt: skip


_PRODUCTS = {"convolution", "mm", "bmm", "addmm", "linear"}  # their MACs are not counted


def _delegated(program: Any, delegate: Any, batch: int) -> Iterator[Placement]:
    if delegate.id != "XnnpackBackend":
        raise HarnessError(f"the program hands operators to {delegate.id}, whose graphs are not read here")
    graph = xnnpack_graph(bytes(program.backend_delegate_data[delegate.processed.index].data))
    values = [_value(item) for item in graph["xvalues"]]
    tensors = {item["id_out"]: item for item in values}
    for number, node in enumerate(graph["xnodes"]):
        yield _operator(node["xnode_union_type"], node["xnode_union"], tensors, batch, number)


def _value(item: Mapping[str, Any]) -> dict[str, Any]:
    """Return a tensor's id, dtype and sizes; quantized ones wrap the plain description."""
    union = item["xvalue_union"]
    tensor = union.get("tensor_value", union)
    dtype = str(tensor.get("datatype", "fp32")).removeprefix("xnn_datatype_")
    return {"id_out": tensor.get("id_out", 0), "dtype": _DTYPES.get(dtype, dtype), "dims": tensor.get("dims", ())}


def xnnpack_graph(payload: bytes) -> dict[str, Any]:
    """Return the graph inside what the program hands to XNNPACK, as JSON."""
    from importlib.resources import files

    from executorch.backends.xnnpack.serialization.xnnpack_graph_serialize import XNNHeader
    from executorch.exir._serialize._flatbuffer import _flatc_decompile

    header = XNNHeader.from_bytes(payload[: XNNHeader.EXPECTED_LENGTH])
    start = header.flatbuffer_offset
    with tempfile.TemporaryDirectory(prefix="harness-executorch-") as name:
        folder = Path(name)
        schema, binary = folder / "schema.fbs", folder / "graph.bin"
        schema.write_bytes(files("executorch.backends.xnnpack.serialization").joinpath("schema.fbs").read_bytes())
        binary.write_bytes(payload[start : start + header.flatbuffer_size])
        _flatc_decompile(name, str(schema), str(binary), ["--raw-binary"])
        text = (folder / "graph.json").read_text()
    found: dict[str, Any] = json.loads(_BARE.sub(r": \1Infinity", text))
    return found


def _operator(
    kind: str, node: Mapping[str, Any], tensors: Mapping[int, Mapping[str, Any]], batch: int, number: int
) -> Placement:
    given = next((tensors[node[key]] for key in _INPUTS if key in node and node[key] in tensors), None)
    output = tensors.get(node.get("output_id", -1))
    macs = multiply_accumulates(kind, node, tensors)
    op = _NAMES.get(kind, kind.removeprefix("XNN"))
    return Placement(
        op=op, name=f"{op}_{number}", kernel=f"XNNPACK {kind.removeprefix('XNN')}", device="cpu",
        precision=str(given["dtype"]) if given else "unknown", macs=None if macs is None else macs // batch,
        channels=_channels(kind, node, output),
    )  # fmt: skip


def _channels(kind: str, node: Mapping[str, Any], output: Mapping[str, Any] | None) -> int | None:
    if "group_output_channels" in node:
        return int(node["group_output_channels"]) * int(node.get("groups", 1) or 1)
    return int(output["dims"][-1]) if kind == "XNNFullyConnected" and output else None


def multiply_accumulates(kind: str, node: Mapping[str, Any], tensors: Mapping[int, Mapping[str, Any]]) -> int | None:
    """Count from shapes: outputs times what is summed up for each; 0 for operators without products.

    Filters are [out, h, w, in per group]; of depthwise convolutions [1, h, w, out]; fully connected [out, in].
    """
    if kind not in _NAMES:
        return 0
    output = _dims(tensors, node.get("output_id"))
    if output is None:
        return None
    if "kernel_height" in node or "group_input_channels" in node:
        taps = int(node.get("kernel_height", 0)) * int(node.get("kernel_width", 0)) * int(node["group_input_channels"])
        if kind != "XNNConvTranspose2d":
            return math.prod(output) * taps
        given = _dims(tensors, node.get("input1_id"))
        return (
            None
            if given is None
            else math.prod(given) // int(node["group_input_channels"]) * taps * int(node["group_output_channels"])
        )
    inner = _dims(tensors, node.get("filter_id" if kind == "XNNFullyConnected" else "input1_id"))
    return None if not inner else math.prod(output) * int(inner[-1])


def _dims(tensors: Mapping[int, Mapping[str, Any]], index: Any) -> Sequence[int] | None:
    found = tensors.get(-1 if index is None else int(index))
    return None if found is None else found["dims"]
