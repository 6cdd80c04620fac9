"""Q/DQ files in narrow types that TensorRT reads: float8, and int8 whose other layers are float16."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from harness_onnx.graph import at_opset, import_onnx, load
from harness_onnx.quantize import kept_nodes, prepare, quiet, reader, tools

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Feed = Mapping[str, NDArray[Any]]

_OPSET = 19  # float8, and float16 scales, begin here
_NOTHING: Mapping[str, str] = MappingProxyType({})


def float8_qdq(source: Path, out: Path, feeds: Sequence[Feed], *, exclude: Mapping[str, str] = _NOTHING) -> None:
    """Write a file with Q/DQ of float8 (E4M3FN): one scale per tensor, from the spread of its values, float bias.

    Args:
        source: A float32 ONNX file.
        out: The file to write.
        feeds: Calibration inputs by name.
        exclude: Nodes of ``source`` that stay float32, each with the parameter whose override asks for it.
    """
    onnx, quantization = import_onnx(), tools()
    prepared = prepare(source, out.with_suffix(".pre.onnx"))
    onnx.save(at_opset(load(prepared), _OPSET), str(prepared))
    kept = kept_nodes(source, prepared, exclude)
    with quiet():
        quantization.quantize_static(
            str(prepared),
            str(out),
            reader(feeds),
            quant_format=quantization.QuantFormat.QDQ,
            activation_type=quantization.QuantType.QFLOAT8E4M3FN,
            weight_type=quantization.QuantType.QFLOAT8E4M3FN,
            per_channel=False,
            nodes_to_exclude=kept,
            calibrate_method=quantization.CalibrationMethod.Distribution,
            extra_options={"QuantizeBias": False},
        )
    prepared.unlink()


def halve_rest(path: Path) -> None:
    """Turn the float32 of a Q/DQ file into float16, in place: what is not quantized then computes in float16.

    Inputs and outputs of the file stay float32.
    """
    onnx = import_onnx()
    tools()
    from onnxruntime.transformers.float16 import convert_float_to_float16

    with quiet():
        model = convert_float_to_float16(at_opset(load(path), _OPSET), keep_io_types=True)
    onnx.save(model, str(path))
