"""ONNX files with float16 weights and arithmetic, by ONNX Runtime's converter."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness_onnx.care import beyond_float16, extremes
from harness_onnx.graph import attribute, consumers, drop_unread, import_onnx, load, normalise
from harness_onnx.quantize import quiet, tools
from harness_onnx.tidy import fold_batch_norms, refuse_broken_weights

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from onnx import ModelProto

    Feed = Mapping[str, NDArray[Any]]


def to_float16(source: Path, out: Path, *, keep_io: bool = True, feeds: Sequence[Feed] = ()) -> Mapping[str, str]:
    """Write a file with float16 weights and arithmetic; ``keep_io`` leaves inputs and outputs float32.

    Batch norms are folded first, whose variances may exceed the range of float16 where the folded scales do not.

    Args:
        source: A float32 ONNX file.
        out: The file to write.
        keep_io: Leave inputs and outputs float32.
        feeds: Inputs that show which values exceed 65504; what makes or reads such values stays float32.

    Returns:
        The nodes that stay float32, each with its operator.

    Raises:
        Unsupported: A layer's weights are not numbers.
    """
    onnx = import_onnx()
    tools()
    from onnxruntime.transformers.float16 import convert_float_to_float16

    model = load(source)
    normalise(model)
    refuse_broken_weights(model)
    fold_batch_norms(model)
    drop_unread(model)
    _pass_on_constants(model)
    onnx.save(model, str(out))
    kept = {node.name: node.op_type for node in beyond_float16(model, extremes(out, feeds))}
    own = {node.name for node in model.graph.node}
    with quiet():
        halved = convert_float_to_float16(model, keep_io_types=keep_io, node_block_list=list(kept))
    _skip_double_casts(halved, own)
    onnx.save(halved, str(out))
    return kept


def _pass_on_constants(model: ModelProto) -> None:
    """Let a node give each output that is a constant: the converter would cast the constant onto its own name."""
    onnx = import_onnx()
    outputs = {item.name for item in model.graph.output}
    for item in model.graph.initializer:
        if item.name not in outputs:
            continue
        name, item.name = item.name, f"{item.name}/constant"
        for reader, place in consumers(model.graph).get(name, []):
            reader.input[place] = item.name
        model.graph.node.append(onnx.helper.make_node("Identity", [item.name], [name], name=f"{name}/passed_on"))


def _skip_double_casts(model: ModelProto, own: Collection[str]) -> None:
    """Join nodes that stay float32: the conversion casts between them to float16 and back, which loses large values.

    Casts of the model's ``own`` are left as they are: what they read may be no float.
    """
    onnx = import_onnx()
    casts = {
        item.output[0]: item
        for item in model.graph.node
        if item.op_type == "Cast" and item.name not in own and attribute(item, "to", 0) == onnx.TensorProto.FLOAT16
    }
    for node in model.graph.node:
        before = casts.get(node.input[0]) if node.op_type == "Cast" else None
        if before is not None and attribute(node, "to", 0) == onnx.TensorProto.FLOAT:
            for reader, place in consumers(model.graph).get(node.output[0], []):
                reader.input[place] = before.input[0]
