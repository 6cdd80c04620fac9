"""Read an ONNX graph: its inputs, its weights' places in the file, its multiply-accumulates."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.api import BadModel, MissingDependency, Model, Span, TensorSpec, Unsupported, first_line
from harness_onnx.wire import TensorSpan, raw_initializers

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto, ValueInfoProto

BATCH = "batch"  # the name that a free first dimension has in every file we write
_WEIGHT_AXIS = {"Conv": 0, "ConvInteger": 0, "ConvTranspose": 1, "MatMul": -1, "MatMulInteger": -1, "GRU": 1, "LSTM": 1}
GATES = {"GRU": 3, "LSTM": 4, "RNN": 1}  # of the recurrent operators


def import_onnx() -> Any:
    """Return the module ``onnx`` with its submodules loaded.

    Raises:
        MissingDependency: It is not installed.
    """
    try:
        import onnx
        import onnx.checker
        import onnx.helper
        import onnx.numpy_helper
        import onnx.shape_inference
    except ImportError as error:
        hint = "pip install 'compression-harness[onnxruntime]'"
        raise MissingDependency(f"onnx cannot be imported: {error}", hint=hint) from error
    return onnx


def load(path: Path, *, values: bool = True) -> ModelProto:
    """Return the model of a file, with external data read into it unless ``values`` is False.

    Raises:
        BadModel: It cannot be parsed.
    """
    onnx = import_onnx()
    try:
        model: ModelProto = onnx.load(str(path), load_external_data=values)
    except Exception as error:  # protobuf's own errors are of several unrelated classes
        raise BadModel(f"{path.name} is not a readable ONNX model: {first_line(str(error))}") from error
    return model


def check_file(path: Path) -> None:
    """Check a file against the ONNX specification.

    Raises:
        BadModel: The checker refuses it, with what it says.
    """
    onnx = import_onnx()
    try:
        onnx.checker.check_model(str(path), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise BadModel(f"{path.name} does not pass the ONNX checker: {first_line(str(error))}") from error


def model_io(path: Path) -> tuple[dict[str, TensorSpec], dict[str, TensorSpec]]:
    """Return inputs and outputs by name, in order; initializers are no inputs."""
    graph = load(path).graph
    weights = {item.name for item in graph.initializer}
    inputs = {item.name: _spec(item) for item in graph.input if item.name not in weights}
    return inputs, {item.name: _spec(item) for item in graph.output}


def _spec(item: ValueInfoProto) -> TensorSpec:
    onnx = import_onnx()
    tensor = item.type.tensor_type
    dtype = str(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type))
    shape = tuple(dim.dim_value if dim.HasField("dim_value") else None for dim in tensor.shape.dim)
    return TensorSpec(dtype, shape)


def at_opset(model: ModelProto, version: int) -> ModelProto:
    """Return a model of at least this opset."""
    import onnx.version_converter

    current = max(item.version for item in model.opset_import if item.domain in {"", "ai.onnx"})
    return model if current >= version else onnx.version_converter.convert_version(model, version)


def normalise(model: ModelProto) -> None:
    """Name the free first dimension of every input and output ``batch``, and drop stored intermediate shapes.

    A file in which a dimension has that name keeps its names: ``bind`` gave them, on whatever axis the items lie.
    A runtime can then fix the batch by that name. Stored shapes go because quantizers rewrite weights under
    their old names, and stale shapes then fail shape inference.
    """
    weights = {item.name for item in model.graph.initializer}
    inputs = [item for item in model.graph.input if item.name not in weights]
    if any(dim.dim_param == BATCH for item in inputs for dim in item.type.tensor_type.shape.dim):
        del model.graph.value_info[:]
        return  # the batch is named already, on whatever axis it lies
    old = {_first(item).dim_param for item in inputs if _is_free(item)}
    for item in [*inputs, *model.graph.output]:
        if _is_free(item) and (_first(item).dim_param in old or item in inputs):
            _first(item).dim_param = BATCH
    del model.graph.value_info[:]


def bind(path: Path, inputs: Mapping[str, TensorSpec], outputs: Sequence[str], sized: Mapping[str, int] | None) -> None:
    """Write the sizes and roles that were found for a file's inputs into it, so that only the batch is left free.

    An output that is an input too gets a name of its own behind an Identity; one that is named twice stands once.

    Args:
        path: Of the file, which is changed.
        inputs: With their roles; what is free is the batch.
        outputs: Their names, once each.
        sized: Sizes of free dimensions by name; ``None`` leaves all of them free and names the batch alone.
    """
    onnx = import_onnx()
    model = load(path)
    _part_outputs(model, outputs)
    named: dict[str, int | None] = {}
    unlike = {"", "?"}  # names that stand for several sizes
    for item in model.graph.input:
        known = inputs.get(item.name)
        for axis, dim in enumerate(item.type.tensor_type.shape.dim if known is not None else ()):
            size = known.shape[axis] if known is not None else None
            if dim.dim_value <= 0 and (sized is not None or size is None):
                if named.setdefault(dim.dim_param, size) != size:
                    unlike.add(dim.dim_param)
                _set(dim, size)
            elif dim.dim_value <= 0:
                _set(dim, None, _other(dim.dim_param, item.name, axis))
    named = {name: size for name, size in named.items() if name not in unlike} | dict(sized or {})
    for item in model.graph.output:
        for axis, dim in enumerate(item.type.tensor_type.shape.dim):
            if dim.dim_value <= 0 and dim.dim_param in named:
                _set(dim, named[dim.dim_param])
            elif dim.dim_value <= 0:
                _set(dim, None, _other(dim.dim_param, item.name, axis))
    del model.graph.value_info[:]
    onnx.save(model, str(path))


def _other(name: str, value: str, axis: int) -> str:
    """Return the name of a free dimension that is not the batch."""
    return name if name and name != BATCH else f"{value}.{axis}"


def _part_outputs(model: ModelProto, outputs: Sequence[str]) -> None:
    onnx = import_onnx()
    found = {item.name: item for item in reversed(model.graph.output)}
    taken = {item.name for item in model.graph.input}
    kept = []
    for name, output in zip(dict.fromkeys(item.name for item in model.graph.output), outputs, strict=True):
        item = onnx.ValueInfoProto()
        item.CopyFrom(found[name])
        item.name = output
        kept.append(item)
        if name in taken:
            model.graph.node.append(onnx.helper.make_node("Identity", [name], [output], name=f"{output}/identity"))
    del model.graph.output[:]
    model.graph.output.extend(kept)


def _set(dim: Any, size: int | None, name: str = BATCH) -> None:
    dim.Clear()
    if size is None:
        dim.dim_param = name
    else:
        dim.dim_value = size


def save_normalised(source: Path, out: Path) -> None:
    """Write a file's graph with all its weights inside and a batch that can be fixed by name."""
    onnx = import_onnx()
    model = load(source)
    normalise(model)
    onnx.save(model, str(out))


def _first(item: ValueInfoProto) -> Any:
    return item.type.tensor_type.shape.dim[0]


def _is_free(item: ValueInfoProto) -> bool:
    return bool(item.type.tensor_type.shape.dim) and not _first(item).HasField("dim_value")


_INTEGER_PRODUCTS = {"ConvInteger", "MatMulInteger", "MatMulIntegerToFloat", "MatMulNBits", "QAttention", "QGemm"}


def is_quantized(path: Path) -> bool:
    """Tell whether a file holds quantized operators or conversions already."""
    kinds = {node.op_type for node in load(path).graph.node}
    return any("uantize" in kind or kind.startswith("QLinear") or kind in _INTEGER_PRODUCTS for kind in kinds)


def as_given(model: Model) -> bool:
    """Tell whether a model's file is quantized already and is to be run as it is.

    Raises:
        Unsupported: It is, and a precision is asked of it.
    """
    wanted = model.precision
    if not is_quantized(model.path):
        return False
    if wanted.name != "float32" and not (wanted.realise == "exact" and wanted.encodings is None):
        raise Unsupported("the file is quantized already; baseline runs it as it is")
    return True


def raw_tensors(path: Path) -> tuple[TensorSpan, ...]:
    """Return the place in the file of every initializer that is stored as raw bytes."""
    return tuple(raw_initializers(path.read_bytes()))


def weight_spans(path: Path) -> tuple[Span, ...]:
    """Return the spans of all weight matrices and kernels, with their output-channel axis, for ``stored_size``."""
    onnx = import_onnx()
    graph = load(path).graph
    axes = _channel_axes(graph)
    spans = []
    for tensor in raw_tensors(path):
        if len(tensor.shape) < 2:
            continue
        dtype = str(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type))
        spans.append(Span(tensor.offset, tensor.length, dtype, tensor.shape, axes.get(tensor.name, 0)))
    return tuple(spans)


def consumers(graph: GraphProto) -> dict[str, list[tuple[NodeProto, int]]]:
    """Return value name -> the nodes that read it, each with the place among its inputs; nodes of nested graphs too."""
    found: dict[str, list[tuple[NodeProto, int]]] = {}
    for node in nested_nodes(graph.node):
        for place, name in enumerate(node.input):
            found.setdefault(name, []).append((node, place))
    return found


def nested_nodes(nodes: Iterable[NodeProto]) -> Iterator[NodeProto]:
    """Yield nodes, each followed by those of the graphs in its attributes."""
    for node in nodes:
        yield node
        for graph in subgraphs(node):
            yield from nested_nodes(graph.node)


def subgraphs(node: NodeProto) -> Iterator[GraphProto]:
    """Yield the graphs in a node's attributes: branches of If, bodies of Loop and Scan."""
    for item in node.attribute:
        if item.HasField("g"):
            yield item.g
        yield from item.graphs


def put_at(model: ModelProto, place: int, fresh: Sequence[NodeProto]) -> None:
    """Insert nodes at a place; nodes that a caller holds stay those of the model, unlike when the list is made anew."""
    for offset, item in enumerate(fresh):
        model.graph.node.insert(place + offset, item)


def drop_unread(model: ModelProto) -> None:
    """Take away the initializers that no node reads, those of nested graphs among the nodes, and no output is."""
    read = {item.name for item in model.graph.output}
    for node in nested_nodes(model.graph.node):
        read.update(node.input)
        read.update(result.name for graph in subgraphs(node) for result in graph.output)
    kept = [item for item in model.graph.initializer if item.name in read]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)


def float_nodes(path: Path, overrides: Mapping[str, str], names: Mapping[str, str]) -> dict[str, str]:
    """Return the nodes that overrides keep in float32, each with its override's parameter, for quantizers to leave out.

    They are nodes of this file. Whoever folds or fuses its nodes first has to find them again.

    Args:
        path: An ONNX file.
        overrides: ``Precision.overrides``, by parameter name.
        names: ``Model.names``.

    Raises:
        Unsupported: An override names no weight of the file, or another dtype than float32, or a node has no name.
    """
    return override_nodes(path, overrides, names)["float32"]


def override_nodes(
    path: Path, overrides: Mapping[str, str], names: Mapping[str, str], *, dtypes: Sequence[str] = ("float32",)
) -> dict[str, dict[str, str]]:
    """Return the nodes that overrides name, by the dtype that they ask for, each with its override's parameter.

    Args:
        path: An ONNX file.
        overrides: ``Precision.overrides``, by parameter name.
        names: ``Model.names``.
        dtypes: What can be asked for; each is a key of the result.

    Raises:
        Unsupported: An override names no weight of the file, or another dtype, or a node has no name.
    """
    found: dict[str, dict[str, str]] = {dtype: {} for dtype in dtypes}
    for parameter, dtype in overrides.items():
        nodes = layer_nodes(path, parameter, names)
        if dtype not in found:
            can = " or ".join(dtypes)
            raise Unsupported(f"override of {parameter!r} asks for {dtype}; this quantized file can give it {can} only")
        if "" in nodes:
            raise Unsupported(f"override of {parameter!r} matches a node without a name, which cannot be told apart")
        found[dtype] |= dict.fromkeys(nodes, parameter)
    return found


def layer_nodes(path: Path, parameter: str, names: Mapping[str, str]) -> list[str]:
    """Return the names of the nodes that read a weight, which may be transposed or reshaped on the way.

    Raises:
        Unsupported: There is none.
    """
    graph = load(path).graph
    nodes = _layers(names.get(parameter, parameter), consumers(graph), _constants(graph))
    if not nodes:
        raise Unsupported(f"override of {parameter!r} matches no weight of the exported model")
    return nodes


def recurrent_nodes(path: Path) -> dict[str, tuple[str, int, str]]:
    """Return the GRU, LSTM and RNN nodes by name: each its operator, hidden size and direction."""
    found = {}
    for node in load(path).graph.node:
        if node.op_type in GATES:
            direction = attribute(node, "direction", b"forward").decode()
            found[node.name] = (node.op_type, int(attribute(node, "hidden_size", 0)), direction)
    return found


def _constants(graph: GraphProto) -> set[str]:
    """Return the values that no input changes: initializers and what is computed from them alone."""
    found = {item.name for item in graph.initializer} | {""}
    for node in graph.node:
        if node.op_type == "Constant" or (node.input and found.issuperset(node.input)):
            found.update(node.output)
    return found


def _layers(value: str, readers: Mapping[str, list[tuple[NodeProto, int]]], constants: Collection[str]) -> list[str]:
    """Return the nodes that read a weight, looking through those that only transpose or reshape it."""
    nodes: list[str] = []
    for node, _place in readers.get(value, []):
        folded = node.output[0] in constants
        nodes += _layers(node.output[0], readers, constants) if folded else [node.name]
    return nodes


def _channel_axes(graph: GraphProto) -> dict[str, int]:
    readers = consumers(graph)
    axes: dict[str, int] = {}
    for item in graph.initializer:
        for node, place in readers.get(item.name, []):
            axis = _axis_at(node, place)
            if axis is None and node.op_type == "DequantizeLinear" and place == 0:
                inner = (_axis_at(*reader) for reader in readers.get(node.output[0], []))
                axis = next((found for found in inner if found is not None), None)
            if axis is not None and -len(item.dims) <= axis < len(item.dims):
                axes.setdefault(item.name, axis)
    return axes


def _axis_at(node: NodeProto, place: int) -> int | None:
    """Return the axis of a weight's output channels, where the node reads a weight at this place."""
    if place == 0:
        return None
    if node.op_type == "Gemm" and place == 1:
        return 0 if attribute(node, "transB", 0) else 1
    return _WEIGHT_AXIS.get(node.op_type)


def attribute(node: NodeProto, name: str, default: Any) -> Any:
    """Return an attribute's value, or the default of the operator."""
    onnx = import_onnx()
    for item in node.attribute:
        if item.name == name:
            return onnx.helper.get_attribute_value(item)
    return default


def macs_by_node(path: Path, *, batch: int = 1) -> dict[str, int]:
    """Return the multiply-accumulates of every node that has some, by node name, for one run at ``batch``.

    Counted are Conv, ConvTranspose, Gemm, MatMul, their Integer forms, GRU, LSTM and RNN; a bias counts nothing. Nodes
    whose shapes cannot be inferred are left out.
    """
    onnx = import_onnx()
    model = load(path)
    normalise(model)
    for item in [*model.graph.input, *model.graph.output]:
        if _is_free(item):
            _first(item).dim_value = batch
    graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    shapes = tensor_shapes(graph)
    counted = ((node.name, node_macs(node, shapes)) for node in graph.node)
    return {name: macs for name, macs in counted if macs is not None}


def tensor_shapes(graph: GraphProto) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a graph's tensors that are known in full, by name."""
    shapes = {item.name: tuple(item.dims) for item in graph.initializer}
    for item in [*graph.input, *graph.output, *graph.value_info]:
        dims = item.type.tensor_type.shape.dim
        if item.type.HasField("tensor_type") and all(dim.HasField("dim_value") for dim in dims):
            shapes[item.name] = tuple(dim.dim_value for dim in dims)
    return shapes


def node_macs(node: NodeProto, shapes: Mapping[str, tuple[int, ...]]) -> int | None:
    """Return the multiply-accumulates of one node, ``None`` where it has none or its shapes are not known."""
    inputs = [shapes.get(name, ()) for name in node.input]
    output = shapes.get(node.output[0], ())
    if node.op_type in GATES and inputs[0] and inputs[1]:
        steps, batch, features = inputs[0]  # with layout 1 the first two change places; the product is the same
        hidden = inputs[1][1] // GATES[node.op_type]
        return steps * batch * inputs[1][0] * inputs[1][1] * (features + hidden)
    if node.op_type in {"Conv", "ConvInteger"} and output and inputs[1]:
        return math.prod(output) * math.prod(inputs[1][1:])
    if node.op_type == "QLinearConv" and output and len(inputs) > 3 and inputs[3]:
        return math.prod(output) * math.prod(inputs[3][1:])
    if node.op_type in {"QLinearMatMul", "QGemm"} and output and len(inputs) > 3 and inputs[3]:
        return math.prod(output) * inputs[3][-1 if attribute(node, "transB", 0) else -2]
    if node.op_type == "ConvTranspose" and inputs[0] and inputs[1]:
        return math.prod(inputs[0]) * math.prod(inputs[1][1:])
    if node.op_type in {"Gemm", "MatMul", "MatMulInteger"} and output and (inputs[0] or inputs[1]):
        if inputs[1]:
            inner = inputs[1][-1 if attribute(node, "transB", 0) or len(inputs[1]) == 1 else -2]
        else:
            inner = inputs[0][-2 if attribute(node, "transA", 0) else -1]
        return math.prod(output) * inner
    return None
