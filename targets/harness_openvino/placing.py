"""Put ranges that are not NNCF's own into a graph that NNCF has quantized."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from harness.api import Unsupported
from harness_onnx import Range, ranges
from harness_openvino.operations import MULTIPLIERS
from harness_openvino.probe import import_openvino

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Feed = Mapping[str, NDArray[Any]]

_LEVELS = 256
_VIEWS = {"Reshape", "Squeeze", "Unsqueeze", "Transpose"}


def calibrated(graph: Any, feeds: Sequence[Feed], method: str) -> dict[str, Range]:
    """Return the range of every float value of a graph over feeds, by friendly name of the operation."""
    return ranges(_runs(graph, feeds), cast("Any", method))


def _runs(graph: Any, feeds: Sequence[Feed]) -> Iterator[dict[str, NDArray[Any]]]:
    openvino = import_openvino()
    copy = graph.clone()
    copy.add_outputs([node.output(0) for node in copy.get_ordered_ops() if _is_watched(node)])
    compiled = openvino.Core().compile_model(copy, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    names = [result.input_value(0).get_node().get_friendly_name() for result in copy.get_results()]
    for feed in feeds:
        values = compiled(dict(feed))
        yield {name: values[place] for place, name in enumerate(names)}


def _is_watched(node: Any) -> bool:
    floats = node.get_output_size() == 1 and node.get_output_element_type(0).to_string() == "f32"
    return floats and node.get_type_name() not in {"Constant", "Result"}


def set_ranges(
    graph: Any, seen: Mapping[str, Range], bound: Mapping[str, Mapping[str, Range]], *, symmetric: bool
) -> tuple[str, ...]:
    """Set the activation quantizers of a graph, in place.

    Args:
        graph: What ``nncf.quantize`` gave.
        seen: Range by friendly name of the operation whose value is quantized.
        bound: By parameter, the range by friendly name of the layer whose input is quantized; it wins.
        symmetric: Zero points of ranges that were seen are the middle of the grid, unless all values are positive.

    Returns:
        The parameters whose ranges bind nothing, since NNCF leaves their layers in float.

    Raises:
        Unsupported: None of the ranges that bind has a quantizer.
    """
    binding = {name: bounds for layers in bound.values() for name, bounds in layers.items()}
    placed = set()
    for node in graph.get_ordered_ops() if seen or bound else ():
        name = node.get_friendly_name()
        if node.get_type_name() == "FakeQuantize" and not _is_weight(node):
            source = node.input_value(0).get_node().get_friendly_name()
            if source in seen:
                _set(node, _affine(seen[source], symmetric=symmetric))
        quantizer = _quantizer_before(node) if name in binding and node.get_type_name() in MULTIPLIERS else None
        if quantizer is not None:
            _set(quantizer, binding[name])
            placed.add(name)
    free = tuple(parameter for parameter, layers in bound.items() if not placed & set(layers))
    if free and not placed:
        raise Unsupported(f"openvino: nncf leaves every layer in float whose range binds, the one of {free[0]!r} first")
    return free


def centre_transposed(graph: Any) -> None:
    """Give transposed convolutions, in place, inputs with zero in the middle: else they are computed in float."""
    for node in graph.get_ordered_ops():
        quantizer = _quantizer_before(node) if node.get_type_name() == "ConvolutionBackpropData" else None
        if quantizer is not None:
            low, high = (float(quantizer.input_value(place).get_node().data.min()) for place in (1, 2))
            _set(quantizer, _affine((low, high), symmetric=True))


def quantized_layers(graph: Any) -> int:
    """Return how many convolutions and matrix products of a graph have a quantizer in front, or integer weights."""
    layers = (node for node in graph.get_ordered_ops() if node.get_type_name() in MULTIPLIERS)
    return sum(_quantizer_before(node) is not None or _has_integers(node) for node in layers)


def _has_integers(node: Any) -> bool:
    source = node.input_value(1).get_node()
    while source.get_type_name() in {"Convert", "Multiply", "Reshape", "Subtract", "Transpose"}:
        source = source.input_value(0).get_node()
    return source.get_type_name() == "Constant" and source.get_element_type().to_string() in {"i8", "u8"}


def _is_weight(node: Any) -> bool:
    source = node.input_value(0).get_node()
    while source.get_input_size() and source.get_type_name() in {"Convert", "Multiply", "Subtract", "Reshape"}:
        source = source.input_value(0).get_node()
    return bool(source.get_type_name() == "Constant")


def _quantizer_before(node: Any) -> Any:
    """Return the quantizer of a layer's input, behind views at most."""
    source = node.input_value(0).get_node()
    while source.get_type_name() in _VIEWS:
        source = source.input_value(0).get_node()
    return source if source.get_type_name() == "FakeQuantize" else None


def _affine(bounds: Range, *, symmetric: bool) -> Range:
    """Move a range so that 0 lies on its grid of 256 levels."""
    low, high = bounds
    if symmetric and low < 0:
        reach = max(-low, high)
        return -reach * _LEVELS / (_LEVELS - 2), reach  # int8 has one more level below zero than above
    step = (high - low) / (_LEVELS - 1) or 1.0
    zero = round(-low / step)
    return -zero * step, (_LEVELS - 1 - zero) * step


def _set(node: Any, bounds: Range) -> None:
    import numpy as np
    from openvino import opset13 as ops

    rank = node.input_value(1).get_partial_shape().rank.get_length()
    for place, bound in ((1, 0), (2, 1), (3, 0), (4, 1)):
        value = np.full([1] * rank, bounds[bound], np.float32)
        node.input(place).replace_source_output(ops.constant(value).output(0))
