"""One-bit convolutions for OpenVINO: signs of the inputs times signs of the weights, by xnor and popcount.

The exported graph has them in float: Convolution(Select(x > 0, 1, -1), W) with W of plus or minus one scale per output
channel. The CPU plugin's kernel is that of opset 1's BinaryConvolution, with inputs from a FakeQuantize of two levels.
That one must give 0 and 1, which stand for -1 and +1: only then does it write bits; with outputs -1 and 1 the plugin
reorders floats to bits and the results are wrong (2026.4). ``pad_value`` 0 leaves what is padded out of the sum.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness_openvino.dynamic import take_place
from harness_openvino.probe import import_openvino

if TYPE_CHECKING:
    from numpy.typing import NDArray

_BYTE = 8  # the kernel's bit rows begin at whole bytes: with other channel counts its results are wrong (2026.4)


def binarize_convolutions(graph: Any) -> int:
    """Rewrite, in place, every convolution of signs by weights of one magnitude per output channel.

    Left as they are: other ranks than 4, and input channels that are no multiple of 8.

    Returns:
        How many were rewritten.
    """
    found = [(node, signs) for node in graph.get_ordered_ops() if (signs := _signed_input(node)) is not None]
    fitting = [(node, signs, scale) for node, signs in found if (scale := _scale(node)) is not None]
    for node, signs, scale in fitting:
        _rewrite(node, signs, scale)
    graph.validate_nodes_and_infer_types()
    return len(fitting)


def _signed_input(node: Any) -> Any:
    """Return what a convolution takes the signs of, or None."""
    if node.get_type_name() != "Convolution" or node.input_value(0).get_partial_shape().rank.get_length() != 4:
        return None
    select = node.input_value(0).get_node()
    if select.get_type_name() != "Select" or (_only(select, 1), _only(select, 2)) != (1.0, -1.0):
        return None
    greater = select.input_value(0).get_node()
    return greater.input_value(0) if greater.get_type_name() == "Greater" and _only(greater, 1) == 0 else None


def _only(node: Any, place: int) -> float | None:
    """Return the value of a constant input that has but one, through what only reshapes or converts it."""
    source = node.input_value(place).get_node()
    while source.get_type_name() in {"Convert", "Broadcast", "Reshape", "Unsqueeze"}:
        source = source.input_value(0).get_node()
    if source.get_type_name() != "Constant":
        return None
    values = {float(value) for value in source.data.ravel()}
    return values.pop() if len(values) == 1 else None


def _scale(node: Any) -> NDArray[Any] | None:
    """Return the magnitude of the weights by output channel, [1, out, 1, 1], where each channel has one."""
    import numpy as np

    constant = node.input_value(1).get_node()
    if constant.get_type_name() != "Constant" or constant.get_output_shape(0)[1] % _BYTE:
        return None
    magnitude = np.abs(np.array(constant.data, np.float32))
    scale = magnitude[:, :1, :1, :1]
    return scale.reshape(1, -1, 1, 1) if np.allclose(magnitude, scale, rtol=1e-6, atol=0) else None


def _rewrite(node: Any, signs: Any, scale: NDArray[Any]) -> None:
    import numpy as np
    from openvino import opset1, opset13

    name, settings = node.get_friendly_name(), node.get_attributes()
    readers = node.output(0).get_target_inputs()
    low, high = (opset13.constant(np.full((1, 1, 1, 1), value, np.float32)) for value in (0, 1))
    bits = opset13.fake_quantize(signs, low, low, low, high, 2)
    bits.set_friendly_name(f"{name}/signs")
    product = opset1.binary_convolution(
        bits, _weights(node), settings["strides"], settings["pads_begin"], settings["pads_end"], settings["dilations"],
        "xnor-popcount", 0.0, settings["auto_pad"],
    )  # fmt: skip
    product.set_friendly_name(name)
    scaled = opset13.multiply(product, opset13.constant(scale.astype(np.float32)))
    scaled.set_friendly_name(f"{name}/scale")
    take_place(scaled, node, readers)


def _weights(node: Any) -> Any:
    """Return the signs of a convolution's weights, one bit each, the least significant first."""
    import numpy as np
    from openvino import opset13

    openvino = import_openvino()
    constant = node.input_value(1).get_node()
    weights = np.array(constant.data)
    tensor = openvino.Tensor(openvino.Type.u1, openvino.Shape(list(weights.shape)))
    tensor.data[:] = np.packbits(weights.ravel() > 0, bitorder="little")
    stored = opset13.constant(tensor)
    stored.set_friendly_name(constant.get_friendly_name())
    return stored
