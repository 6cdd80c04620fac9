"""Read OpenVINO's runtime model: which kernel ran, in which arithmetic, for how long, with how many MACs."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

from harness.api import Placement

_NOT_RUN = {"Const", "Input", "Output"}
# The last word of a kernel's name is its arithmetic. runtimePrecision is no substitute: it is the dtype of a stored
# weight, "f16" for a float32 kernel on compressed weights.
_ARITHMETIC = {
    "f32": "float32", "f16": "float16", "bf16": "bfloat16", "i8": "int8", "u8": "int8", "i32": "int32", "u1": "binary",
    "bin": "binary",
}  # fmt: skip
_ATTENTION = "ScaledDotProductAttention"
_REACH = 8  # operations behind a layer that a kernel may have fused with it
_SEQUENCES = {"GRUSequence": 3, "RNNSequence": 3, "LSTMSequence": 4, "GRUCell": 2, "LSTMCell": 3}  # place of W


def read_runtime_model(runtime: Any, model: Any, *, batch: int) -> tuple[Placement, ...]:
    """Return one placement per executed operation, in order.

    Args:
        runtime: What ``CompiledModel.get_runtime_model`` gives.
        model: The static model that was compiled; its operations' MACs go to the kernels that name them.
        batch: Items per run; MACs are per item.
    """
    known = macs_by_name(model)
    attention = {node.get_friendly_name() for node in model.get_ordered_ops() if node.get_type_name() == _ATTENTION}
    nodes = [(node, _facts(node)) for node in runtime.get_ordered_ops()]
    ran = [(node, facts) for node, facts in nodes if facts["layerType"] not in _NOT_RUN and _has_run(facts)]
    total = sum(_microseconds(facts) for _, facts in ran)
    named = [{*facts.get("originalLayersNames", "").split(","), node.get_friendly_name()} for node, facts in ran]
    homes = _homes(model, set(known), set().union(*named))
    placements = []
    for (node, facts), names in zip(ran, named, strict=True):
        layers = sorted(layer for layer, home in homes.items() if home in names and layer in known)
        macs = [known.pop(layer) for layer in layers]
        if not macs or (facts["layerType"] == "MatMul" and attention.issuperset(layers)):
            macs = _own_macs(node, facts)  # one of the two products that an attention was taken apart into
        placements.append(
            Placement(
                op=facts["layerType"],
                name=node.get_friendly_name(),
                kernel=facts["primitiveType"],
                device="CPU",
                precision="int8" if _is_lowered(node, facts, layers, names) else _precision(facts),
                macs=sum(macs) // batch if macs else None,
                time_share=_microseconds(facts) / total if total else None,
                channels=_channels(node, facts) if macs else None,
            )
        )
    return tuple(placements)


def _channels(node: Any, facts: dict[str, str]) -> int | None:
    """Return output channels: the second dimension of a convolution's result, the last of a matrix product's."""
    shape = node.output(0).get_shape()
    at = 1 if "onvolution" in facts["layerType"] else -1
    return int(shape[at]) if len(shape) > 1 else None


def _has_weights(node: Any) -> bool:
    weights = node.input_value(1).get_node()
    while weights.get_type_name() in {"Convert", "Multiply", "Subtract", "FakeQuantize", "Transpose", "Reshape"}:
        weights = weights.input_value(0).get_node()
    return bool(weights.get_type_name() == "Constant")


def _is_lowered(node: Any, facts: dict[str, str], layers: list[str], names: set[str]) -> bool:
    """Tell whether a fused subgraph multiplies integers; its kernel's name tells its input's dtype only.

    The low-precision passes move a layer's dequantization behind it, as "<layer>/DequantizationMultiply", when and
    only when they leave it integer inputs. Where the layer's own output is quantized next, as "<layer>/fq_output_0",
    that takes the dequantization in, and the integer weights that the subgraph is given tell.
    """
    if facts["layerType"] != "Subgraph" or not layers:
        return False
    absorbed = [layer for layer in layers if f"{layer}/DequantizationMultiply" not in names]
    given = [_facts(port.get_source_output().get_node()) for port in node.inputs()] if absorbed else []
    integers = sum(item["layerType"] == "Const" and item["outputPrecisions"] in {"i8", "u8"} for item in given)
    return len(absorbed) <= integers and all(f"{layer}/fq_output_0" in names for layer in absorbed)


def _own_macs(node: Any, facts: dict[str, str]) -> list[int]:
    """Return the MACs of a kernel whose name tells nothing, from its shapes.

    A fully connected one may be named after the bias that it took in alone, the products of an attention after what
    follows them, and each direction of a recurrent one has a name of its own.
    """
    shapes = [tuple(port.get_shape()) for port in node.inputs()]
    if facts["layerType"] == "RNNSeq":
        weights, recurrent, _bias = shapes[-3:]
        return [math.prod(shapes[0][:-1]) * (math.prod(weights) + math.prod(recurrent))]
    if facts["layerType"] not in {"FullyConnected", "MatMul"}:
        return []
    output = tuple(node.output(0).get_shape())
    return [output[-1] * math.prod(shapes[0])] if output else []


def _homes(model: Any, layers: Collection[str], names: Collection[str]) -> dict[str, str]:
    """Return layer -> the name under which it ran: its own, or that of the nearest operation behind it.

    The second is for products of two computed values: an attention subgraph is named after its second one alone.
    """
    homes = {}
    for node in model.get_ordered_ops():
        layer, steps = node.get_friendly_name(), 0
        weighty = node.get_type_name() in _SEQUENCES or (layer in layers and _has_weights(node))
        if layer not in layers or (layer not in names and weighty):
            continue
        while node.get_friendly_name() not in names and node.get_output_size() and steps < _REACH:
            readers = node.output(0).get_target_inputs()
            if not readers:
                break
            node, steps = min(readers, key=lambda port: str(port.get_node().get_friendly_name())).get_node(), steps + 1
        homes[layer] = str(node.get_friendly_name())
    return homes


def _facts(node: Any) -> dict[str, str]:
    info = node.get_rt_info()
    return {key: str(info[key].astype(str)) for key in info}


def _has_run(facts: dict[str, str]) -> bool:
    """Tell whether a kernel ran: views such as Reshape do not, and without counters none tells."""
    timed = facts.get("execTimeMcs", "not_executed") != "not_executed"
    return timed or not facts["primitiveType"].startswith("unknown")


def _microseconds(facts: dict[str, str]) -> int:
    text = facts.get("execTimeMcs", "")
    return int(text) if text.isdigit() else 0


def _precision(facts: dict[str, str]) -> str:
    word = facts["primitiveType"].rpartition("_")[2].lower()
    return _ARITHMETIC.get(word) or _ARITHMETIC.get(facts["runtimePrecision"].lower(), facts["runtimePrecision"])


def macs_by_name(model: Any) -> dict[str, int]:
    """Return the multiply-accumulates of each operation of a static model that has some, by friendly name."""
    counted = ((node.get_friendly_name(), _macs(node)) for node in model.get_ordered_ops())
    return {name: macs for name, macs in counted if macs is not None}


def _macs(node: Any) -> int | None:
    kind = node.get_type_name()
    if any(port.get_partial_shape().is_dynamic for port in (*node.inputs(), *node.outputs())):
        return None
    shapes: list[tuple[int, ...]] = [tuple(port.get_shape()) for port in node.inputs()]
    output: tuple[int, ...] = tuple(node.output(0).get_shape())
    if kind in {"Convolution", "BinaryConvolution"}:
        return math.prod(output) * math.prod(shapes[1][1:])
    if kind == "GroupConvolution":
        return math.prod(output) * math.prod(shapes[1][2:])
    if kind == "ConvolutionBackpropData":
        return math.prod(shapes[0]) * math.prod(shapes[1][1:])
    if kind == "GroupConvolutionBackpropData":
        return math.prod(shapes[0]) * math.prod(shapes[1][2:])
    if kind == "MatMul":
        inner = shapes[0][-2 if node.get_attributes()["transpose_a"] else -1]
        return math.prod(output) * inner
    if kind == _ATTENTION:
        query, key, value = shapes[:3]
        return math.prod(query[:-1]) * key[-2] * (query[-1] + value[-1])
    if kind in _SEQUENCES:
        weights, recurrent = shapes[_SEQUENCES[kind]], shapes[_SEQUENCES[kind] + 1]
        return math.prod(shapes[0][:-1]) * (math.prod(weights) + math.prod(recurrent))
    return None
