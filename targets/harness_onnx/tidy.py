"""Bring a graph into the shape that ONNX Runtime's quantizers take, without changing what it computes.

Each step stands for a graph on which ``onnxruntime.quantization`` 1.31 fails or quantizes wrongly.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from harness.api import Unsupported
from harness_onnx.graph import GATES, attribute, consumers, drop_unread, import_onnx, nested_nodes, put_at

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from onnx import ModelProto, NodeProto, TensorProto

    Array = NDArray[Any]

_UNLIKE = 0.25  # mean square of the channels' largest weights over that of the largest one: four is 6 dB
_TOLD = 3  # layers that a refusal names
CONVOLUTIONS = ("Conv", "ConvTranspose")
_WEIGHT_PLACES: Mapping[str, tuple[int, ...]] = {
    "Conv": (1,), "ConvTranspose": (1,), "Gemm": (0, 1), "MatMul": (0, 1), **dict.fromkeys(GATES, (1, 2)),
}  # fmt: skip


def tidy(model: ModelProto) -> None:
    """Fold the factors of Gemms into their weights, and give operators that disagree about a weight one of their own.

    A Gemm's ``beta`` otherwise scales a bias twice; a weight that is read along two axes would get the scales of one;
    a bias that two layers share needs a scale for each.
    """
    _plain_gemms(model)
    _full_biases(model)
    _own_weights(model)
    drop_unread(model)


def refuse_broken_weights(model: ModelProto) -> None:
    """Refuse a model with a layer whose weights are not numbers: no scale can be found for them.

    Raises:
        Unsupported: Names the weight and the layer.
    """
    import numpy as np

    onnx = import_onnx()
    stored = {item.name: item for item in model.graph.initializer}
    for node, _place, name in layer_weights(model, stored):
        value = onnx.numpy_helper.to_array(stored[name])
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            what = "NaN" if np.isnan(value).any() else "infinite values"
            raise Unsupported(
                f"weight {name!r} of layer {node.name!r} ({node.op_type}) holds {what}, so it has no scale",
                hint="mend the weight and export again; baseline shows what the file computes as it is",
            )


def layer_weights(model: ModelProto, stored: Mapping[str, Any]) -> Iterator[tuple[NodeProto, int, str]]:
    """Yield each layer, those of nested graphs too, with the place and the name of a weight of it."""
    for node in nested_nodes(model.graph.node):
        for place in _WEIGHT_PLACES.get(node.op_type, ()):
            if place < len(node.input) and node.input[place] in stored:
                yield node, place, node.input[place]


def scaled_as_one(model: ModelProto) -> list[str]:
    """Return the weights that take one scale for all: no kernel has scales along their channels.

    They are those of grouped transposed convolutions, whose channels lie along two axes, stacks of matrices, and
    matrices on the left of a product.
    """
    stored = {item.name: item for item in model.graph.initializer}
    found = []
    for node, place, name in layer_weights(model, stored):
        grouped = node.op_type == "ConvTranspose" and attribute(node, "group", 1) > 1
        stacked = node.op_type == "MatMul" and len(stored[name].dims) != 2
        if grouped or stacked or (node.op_type in {"MatMul", "Gemm"} and place == 0):
            found.append(name)
    return list(dict.fromkeys(found))


def told_left(model: ModelProto) -> str:
    """Say of a model in which nothing was quantized which layers it has, and why they stayed; empty if it has none."""
    layers = {*_WEIGHT_PLACES}
    main = {item.name: item.op_type for item in model.graph.node if item.op_type in layers}
    nested = {item.name: item.op_type for item in nested_nodes(model.graph.node) if item.op_type in layers}
    inside = nested.keys() - main.keys()
    told = [f"{kind} {name!r}" for name, kind in main.items()][:_TOLD]
    if told:
        return (
            f": {', '.join(told)}{' …' if len(main) > _TOLD else ''} has no such kernel or no constant float32 weights"
        )
    return f": its {len(inside)} layers lie in branches or loops, which the quantizer does not enter" if inside else ""


def scale_channels_behind(model: ModelProto, exclude: Collection[str]) -> int:
    """Take the scales of channels out of the weights of convolutions and put them behind, before the bias.

    Dynamic int8 has one weight scale for a convolution. Where the largest weights of its channels differ so much that
    scales by channel halve the error or better, each channel is divided by its share of the largest one, and its output
    multiplied by it: the one scale is then right for all.

    Returns:
        How many convolutions were changed.
    """
    import numpy as np

    onnx = import_onnx()
    stored = {item.name: item for item in model.graph.initializer}
    readers, count = consumers(model.graph), 0
    for node in [node for node in model.graph.node if node.op_type == "Conv" and node.name not in exclude]:
        if node.input[1] not in stored or any(name and name not in stored for name in node.input[2:]):
            continue
        weight = onnx.numpy_helper.to_array(stored[node.input[1]])
        peaks = np.abs(weight).reshape(len(weight), -1).max(1)
        if weight.dtype != np.float32 or not peaks.max() or np.mean(peaks**2) > _UNLIKE * peaks.max() ** 2:
            continue
        share = np.where(peaks > 0, peaks / peaks.max(), 1).astype(np.float32)
        shape = (-1, *[1] * (weight.ndim - 1))
        value = weight / share.reshape(shape)
        if len(readers[node.input[1]]) == 1:
            stored[node.input[1]].CopyFrom(onnx.numpy_helper.from_array(value, node.input[1]))
        else:
            node.input[1] = _added(model, stored, node.input[1], value, node.name)
        _multiplied(model, stored, node, share.reshape(shape[:-1]))
        count += 1
    return count


def _multiplied(model: ModelProto, stored: dict[str, TensorProto], node: NodeProto, share: Array) -> None:
    """Put a product with ``share``, shape [channels, 1, …], behind a convolution, and its bias behind that."""
    onnx = import_onnx()
    out, raw = node.output[0], f"{node.output[0]}/unscaled"
    biased = len(node.input) > 2 and node.input[2]
    product = f"{out}/scaled" if biased else out
    factor = _added(model, stored, node.input[1], share, f"{node.name}_shares")
    fresh = [onnx.helper.make_node("Mul", [raw, factor], [product], name=f"{node.name}/shares")]
    if biased:
        bias = onnx.numpy_helper.to_array(stored[node.input[2]]).reshape(share.shape)
        term = _added(model, stored, node.input[2], bias, f"{node.name}_behind")
        fresh.append(onnx.helper.make_node("Add", [product, term], [out], name=f"{node.name}/bias"))
        del node.input[2:]
    node.output[0] = raw
    put_at(model, list(model.graph.node).index(node) + 1, fresh)


def _plain_gemms(model: ModelProto) -> None:
    """Fold ``alpha`` and ``beta`` of Gemms into constant weights and biases."""
    stored = {item.name: item for item in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type != "Gemm":
            continue
        for place, key in ((1, "alpha"), (2, "beta")):
            factor = float(attribute(node, key, 1.0))
            if factor == 1.0 or place >= len(node.input) or node.input[place] not in stored:
                continue
            value = import_onnx().numpy_helper.to_array(stored[node.input[place]])
            scaled = (value * factor).astype(value.dtype)
            node.input[place] = _added(model, stored, node.input[place], scaled, f"{node.name}_{key}")
            _forget(node, key)


def _full_biases(model: ModelProto) -> None:
    """Repeat a Gemm's bias of one number for every column: the quantizer takes a bias for a vector of that length."""
    import numpy as np

    onnx = import_onnx()
    stored = {item.name: item for item in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type != "Gemm" or len(node.input) < 3 or not {node.input[1], node.input[2]} <= stored.keys():
            continue
        bias = onnx.numpy_helper.to_array(stored[node.input[2]])
        columns = stored[node.input[1]].dims[0 if attribute(node, "transB", 0) else 1]
        if bias.size == 1 and bias.shape != (columns,):
            node.input[2] = _added(model, stored, node.input[2], np.full(columns, bias.item(), bias.dtype), node.name)


def _own_weights(model: ModelProto) -> None:
    """Copy weights for all but the first of those readers that scale them differently, and every shared bias."""
    stored = {item.name: item for item in model.graph.initializer}
    for name, readers in list(consumers(model.graph).items()):
        if name not in stored:
            continue
        owners: dict[Any, str] = {}
        for node, place in readers:
            key = _way(node, place)
            if key not in owners:
                copied = bool(owners)
                value = import_onnx().numpy_helper.to_array(stored[name]) if copied else None
                owners[key] = name if value is None else _added(model, stored, name, value, node.name or node.output[0])
            node.input[place] = owners[key]


def _way(node: NodeProto, place: int) -> Any:
    """Return what a reader's scales of a weight depend on; readers that share it can share the weight."""
    if node.op_type in {*CONVOLUTIONS, "Gemm"} and place == 2:
        return ("bias", node.name, node.output[0])
    if node.op_type == "Gemm" and place == 1:
        return ("matrix", 0 if attribute(node, "transB", 0) else 1)
    if node.op_type == "MatMul" and place == 1:
        return ("matrix", 1)
    if node.op_type in CONVOLUTIONS and place == 1:
        return (node.op_type, attribute(node, "group", 1))
    if node.op_type in GATES:
        return (node.op_type, place)
    return "other"


def _added(model: ModelProto, stored: dict[str, TensorProto], name: str, value: Array, suffix: str) -> str:
    fresh, count = f"{name}/{suffix}", 0
    while fresh in stored:
        count += 1
        fresh = f"{name}/{suffix}_{count}"
    model.graph.initializer.append(import_onnx().numpy_helper.from_array(value, fresh))
    stored[fresh] = model.graph.initializer[-1]
    return fresh


def _forget(node: NodeProto, key: str) -> None:
    kept = [item for item in node.attribute if item.name != key]
    del node.attribute[:]
    node.attribute.extend(kept)


def fold_batch_norms(model: ModelProto) -> None:
    """Fold batch norms into the layers before them, and turn the others into a product and a sum.

    scale = gamma / sqrt(variance + epsilon) and shift = beta - mean * scale (Ioffe and Szegedy, 2015), computed in
    float64: a variance beyond the range of float16 then leaves a scale that is inside it.
    """
    import numpy as np

    onnx = import_onnx()
    stored = {item.name: item for item in model.graph.initializer}
    readers, outputs = consumers(model.graph), {item.name for item in model.graph.output}
    makers = {name: node for node in model.graph.node for name in node.output}
    ranks = _ranks(model)
    for node in [node for node in model.graph.node if node.op_type == "BatchNormalization"]:
        if any(name not in stored for name in node.input[1:5]) or attribute(node, "training_mode", 0):
            continue
        gamma, beta, mean, variance = (
            onnx.numpy_helper.to_array(stored[name]).astype(np.float64) for name in node.input[1:5]
        )
        scale = gamma / np.sqrt(variance + attribute(node, "epsilon", 1e-5))
        shift = beta - mean * scale
        before = makers.get(node.input[0])
        alone = len(readers.get(node.input[0], [])) == 1 and node.input[0] not in outputs
        if before is not None and alone and before.op_type in CONVOLUTIONS and before.input[1] in stored:
            _into_convolution(model, stored, before, scale, shift, readers)
            before.output[0] = node.output[0]
            model.graph.node.remove(node)
        elif rank := ranks.get(node.input[0], 0):
            _as_product(model, stored, node, scale, shift, rank)


def _into_convolution(
    model: ModelProto, stored: dict[str, Any], node: NodeProto, scale: Array, shift: Array, readers: Mapping[str, Any]
) -> None:
    import numpy as np

    onnx = import_onnx()
    weight = onnx.numpy_helper.to_array(stored[node.input[1]])
    groups = int(attribute(node, "group", 1)) if node.op_type == "ConvTranspose" else 1
    if node.op_type == "Conv":
        factor = scale.reshape(-1, *[1] * (weight.ndim - 1))
    else:  # [in, out / groups, …]: the inputs of a group lie together
        factor = np.repeat(scale.reshape(groups, -1), weight.shape[0] // groups, axis=0)
        factor = factor.reshape(*factor.shape, *[1] * (weight.ndim - 2))
    scaled = (weight.astype(np.float64) * factor).astype(weight.dtype)
    biased = len(node.input) > 2 and node.input[2]
    bias = onnx.numpy_helper.to_array(stored[node.input[2]]).astype(np.float64) if biased else 0.0
    fresh = (bias * scale + shift).astype(weight.dtype)
    if len(readers[node.input[1]]) == 1:
        stored[node.input[1]].CopyFrom(onnx.numpy_helper.from_array(scaled, node.input[1]))
    else:
        node.input[1] = _added(model, stored, node.input[1], scaled, node.name)
    name = _added(model, stored, node.input[1], fresh, "folded_bias")
    del node.input[2:]
    node.input.append(name)


def _as_product(
    model: ModelProto, stored: dict[str, Any], node: NodeProto, scale: Array, shift: Array, rank: int
) -> None:
    onnx = import_onnx()
    kind = onnx.numpy_helper.to_array(stored[node.input[1]]).dtype
    shape = (-1, *[1] * (rank - 2)) if rank > 1 else (-1,)
    factor = _added(model, stored, node.input[1], scale.reshape(shape).astype(kind), f"{node.name}_scale")
    term = _added(model, stored, node.input[2], shift.reshape(shape).astype(kind), f"{node.name}_shift")
    place = list(model.graph.node).index(node)
    product = f"{node.output[0]}/scaled"
    fresh = [
        onnx.helper.make_node("Mul", [node.input[0], factor], [product], name=f"{node.name}/scale"),
        onnx.helper.make_node("Add", [product, term], [node.output[0]], name=f"{node.name}/shift"),
    ]
    model.graph.node.remove(node)
    put_at(model, place, fresh)


def _ranks(model: ModelProto) -> dict[str, int]:
    graph = import_onnx().shape_inference.infer_shapes(model).graph
    return {
        item.name: len(item.type.tensor_type.shape.dim)
        for item in [*graph.input, *graph.value_info, *graph.output]
        if item.type.tensor_type.HasField("shape")
    }
