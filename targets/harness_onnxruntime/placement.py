"""Read ONNX Runtime's profile: which kernel ran, on which dtypes, for how long, with how many MACs."""

from __future__ import annotations

import json
import math
import re
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from harness.api import Placement

_SUFFIX = "_kernel_time"
_DTYPES = {"float": "float32", "double": "float64"}
# The arithmetic of these is on integers, whatever dtype their first input has.
_INTEGER = {
    "QGemm", "MatMulInteger", "MatMulIntegerToFloat", "ConvInteger", "DynamicQuantizeMatMul", "DynamicQuantizeLSTM",
}  # fmt: skip
# These are float arithmetic around integers: where they are left, quantization did not fuse.
_CONVERSIONS = {"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"}
_CONVOLUTIONS = {"Conv", "FusedConv", "NhwcFusedConv", "ConvInteger"}
_ADDED = re.compile(r"(_token_\d+|_nhwc|_nchwc)+$")  # what fusion puts behind a node's name
_PRODUCTS = {
    "Gemm", "FusedGemm", "MatMul", "FusedMatMul", "QGemm", "QLinearMatMul", "MatMulInteger", "MatMulIntegerToFloat",
    "DynamicQuantizeMatMul", "MatMulNBits",
}  # fmt: skip
_GATES = {"GRU": 3, "LSTM": 4, "DynamicQuantizeLSTM": 4, "RNN": 1}

Shape = tuple[int, ...]


def read_profile(raw: bytes, *, batch: int, macs: Mapping[str, int]) -> tuple[Placement, ...]:
    """Return one placement per executed node, in order.

    A node's time is its median over the profiled runs. Its MACs are those of the file's node that it was made
    from, which its name tells for integer kernels; float kernels are renamed by fusion but show all their shapes,
    so theirs are counted from the shapes, with the channels that NCHWc convolutions pad to.

    Args:
        raw: The profile, JSON.
        batch: Items per run; MACs are per item.
        macs: By node name of the file, per item.
    """
    events: dict[str, list[dict[str, Any]]] = {}
    for event in json.loads(raw):
        if event.get("cat") == "Node" and event["name"].endswith(_SUFFIX):
            events.setdefault(event["args"]["node_index"], []).append(event)
    times = {index: statistics.median(event["dur"] for event in same) for index, same in events.items()}
    total = sum(times.values())
    return tuple(
        _placement(same[0], batch, macs, times[index] / total if total else None) for index, same in events.items()
    )


def _placement(event: dict[str, Any], batch: int, known: Mapping[str, int], share: float | None) -> Placement:
    args = event["args"]
    op, name = args["op_name"], event["name"].removesuffix(_SUFFIX)
    inputs, outputs = _tensors(args["input_type_shape"]), _tensors(args["output_type_shape"])
    macs = _macs(op, [shape for _, shape in inputs], [shape for _, shape in outputs])
    macs = known.get(_ADDED.sub("", name), None if macs is None else macs // batch)
    return Placement(
        op=op,
        name=name,
        kernel=f"{op} (NCHWc)" if name.endswith("_nchwc") else op,
        device=args["provider"],
        precision=_precision(op, [dtype for dtype, _ in inputs]),
        macs=macs,
        time_share=share,
    )


def _tensors(listed: Sequence[dict[str, list[int]]]) -> list[tuple[str, Shape]]:
    return [(_DTYPES.get(dtype, dtype), tuple(shape)) for item in listed for dtype, shape in item.items()]


def _precision(op: str, dtypes: Sequence[str]) -> str:
    if op in _INTEGER or op.startswith("QLinear"):
        return "int8"
    if op in _CONVERSIONS or not dtypes:
        return "float32"
    return dtypes[0]


def _macs(op: str, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> int | None:
    """Return multiply-accumulates of a run; weights that a kernel packed away are not among the shapes."""
    if not inputs or not outputs:
        return None
    if op in _CONVOLUTIONS and len(inputs) > 1:
        return math.prod(outputs[0]) * math.prod(inputs[1][1:])
    if op == "ConvTranspose" and len(inputs) > 1:
        return math.prod(inputs[0]) * math.prod(inputs[1][1:])
    if op in _PRODUCTS and inputs[0]:
        return math.prod(outputs[0]) * inputs[0][-1]
    if op in _GATES:
        steps, items, features = inputs[0]
        hidden, directions = outputs[0][-1], outputs[0][-3]
        return steps * items * directions * _GATES[op] * hidden * (features + hidden)
    return None
