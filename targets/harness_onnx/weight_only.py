"""Integer weights in an ONNX file, dequantized in the graph: by channel, or by block where a kernel takes it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.api import Unsupported
from harness_onnx.graph import at_opset, attribute, drop_unread, import_onnx, load, nested_nodes, normalise
from harness_onnx.tidy import refuse_broken_weights, tidy, told_left

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from onnx import ModelProto, NodeProto

    Array = NDArray[Any]

BLOCK = 32  # rows of a MatMul's weight that share a scale in int4: ONNX Runtime's kernels take 16 and more
_OPSET = 21  # int4, and scales by block
_IR = 10
_CONVOLUTIONS = {"Conv": 0, "ConvTranspose": 1}  # place of the output channels


def weight_only(
    source: Path,
    out: Path,
    *,
    bits: int = 8,
    per_channel: bool = True,
    exclude: Collection[str] = (),
    block: int = BLOCK,
    blocks_only: bool = False,
    wider: Collection[str] = (),
) -> Mapping[str, int]:
    """Write a file whose weights are integers behind a DequantizeLinear; arithmetic stays float32.

    Weights are symmetric: s = max|w| / (2^(bits-1) - 1). Convolutions have one scale per output channel; matrix
    products too in int8, and one per 32 rows and column in int4. A Gemm becomes MatMul and Add, which is the form
    that ONNX Runtime turns into its n-bit product (MatMulNBits).

    Args:
        source: A float32 ONNX file.
        out: The file to write.
        bits: 8 or 4.
        per_channel: False gives each weight one scale.
        exclude: Names of nodes that stay float.
        block: Rows of a matrix that share a scale in int4.
        blocks_only: Leave float what is not made of whole blocks, such as convolutions.
        wider: Names of nodes whose weights take 8 bits, whatever the others take.

    Returns:
        How many layers were rewritten, by operator.

    Raises:
        Unsupported: There is no layer to rewrite, or its weights are not numbers.
    """
    onnx = import_onnx()
    model = _at_opset(load(source))
    normalise(model)
    refuse_broken_weights(model)
    _fold_transposes(model)
    tidy(model)
    _split_gemms(model, exclude)
    weights = {item.name: onnx.numpy_helper.to_array(item) for item in model.graph.initializer}
    made: dict[str, str] = {}
    counts: dict[str, int] = {}
    for node in list(nested_nodes(model.graph.node)):
        axis = _axis(node)
        if axis is None or node.name in exclude or node.input[1] not in weights:
            continue
        value = weights[node.input[1]]
        if value.dtype != "float32" or value.ndim < 2:
            continue
        own = 8 if node.name in wider else bits
        blocked = own == 4 and per_channel and node.op_type == "MatMul" and value.ndim == 2
        if blocks_only and not (blocked and value.shape[0] % block == 0):
            continue
        if node.input[1] not in made:
            rows = block if blocked else None
            made[node.input[1]] = _dequantized(model, node.input[1], value, axis, own, per_channel, rows)
        node.input[1] = made[node.input[1]]
        counts[node.op_type] = counts.get(node.op_type, 0) + 1
    if not counts:
        what = f"matrix product with a multiple of {block} rows" if blocks_only else "convolution or matrix product"
        raise Unsupported(f"the model has no {what} and constant weights to quantize{told_left(model)}")
    drop_unread(model)
    _sort(model)
    onnx.save(model, str(out))
    return counts


def _axis(node: NodeProto) -> int | None:
    return -1 if node.op_type == "MatMul" else _CONVOLUTIONS.get(node.op_type)


def _at_opset(model: ModelProto) -> ModelProto:
    model = at_opset(model, _OPSET)
    model.ir_version = max(model.ir_version, _IR)
    return model


def _fold_transposes(model: ModelProto) -> None:
    """Turn weights that a Transpose reads where they lie, so that the layer behind it has a constant weight."""
    onnx = import_onnx()
    weights = {item.name: item for item in model.graph.initializer}
    for node in [node for node in model.graph.node if node.op_type == "Transpose" and node.input[0] in weights]:
        value = onnx.numpy_helper.to_array(weights[node.input[0]])
        order = attribute(node, "perm", tuple(reversed(range(value.ndim))))
        turned = onnx.numpy_helper.from_array(value.transpose(order).copy(), node.output[0])
        model.graph.initializer.append(turned)
        model.graph.node.remove(node)


def _split_gemms(model: ModelProto, exclude: Collection[str]) -> None:
    """Turn each plain Gemm with a constant weight into MatMul and Add."""
    onnx = import_onnx()
    weights = {item.name: item for item in model.graph.initializer}
    for node in list(model.graph.node):
        plain = all(attribute(node, name, default) == default for name, default in (("alpha", 1.0), ("beta", 1.0)))
        if node.op_type != "Gemm" or not plain or attribute(node, "transA", 0) or node.name in exclude:
            continue
        if node.input[1] not in weights:
            continue
        weight = node.input[1]
        if attribute(node, "transB", 0):
            turned = f"{weight}/turned"
            if turned not in weights:
                value = onnx.numpy_helper.to_array(weights[weight]).T.copy()
                weights[turned] = onnx.numpy_helper.from_array(value, turned)
                model.graph.initializer.append(weights[turned])
            weight = turned
        biased = len(node.input) > 2
        product = f"{node.output[0]}/product" if biased else node.output[0]
        place = list(model.graph.node).index(node)
        fresh = [onnx.helper.make_node("MatMul", [node.input[0], weight], [product], name=node.name)]
        if biased:
            fresh.append(
                onnx.helper.make_node("Add", [product, node.input[2]], [node.output[0]], name=f"{node.name}/bias")
            )
        model.graph.node.remove(node)
        for offset, item in enumerate(fresh):
            model.graph.node.insert(place + offset, item)


def _dequantized(
    model: ModelProto, name: str, value: Array, axis: int, bits: int, per_channel: bool, block: int | None
) -> str:
    """Add integers, scales and a DequantizeLinear for a weight, and return the name of its output."""
    onnx = import_onnx()
    integers, scale = quantize(value, axis, bits, per_channel=per_channel, block=block)
    kind = onnx.TensorProto.INT4 if bits == 4 else onnx.TensorProto.INT8
    stored = onnx.helper.make_tensor(f"{name}/integers", kind, value.shape, _raw(integers, bits), raw=True)
    scales = onnx.numpy_helper.from_array(scale, f"{name}/scale")
    model.graph.initializer.extend([stored, scales])
    settings = {"axis": 0, "block_size": block} if block else {"axis": axis % value.ndim} if scale.ndim else {}
    node = onnx.helper.make_node(
        "DequantizeLinear", [stored.name, scales.name], [f"{name}/float"], name=f"{name}/dequantize", **settings
    )
    model.graph.node.insert(0, node)
    return f"{name}/float"


def _raw(integers: Array, bits: int) -> bytes:
    import numpy as np

    flat = integers.reshape(-1)
    if bits == 8:
        return bytes(flat.tobytes())
    nibbles = np.concatenate([flat, np.zeros(len(flat) % 2, np.int8)]).astype(np.uint8) & 0xF
    return bytes((nibbles[::2] | (nibbles[1::2] << 4)).astype(np.uint8).tobytes())  # the first in the low half


def quantize(
    value: Array, axis: int, bits: int, *, per_channel: bool = True, block: int | None = None
) -> tuple[Array, Array]:
    """Return integers of a weight's shape and its scales: one, one per channel, or one per block of rows and column."""
    import numpy as np

    top = 2 ** (bits - 1) - 1
    if block:
        rows, columns = value.shape
        padded = np.zeros((-(-rows // block) * block, columns), np.float32)
        padded[:rows] = value
        peak = np.abs(padded.reshape(-1, block, columns)).max(1)
        scale = np.where(peak > 0, peak / top, 1).astype(np.float32)
        spread = np.repeat(scale, block, axis=0)[:rows]
    else:
        others = tuple(dim for dim in range(value.ndim) if dim != axis % value.ndim) if per_channel else None
        peak = np.abs(value).max(axis=others)
        scale = np.where(peak > 0, peak / top, 1).astype(np.float32)
        shape = [1] * value.ndim
        if per_channel:
            shape[axis % value.ndim] = -1
        spread = scale.reshape(shape)
    return np.clip(np.rint(value / spread), -top, top).astype(np.int8), scale


def _sort(model: ModelProto) -> None:
    """Put the dequantizers first and in order of their names, so that files depend on the model alone."""
    nodes = list(model.graph.node)
    first = sorted((node for node in nodes if node.op_type == "DequantizeLinear"), key=lambda node: str(node.name))
    del model.graph.node[:]
    model.graph.node.extend([*first, *(node for node in nodes if node.op_type != "DequantizeLinear")])
