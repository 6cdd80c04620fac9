"""Old ONNX files brought up to date: opset, inputs that are really weights, nodes without a name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harness.api import BadModel

OLDEST = 13  # operator set: quantize and dequantize per channel; below it runtimes read files that no tool can change
_IR = 8  # of that operator set; below 4 every weight had to be listed as an input
_LAYERS = {"Conv", "ConvTranspose", "Gemm", "MatMul", "LSTM", "GRU", "RNN"}


def is_old(model: Any) -> bool:
    """Tell whether a model has something that ``modernise`` changes."""
    return _opset(model) < OLDEST or model.ir_version < 4 or bool(_listed(model))


def modernise(model: Any, path: Path) -> Any:
    """Return a model in operator set 13 or newer, whose inputs are inputs, and whose nodes have names.

    Args:
        model: As parsed; left as it is.
        path: Of its file, for messages.

    Raises:
        BadModel: An operator has no conversion, or the result is not valid.
    """
    import onnx
    from onnx import checker, version_converter

    before = _opset(model)
    if before < OLDEST:
        try:
            model = version_converter.convert_version(model, OLDEST)
        except Exception as error:  # the converter is C++ and raises RuntimeError, IndexError and its own classes
            text = " ".join(str(error).split())[:200]
            raise BadModel(
                f"model file {path} has opset {before}, and onnx cannot convert it to {OLDEST}: {text}"
            ) from error
    else:
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        model = copy
    listed = _listed(model)
    inputs = [item for item in model.graph.input if item.name not in listed]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    model.ir_version = max(model.ir_version, _IR)
    for number, node in enumerate(model.graph.node):
        node.name = node.name or f"{node.op_type}_{number}"
    try:
        checker.check_model(model, full_check=True)
    except (checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise BadModel(
            f"model file {path}, converted from opset {before} to {_opset(model)}, is not valid: {error}"
        ) from error
    return model


def has_made_weights(model: Any) -> bool:
    """Tell whether weights of layers come of ConstantOfShape nodes: such a graph has a shape and no training."""
    made = {name for node in model.graph.node if node.op_type == "ConstantOfShape" for name in node.output}
    return any(made.intersection(node.input[1:]) for node in model.graph.node if node.op_type in _LAYERS)


def _opset(model: Any) -> int:
    return int(next((item.version for item in model.opset_import if item.domain in {"", "ai.onnx"}), OLDEST))


def _listed(model: Any) -> set[str]:
    """Return the weights that are listed among the inputs."""
    return {item.name for item in model.graph.initializer} & {item.name for item in model.graph.input}
