"""Dynamic int8 for OpenVINO: quantize activations inside the graph, where the CPU plugin has no such mode.

OpenVINO quantizes activations at run time only for MatMul with compressed weights, never for Convolution. But a
layer is linear: layer(x) = s * layer(x / s). With s = max|x| / 127 computed by ordinary operations, x / s lies in
[-127, 127], a FakeQuantize with that constant range makes it int8, and the plugin's low-precision passes take the
layer as they take a statically quantized one: its int8 kernel runs (the runtime model says so), then comes * s.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

# All 256 of an int8, though -128 is never used: with the 255 from -127 to 127 the plugin (2026.4) gives convolutions a
# zero point of 127.5, whose half is lost, and each input is off by half a step.
_LOW, _HIGH, _LEVELS = -128, 127, 256
_TINY = 1e-12  # an all-zero activation has scale 0, which would divide by zero
_CONVOLUTIONS = {"Convolution", "GroupConvolution"}


def quantize_dynamically(graph: Any, *, per_channel: bool, exclude: Collection[str] = ()) -> int:
    """Rewrite, in place, every convolution and matrix product with constant float weights.

    Activations get one scale per item for convolutions and one per row for products, symmetric; weights are int8
    with one scale per output channel or per tensor.

    Args:
        graph: An ``openvino.Model``.
        per_channel: One weight scale per output channel.
        exclude: Friendly names of operations that stay float.

    Returns:
        How many layers were rewritten.
    """
    layers = [node for node in graph.get_ordered_ops() if node.get_friendly_name() not in exclude and _fits(node)]
    for node in layers:
        _rewrite(node, per_channel)
    graph.validate_nodes_and_infer_types()
    return len(layers)


def _fits(node: Any) -> bool:
    kind = node.get_type_name()
    if kind not in _CONVOLUTIONS | {"MatMul"}:
        return False
    if kind == "MatMul" and node.get_attributes().get("transpose_a"):
        return False
    weights = node.input_value(1).get_node()
    rank = node.input_value(0).get_partial_shape().rank
    is_float = weights.get_type_name() == "Constant" and weights.get_element_type().to_string() == "f32"
    return bool(is_float and rank.is_static and len(weights.get_output_shape(0)) >= 2)


def _rewrite(node: Any, per_channel: bool) -> None:
    import numpy as np
    from openvino import opset13 as ops

    convolution = node.get_type_name() in _CONVOLUTIONS
    source = node.input_value(0)
    rank = source.get_partial_shape().rank.get_length()
    axes = np.arange(1, rank) if convolution else np.array([-1])
    peak = ops.reduce_max(ops.abs(source), ops.constant(axes.astype(np.int64)), keep_dims=True)
    scale = ops.divide(ops.maximum(peak, ops.constant(np.float32(_TINY))), ops.constant(np.float32(127)))
    low, high = (ops.constant(np.float32(bound)) for bound in (_LOW, _HIGH))
    quantized = ops.fake_quantize(ops.divide(source, scale), low, high, low, high, _LEVELS)
    quantized.set_friendly_name(f"{node.get_friendly_name()}/quantized_input")
    readers = node.output(0).get_target_inputs()
    node.input(0).replace_source_output(quantized.output(0))
    node.input(1).replace_source_output(_quantized_weights(node, per_channel).output(0))
    node.validate_and_infer_types()
    scaled = ops.multiply(node.output(0), scale)
    scaled.set_friendly_name(f"{node.get_friendly_name()}/scaled")
    take_place(scaled, node, readers)


def take_place(scaled: Any, node: Any, readers: Any) -> None:
    """Give what scales an operation's result its readers, and its tensor's names: what they name is the scaled one."""
    names = node.output(0).get_names()
    node.output(0).get_tensor().set_names(set())
    for reader in readers:
        reader.replace_source_output(scaled.output(0))
    scaled.output(0).get_tensor().set_names(names)


def _quantized_weights(node: Any, per_channel: bool) -> Any:
    """Return int8 weights with their scale, in the form that the plugin's low-precision passes know."""
    import numpy as np
    from openvino import opset13 as ops

    constant = node.input_value(1).get_node()
    weights = np.array(constant.data)
    axes = _reduced_axes(node, weights.ndim) if per_channel else tuple(range(weights.ndim))
    peak = np.abs(weights).max(axis=axes, keepdims=True)
    scale = np.where(peak > 0, peak / 127, 1).astype(np.float32)
    integers: NDArray[np.int8] = np.clip(np.rint(weights / scale), -127, 127).astype(np.int8)
    stored = ops.constant(integers)
    stored.set_friendly_name(constant.get_friendly_name())
    return ops.multiply(ops.convert(stored, "f32"), ops.constant(scale))


def _reduced_axes(node: Any, rank: int) -> tuple[int, ...]:
    """Return the weight axes that one output channel sums over."""
    if node.get_type_name() == "Convolution":
        return tuple(range(1, rank))  # [out, in, …]
    if node.get_type_name() == "GroupConvolution":
        return tuple(range(2, rank))  # [group, out, in, …]
    return (rank - 1,) if node.get_attributes()["transpose_b"] else (rank - 2,)
