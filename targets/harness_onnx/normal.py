"""Read a foreign ONNX file into the form that every quantizer and runtime here knows.

The work is that of kept libraries: ONNX's inliner and version converter, the passes of onnx-ir, and the constant folder
of onnxscript. What they lack stands below. Names of inputs, outputs, nodes and weights stay those of the user's file,
so that overrides and refusals speak of his layers.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.api import BadModel
from harness_onnx.agreement import difference
from harness_onnx.einsum import einsums_as_products
from harness_onnx.graph import BATCH, GATES, attribute, consumers, drop_unread, import_onnx, load, nested_nodes, put_at
from harness_onnx.quantize import quiet
from harness_onnx.validity import one_line

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from onnx import GraphProto, ModelProto, NodeProto

    Feed = Mapping[str, NDArray[Any]]

OLDEST = 13  # operator set: quantize and dequantize per channel; below it runtimes read files that no tool can change
NEWEST = 26  # that the quantizers and runtimes of today read
AS_GIVEN = "as_given"  # flag of a file that is used as it came
_IR_OLDEST, _IR_NEWEST = 8, 13  # of those operator sets; below 4 every weight had to be listed as an input
_FOLDED = {"Cast", "Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"}  # the result is no larger
_FOLD_AT_MOST = 2**16  # numbers that another operator on constants may give
_LAYERS = {"Conv", "ConvTranspose", "Gemm", "MatMul", "LSTM", "GRU", "RNN"}


def normal_form(source: Path, out: Path, feeds: Sequence[Feed]) -> tuple[tuple[str, ...], str]:
    """Write the normal form of a file, or the file as it came where that cannot be had.

    In it local functions are inlined; constants, and what is computed from them alone, are initializers (quantized
    weights stay behind their DequantizeLinear); weights of nested graphs and inputs that are really weights are
    initializers of the main graph; every node has a name; recurrent layers are time-major; biases of shape [1, N] are
    [N]; the operator set is one that the quantizers know.

    Args:
        source: The user's file; external data lies beside it.
        out: The file to write, with all weights inside.
        feeds: Inputs of calls; both files must agree on the first that the file takes as it came. Without any, nothing
            is compared.

    Returns:
        Flags for the model, and why the file is used as it came where it is, else "".

    Raises:
        BadModel: The file is older than what can be run as it is, and cannot be converted.
    """
    onnx = import_onnx()
    given = load(source)
    flags = ("synthetic_weights",) if has_made_weights(given) else ()
    given = brought_up_to_date(given, source)
    onnx.save_model(given, str(out), save_as_external_data=False)
    why, tried = "", out.with_suffix(".normal.onnx")
    try:
        with quiet():
            onnx.save_model(normalised(given), str(tried), save_as_external_data=False)
    except Exception as error:  # noqa: BLE001  a pass may raise anything on a file that nobody foresaw
        why = f"it cannot be read into the normal form ({type(error).__name__}: {one_line(error)})"
    else:
        why = difference(out, tried, feeds) if feeds else ""
        if not why:
            shutil.move(tried, out)
    tried.unlink(missing_ok=True)
    return (*flags, *((AS_GIVEN,) if why else ())), why


def brought_up_to_date(model: ModelProto, path: Path) -> ModelProto:
    """Return a model of an operator set that is in use, whose inputs are inputs and whose nodes have names.

    Raises:
        BadModel: An operator has no conversion, or the result is not valid; ``path`` is told.
    """
    onnx = import_onnx()
    before = _opset(model)
    model = _at_known_opset(model, path)
    listed = {item.name for item in model.graph.initializer} & {item.name for item in model.graph.input}
    inputs = [item for item in model.graph.input if item.name not in listed]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    _free_dimensions(model)
    _dense(model)
    model.ir_version = min(max(model.ir_version, _IR_OLDEST), max(_IR_NEWEST, _needed_ir(model)))
    name_nodes(model.graph)
    if before < OLDEST:
        try:
            onnx.checker.check_model(model, full_check=True)
        except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
            what = f"converted from opset {before} to {_opset(model)}"
            raise BadModel(f"model file {path}, {what}, is not valid: {one_line(error)}") from error
    return model


def _free_dimensions(model: ModelProto) -> None:
    """Name dimensions of 0 or less, by which old exporters mean a free one; runtimes take them for lengths."""
    for item in [*model.graph.input, *model.graph.output]:
        for place, size in enumerate(item.type.tensor_type.shape.dim):
            if size.HasField("dim_value") and size.dim_value <= 0:
                size.dim_param = BATCH if place == 0 else f"{item.name}_{place}"


def _dense(model: ModelProto) -> None:
    """Turn sparse initializers into dense ones: few tools read them."""
    import numpy as np

    onnx = import_onnx()
    for item in model.graph.sparse_initializer:
        values, places = (onnx.numpy_helper.to_array(part) for part in (item.values, item.indices))
        full = np.zeros(tuple(item.dims), values.dtype)
        if places.ndim == 1:
            full.reshape(-1)[places] = values
        else:
            full[tuple(places.T)] = values
        model.graph.initializer.append(onnx.numpy_helper.from_array(full, item.values.name))
    del model.graph.sparse_initializer[:]


def name_nodes(graph: GraphProto) -> None:
    """Give every node that has no name one of its operator and its place, and part those of one name."""
    taken = {node.name for node in nested_nodes(graph.node)}
    seen: set[str] = set()
    for number, node in enumerate(nested_nodes(graph.node)):
        if node.name and node.name not in seen:
            seen.add(node.name)
            continue
        stem = node.name or f"{node.op_type}_{number}"
        name, count = stem, 0
        while name in seen or (name in taken and name != node.name) or name == node.name:
            count += 1
            name = f"{stem}_{count}"
        node.name = name
        seen.add(name)


def normalised(model: ModelProto) -> ModelProto:
    """Return a model in the normal form; nothing is compared.

    Raises:
        Exception: A library's, on a file that it cannot read.
    """
    import onnx.inliner

    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
        name_nodes(model.graph)
    model = _folded(model)
    einsums_as_products(model)
    _time_major(model)
    _start_at_zero(model)
    _flatten_biases(model)
    return model


def _folded(model: ModelProto) -> ModelProto:
    """Run the libraries' passes: constants become initializers, and so does what is computed from them alone."""
    import onnx_ir
    from onnx_ir.passes import common
    from onnxscript.optimizer import constant_folding

    lift = common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)
    fold = constant_folding.FoldConstantsPass(
        shape_inference=True, input_size_limit=_FOLD_AT_MOST, output_size_limit=_FOLD_AT_MOST, should_fold=_worth_it
    )
    steps = (
        common.NameFixPass(), lift, common.LiftSubgraphInitializersToMainGraphPass(), fold, lift,
        common.RemoveUnusedNodesPass(), common.RemoveInitializersFromInputsPass(), common.TopologicalSortPass(),
    )  # fmt: skip
    graph = onnx_ir.from_proto(model)
    for step in steps:
        step(graph)
    folded: ModelProto = onnx_ir.to_proto(graph)
    del folded.graph.value_info[:]
    for node in nested_nodes(folded.graph.node):
        del node.metadata_props[:]  # notes of the folder
    return folded


def _worth_it(node: Any) -> bool | None:
    """Tell the folder to fold what moves or converts a weight that nothing else reads, however large it is.

    A weight that others read too would then lie in the file twice: an embedding and the head that shares it.
    """
    if node.domain not in {"", "ai.onnx"} or node.op_type not in _FOLDED:
        return None
    large = [item for item in node.inputs if item is not None and item.const_value is not None]
    return True if all(item.const_value.size <= _FOLD_AT_MOST or len(item.uses()) == 1 for item in large) else None


def _time_major(model: ModelProto) -> None:
    """Turn batch-major recurrent nodes (layout 1) into time-major ones: few kernels know layout 1."""
    for node in [node for node in model.graph.node if node.op_type in GATES and attribute(node, "layout", 0) == 1]:
        place = list(model.graph.node).index(node)
        before, after = [], []
        for position in (0, 5, 6):  # X, initial_h, initial_c
            if position < len(node.input) and node.input[position]:
                turned = f"{node.name}/time_major_{position}"
                before.append(_transpose(node.input[position], turned, [1, 0, 2], f"{turned}/transpose"))
                node.input[position] = turned
        for position, order in enumerate(([2, 0, 1, 3], [1, 0, 2], [1, 0, 2])[: len(node.output)]):  # Y, Y_h, Y_c
            if node.output[position]:
                made = f"{node.name}/made_{position}"
                after.append(_transpose(made, node.output[position], order, f"{made}/transpose"))
                node.output[position] = made
        kept = [item for item in node.attribute if item.name != "layout"]
        del node.attribute[:]
        node.attribute.extend(kept)
        put_at(model, place + 1, after)
        put_at(model, place, before)


def _start_at_zero(model: ModelProto) -> None:
    """Leave out initial states that are zeros: an absent one is zero, and fits any batch."""
    import numpy as np

    onnx = import_onnx()
    stored = {item.name: item for item in model.graph.initializer}
    for node in model.graph.node:
        for place in (5, 6) if node.op_type in GATES else ():
            item = stored.get(node.input[place]) if place < len(node.input) else None
            if item is not None and not np.any(onnx.numpy_helper.to_array(item)):
                node.input[place] = ""
    drop_unread(model)


def _transpose(source: str, out: str, order: list[int], name: str) -> NodeProto:
    made: NodeProto = import_onnx().helper.make_node("Transpose", [source], [out], name=name, perm=order)
    return made


def _flatten_biases(model: ModelProto) -> None:
    """Give biases of shape [1, …, N] behind a product the shape [N].

    ONNX Runtime fuses MatMul and Add into a Gemm, and its quantizer takes a Gemm's bias for a vector.
    """
    onnx = import_onnx()
    stored = {item.name: item for item in model.graph.initializer}
    readers, ranks = consumers(model.graph), _ranks(model)
    products = {node.output[0] for node in model.graph.node if node.op_type in {"MatMul", "Gemm"}}
    for node in model.graph.node:
        if node.op_type == "Gemm" and len(node.input) > 2:
            bias, rank = node.input[2], 2
        elif node.op_type == "Add" and products.intersection(node.input):
            bias = next((name for name in node.input if name in stored), "")
            rank = max(ranks.get(name, 0) for name in node.input if name in products)
        else:
            continue
        item = stored.get(bias)
        if item is None or not 1 < len(item.dims) <= rank or any(size != 1 for size in item.dims[:-1]):
            continue
        if len(readers[bias]) == 1:
            value = onnx.numpy_helper.to_array(item).reshape(-1)
            item.CopyFrom(onnx.numpy_helper.from_array(value, item.name))


def _ranks(model: ModelProto) -> dict[str, int]:
    """Return the number of dimensions of every tensor in which shape inference finds it."""
    graph = import_onnx().shape_inference.infer_shapes(model).graph
    return {
        item.name: len(item.type.tensor_type.shape.dim)
        for item in [*graph.value_info, *graph.output]
        if item.type.tensor_type.HasField("shape")
    }


def has_made_weights(model: ModelProto) -> bool:
    """Tell whether weights of layers come of ConstantOfShape nodes: such a graph has a shape and no training."""
    made = {name for node in model.graph.node if node.op_type == "ConstantOfShape" for name in node.output}
    return any(made.intersection(node.input[1:2]) for node in model.graph.node if node.op_type in _LAYERS)


def _opset(model: ModelProto) -> int:
    return int(next((item.version for item in model.opset_import if item.domain in {"", "ai.onnx"}), OLDEST))


def _needed_ir(model: ModelProto) -> int:
    """Return the least IR version that holds a model's operator sets."""
    onnx = import_onnx()
    try:
        return int(onnx.helper.find_min_ir_version_for(list(model.opset_import)))
    except ValueError:  # an operator set that this onnx does not know
        return int(model.ir_version)


def _at_known_opset(model: ModelProto, path: Path) -> ModelProto:
    import onnx.version_converter

    before = _opset(model)
    if before < OLDEST:
        try:
            return onnx.version_converter.convert_version(model, OLDEST)
        except Exception as error:  # the converter is C++ and raises RuntimeError, IndexError and its own classes
            what = f"has opset {before}, and onnx cannot convert it to {OLDEST}"
            raise BadModel(f"model file {path} {what}: {one_line(error)}") from error
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    if before > NEWEST:
        _lower_opset(copy)
    return copy


def _lower_opset(model: ModelProto) -> None:
    """Declare an older operator set where none of the operators has changed since; else leave the model as it is."""
    onnx = import_onnx()
    version = _opset(model)
    try:
        since = [
            onnx.defs.get_schema(node.op_type, version, "").since_version
            for node in nested_nodes(model.graph.node)
            if node.domain in {"", "ai.onnx"}
        ]
    except onnx.defs.SchemaError:
        return
    if max(since, default=0) <= NEWEST:
        for item in model.opset_import:
            if item.domain in {"", "ai.onnx"}:
                item.version = NEWEST
