"""Run what a case built: each function asks one runtime, on one thread, by default options."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Arrays = Mapping[str, NDArray[Any]]


def onnxruntime(path: Path, inputs: Arrays) -> Arrays:
    """Run an ONNX file on ONNX Runtime's CPU provider with all optimizations, as it does by default."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(inputs)), strict=True))


def openvino(path: Path, inputs: Arrays) -> Arrays:
    """Run an ONNX file on OpenVINO's CPU plugin; float32 stays float32 where the CPU has narrower units."""
    import openvino as ov

    core = ov.Core()
    compiled = core.compile_model(core.read_model(str(path)), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    answered = compiled(dict(inputs))
    return {output.any_name: answered[output] for output in compiled.outputs}


def litert(path: Path, inputs: Arrays) -> Arrays:
    """Run a .tflite file on LiteRT with XNNPACK, as it does by default."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path), num_threads=1)
    interpreter.allocate_tensors()
    for detail, array in zip(interpreter.get_input_details(), inputs.values(), strict=True):
        interpreter.set_tensor(detail["index"], array)
    interpreter.invoke()
    return {detail["name"]: interpreter.get_tensor(detail["index"]) for detail in interpreter.get_output_details()}
