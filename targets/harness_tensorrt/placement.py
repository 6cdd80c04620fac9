"""Read the engine inspector's JSON: which kernel runs a layer, in which precision, with which multiply-accumulates.

The fields are those of NVIDIA's documentation: in TensorRT 10 a tensor has "Format/Datatype", a sentence or a word with
the type in it; since 11 it has "Format" and "DataType".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from harness.api import HarnessError, Placement

# Words of the inspector -> our names, longest first where one contains another.
_PRECISIONS = {
    "bfloat16": "bfloat16", "bf16": "bfloat16", "float16": "float16", "half": "float16", "fp16": "float16",
    "fp8": "float8", "float8": "float8", "fp4": "float4", "int8": "int8", "int4": "int4",
    "float32": "float32", "fp32": "float32", "float": "float32",
    "int64": "int64", "int32": "int32", "uint8": "uint8", "bool": "bool",
}  # fmt: skip
_WORD = re.compile(r"\b(" + "|".join(_PRECISIONS) + r")\b")
_NODE = re.compile(r"\[ONNX Layer: ([^\]]+)\]")


def placements(
    information: Mapping[str, Any], *, macs: Mapping[str, int], times: Mapping[str, float], device: str
) -> tuple[Placement, ...]:
    """Return one entry per layer, in order.

    Args:
        information: The engine's, at DETAILED verbosity.
        macs: Multiply-accumulates per item by ONNX node name.
        times: Milliseconds by layer name; may be empty.
        device: Name of the GPU.

    Raises:
        HarnessError: The engine was built with less verbosity, so that layers are names only.
    """
    total = sum(times.values())
    found = []
    for layer in information["Layers"]:
        if isinstance(layer, str):
            raise HarnessError("the engine tells layer names only: it was built without DETAILED verbosity")
        nodes = onnx_nodes(layer)
        name = layer["Name"]
        found.append(
            Placement(
                op=_op(layer),
                name=name,
                kernel=str(layer.get("TacticName") or layer.get("LayerType", "unknown")),
                device=device,
                precision=precision(layer),
                macs=sum(macs.get(node, 0) for node in nodes) if macs and nodes else None,
                time_share=times[name] / total if name in times and total > 0 else None,
            )
        )
    return tuple(found)


def onnx_nodes(layer: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the ONNX nodes that were fused into a layer, each once."""
    return tuple(dict.fromkeys(_NODE.findall(layer.get("Metadata", ""))))


def precision(layer: Mapping[str, Any]) -> str:
    """Return the type of a layer's data input, or of its output where it has none; "unknown" where neither tells.

    A quantized convolution reads int8 and may write float32: its arithmetic is that of what it reads.
    """
    for entry in (*layer.get("Inputs", ()), *layer.get("Outputs", ())):
        text = str(entry.get("DataType") or entry.get("Format/Datatype") or entry.get("Format", "")).lower()
        match = _WORD.search(text)
        if match:
            return _PRECISIONS[match[1]]
    return "unknown"


def _op(layer: Mapping[str, Any]) -> str:
    """Name a layer in the field's terms: by its parameter type where it has one, else by its layer type."""
    kind = str(layer.get("ParameterType") or layer.get("LayerType", "unknown"))
    known = {"Convolution": "Conv", "Deconvolution": "ConvTranspose", "MatrixMultiply": "MatMul", "gemm": "MatMul"}
    return known.get(kind, kind)
