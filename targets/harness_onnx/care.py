"""Which operators stay float in static int8, because eight bits cannot hold what they carry; each with the reason."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness_onnx.graph import consumers, drop_unread, import_onnx, load, nested_nodes, subgraphs
from harness_onnx.ranges import tensor_runs

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from onnx import ModelProto, NodeProto

    Feed = Mapping[str, NDArray[Any]]

SCORES = 64.0  # widest range of softmax inputs in 8 bits: a step of 1/4 is 28 % of a probability
HUGE = 1e9  # magnitudes beyond it stand for "never": masks of -1e9 and of float32's least value
UNBOUNDED, MASKED = "infinite or huge values", "masked attention scores"  # reasons that hold for every runtime
LARGEST_FLOAT16 = 65504.0
_MOVES = {
    "Cast", "Expand", "Flatten", "Gather", "Identity", "Pad", "Reshape", "Slice", "Split", "Squeeze", "Tile",
    "Transpose", "Unsqueeze",
}  # fmt: skip
_COMBINES = {"Add", "Clip", "Div", "Max", "Min", "Mul", "Sub", "Where"}
_BEHIND = _MOVES | _COMBINES - {"Clip"} | {"Concat", "Exp", "HardSigmoid", "Pow", "Sigmoid", "Softmax", "Sqrt", "Tanh"}
_FLOAT_ONLY = {"BatchNormalization", "ConvTranspose", "CumSum", "InstanceNormalization", "LayerNormalization", "TopK"}
_PRODUCTS = {"Gemm", "MatMul"}  # their integer kernels give floats as well
_REMOVED = {"Clip", "Relu"}  # which the quantizer drops, as the integer range of the layer before them does their work


@dataclass(frozen=True)
class Extremes:
    """The least and greatest finite value of a tensor, and whether it held infinite values or NaN."""

    low: float
    high: float
    finite: bool


def extremes(path: Path, feeds: Sequence[Feed]) -> dict[str, Extremes]:
    """Return the extremes of every float tensor of a file over calibration feeds, constants among them."""
    import numpy as np

    onnx = import_onnx()
    found: dict[str, Extremes] = {}
    stored = {item.name: onnx.numpy_helper.to_array(item) for item in load(path).graph.initializer}
    for values in itertools.chain([stored], tensor_runs(path, feeds) if feeds else ()):
        for name, array in values.items():
            if array.dtype != np.float32 or not array.size:
                continue
            usable = array[np.isfinite(array)]
            old = found.get(name, Extremes(float("inf"), float("-inf"), finite=True))
            found[name] = Extremes(
                min(old.low, float(usable.min(initial=np.inf))),
                max(old.high, float(usable.max(initial=-np.inf))),
                finite=old.finite and usable.size == array.size,
            )
    return found


def kept_float(model: ModelProto, seen: Mapping[str, Extremes]) -> dict[str, str]:
    """Return the names of nodes that are to stay float, each with why.

    They are: what reads or makes infinite or huge values; the way of attention scores from their product to the
    softmax, where masks widen it (all that counts is within some tens of the greatest score); what joins and moves
    values behind the last layer, since parts of unlike ranges, such as a detector's boxes and scores, would share one
    scale there; norms and transposed convolutions, which have no integer kernels; and an activation before or behind
    which something is read that the quantizer overlooks, an output of the graph or a branch: it drops activations.
    """
    found: dict[str, str] = {}
    outputs = {item.name for item in model.graph.output}
    ranks = {item.name: len(item.dims) for item in model.graph.initializer}
    nested = {name for node in model.graph.node for item in _inside(node) for name in item.input}
    for node in model.graph.node:
        if any(_unbounded(seen.get(name)) for name in (*node.input, *node.output)):
            found[node.name] = UNBOUNDED
        elif node.op_type in _FLOAT_ONLY:
            found[node.name] = "no integer kernel"
        elif node.op_type == "Gemm" and len(node.input) > 2 and ranks.get(node.input[2], 1) != 1:
            found[node.name] = "its bias is no vector"
        elif node.op_type in _REMOVED and node.input[0] in outputs:
            found[node.name] = "its input is an output of the graph"
        elif node.op_type in _REMOVED and nested.intersection((node.input[0], node.output[0])):
            found[node.name] = "a branch or loop reads it"
    makers = {name: node for node in model.graph.node for name in node.output}
    for node in model.graph.node:
        if node.op_type in {"Softmax", "LogSoftmax"}:
            way = [node, *_scores(node.input[0], makers)]
            if any(_wide(seen.get(name)) for item in way for name in item.input):
                found |= dict.fromkeys((item.name for item in way), MASKED)
    return found | {node.name: "behind the last layer" for node in _behind(model, outputs)}


def _inside(node: NodeProto) -> Iterable[NodeProto]:
    return nested_nodes(item for graph in subgraphs(node) for item in graph.node)


def beyond_float16(model: ModelProto, seen: Mapping[str, Extremes]) -> list[NodeProto]:
    """Return the nodes that make or read values that float16 cannot hold; infinite ones it can."""
    return [node for node in model.graph.node if any(_large(seen.get(name)) for name in (*node.input, *node.output))]


def _large(value: Extremes | None) -> bool:
    return value is not None and max(-value.low, value.high) > LARGEST_FLOAT16


def _unbounded(value: Extremes | None) -> bool:
    return value is not None and (not value.finite or max(-value.low, value.high) > HUGE)


def _wide(value: Extremes | None) -> bool:
    return value is not None and (not value.finite or value.high - value.low > SCORES)


def _scores(name: str, makers: Mapping[str, NodeProto]) -> Iterable[NodeProto]:
    """Yield the operators between a product and the softmax that reads ``name``, the mask's among them."""
    node = makers.get(name)
    if node is not None and node.op_type in _MOVES | _COMBINES:
        yield node
        for before in node.input:
            yield from _scores(before, makers)


def _behind(model: ModelProto, outputs: set[str]) -> list[NodeProto]:
    """Return what joins, moves and scales values on the way to the graph's outputs and to nothing else."""
    readers = consumers(model.graph)
    products = {name for node in model.graph.node if node.op_type in _PRODUCTS for name in node.output}
    chosen: set[str] = set()
    found = []
    for node in reversed(model.graph.node):
        moves = node.op_type in _BEHIND or (node.op_type in _REMOVED and node.input[0] in products)
        goes_on = [reader for name in node.output for reader, _place in readers.get(name, [])]
        last = all(name in outputs or readers.get(name) for name in node.output if name)
        if moves and last and all(reader.name in chosen for reader in goes_on):
            chosen.add(node.name)
            found.append(node)
    return found


def drop_last_pairs(model: ModelProto, prepared: ModelProto, kept: Collection[str]) -> None:
    """Take away the Q/DQ pair behind a product that no quantized operator reads: its kernel gives floats as well.

    A convolution's integer kernel gives integers alone, so a pair behind one stays; so does one that does the work of
    an activation that the quantizer dropped.

    Args:
        model: With Q/DQ pairs.
        prepared: The float graph that it was made from.
        kept: Names of the nodes that stayed float.
    """
    readers, makers = consumers(model.graph), {name: node for node in model.graph.node for name in node.output}
    made = {name for node in prepared.graph.node if node.op_type in _PRODUCTS for name in node.output}
    integer = {node.name for node in prepared.graph.node if node.name not in kept}
    for last in [node for node in model.graph.node if node.op_type == "DequantizeLinear"]:
        first = makers.get(last.input[0])
        if first is None or first.op_type != "QuantizeLinear" or len(readers[first.output[0]]) > 1:
            continue
        product, tensor = makers.get(first.input[0]), last.output[0].removesuffix("_DequantizeLinear_Output")
        read_by = {reader.name for reader, _place in readers.get(last.output[0], [])}
        if product is None or product.op_type not in _PRODUCTS or tensor not in made or read_by & integer:
            continue
        if len(readers[first.input[0]]) == 1:
            product.output[0] = last.output[0]
            model.graph.node.remove(first)
            model.graph.node.remove(last)
    drop_unread(model)
