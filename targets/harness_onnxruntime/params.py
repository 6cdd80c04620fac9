"""Parameters of the target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from harness.api import param


@dataclass(frozen=True)
class Params:
    """What can be chosen about ONNX Runtime."""

    graph_optimization: Literal["all", "extended", "basic", "off"] = param("all", "level of graph rewriting at load")
    activations: Literal["uint8", "int8"] = param("uint8", "integer type of activations in static int8")
    reduce_range: bool = param(False, "7-bit weights in static int8, for x86 CPUs without VNNI")
    arena: bool = param(True, "keep freed CPU memory in an arena, as is the runtime's default")
    int8_format: Literal["qdq", "operators"] = param("qdq", "static int8 as Q/DQ pairs, or as QLinear operators")
    weight_only_activations: Literal["float32", "int8"] = param(
        "float32", "what matrix products with integer weights compute in: int8 rounds each row of their input"
    )
    saved: Literal["no", "onnx", "ort"] = param("no", "rewrite the graph when building, and save it as such a file")
    mmap: bool = param(False, "map a file saved as ort into memory instead of reading it")
    prepacking: bool = param(True, "lay weights out for the kernels at load: faster, and more memory")
    provider: Literal["cpu", "cuda", "tensorrt", "migraphx", "coreml", "qnn", "dml", "openvino", "xnnpack"] = param(
        "cpu", "execution provider: the device that runs it"
    )
    tf32: bool = param(False, "provider cuda only: let float32 products run in TensorFloat-32")
    spinning: bool = param(False, "let waiting threads spin; off, because several sessions are alive in a set")
