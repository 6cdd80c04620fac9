"""Read a user's file into an OpenVINO graph, or say in one sentence, in the file's own words, why that cannot be."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.api import Model, Unsupported
from harness_openvino.probe import import_openvino

_MAY_BE_LEFT = "run it on another target, or replace the operator in the file"
_PLACES = re.compile(r"^(Check '|Exception from |FrontEnd API failed|While validating |Summary:|\[ONNX Frontend\])")
_PEEPHOLES = 7  # the place of P among the inputs of ONNX's LSTM
_INTEGERS = {"i4", "u4", "i8", "u8"}


def read(model: Model) -> Any:
    """Return the graph of an .onnx or .tflite file; what the file computes in float64 is computed in float32.

    Raises:
        Unsupported: OpenVINO has no kernel for one of its operators, or would compute something else than it says.
    """
    openvino = import_openvino()
    if model.format == "onnx":
        _refuse_misread(model.path)
    try:
        graph = openvino.convert_model(str(model.path))
    except Exception as error:  # the frontends raise classes of their own, without a common base
        raise _refusal(str(error), model) from error
    if model.format == "tflite":
        _sign(graph, model.path)
    return _single(graph, openvino)


def _sign(graph: Any, path: Path) -> None:
    """Name ports as the only signature of a .tflite file does, which OpenVINO does not read."""
    from ai_edge_litert import schema_py_generated as schema

    file = schema.Model.GetRootAs(path.read_bytes())
    if file.SignatureDefsLength() != 1:
        return
    signature, subgraph = file.SignatureDefs(0), file.Subgraphs(0)
    entries = [signature.Inputs(place) for place in range(signature.InputsLength())]
    entries += [signature.Outputs(place) for place in range(signature.OutputsLength())]
    names = {subgraph.Tensors(entry.TensorIndex()).Name().decode(): entry.Name().decode() for entry in entries}
    for port in (*graph.inputs, *graph.outputs):
        given = {names[name] for name in port.get_names() if name in names}
        port.get_tensor().set_names(given or port.get_names())


def told(text: str) -> str:
    """Return what a message of OpenVINO's says, without the places in its sources, in one line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    kept = [line for line in lines if not _PLACES.match(line)] or lines[-1:] or ["no reason is given"]
    return kept[0].rstrip(".")


def unfold(graph: Any) -> None:
    """Store as float32, in place, the constants that a graph stores as float16 and converts."""
    for node in list(graph.get_ordered_ops()):
        if node.get_type_name() == "Convert" and node.get_output_element_type(0).to_string() == "f32":
            source = node.input_value(0).get_node()
            if source.get_type_name() == "Constant" and source.get_output_element_type(0).to_string() == "f16":
                _replace(node, source.data, source.get_friendly_name())


def is_quantized(graph: Any) -> bool:
    """Tell whether a graph holds quantizers, or stored integers that are turned into floats."""
    return any(node.get_type_name() == "FakeQuantize" or _is_packed(node) for node in graph.get_ordered_ops())


def _is_packed(node: Any) -> bool:
    if node.get_type_name() != "Convert" or node.get_output_element_type(0).to_string() not in {"f32", "f16"}:
        return False
    source = node.input_value(0)
    kept = source.get_node().get_type_name() == "Constant" and len(source.get_partial_shape()) > 1
    return kept and source.get_element_type().to_string() in _INTEGERS


def _refusal(text: str, model: Model) -> Unsupported:
    """Say why a file cannot be read, with the names that the user knows."""
    if found := re.search(r"Unsupported value_info type: (\S+)", text):
        why = f"openvino takes and gives tensors only, and {found[1]!r} is a sequence or a map"
        return Unsupported(why, hint="export without it: skl2onnx has options={'zipmap': False}")
    if "util::Sequence" in text:
        return Unsupported("openvino has no sequences of tensors", hint="give the tensors as outputs, one by one")
    if found := re.search(r"No conversion rule found for operations: ([^\n]+)", text):
        kinds = [re.sub(r"-\d+$", "", kind.strip()) for kind in found[1].split(",")]
        return Unsupported(f"openvino has no kernel for {_listed(kinds, model)}", hint=_MAY_BE_LEFT)
    if found := re.search(r"No translator found for (\S+) node", text):
        return Unsupported(f"openvino has no kernel for {found[1]}, which {model.path.name} uses", hint=_MAY_BE_LEFT)
    if found := re.search(r"Unexpected type: (\S+)", text):
        kept = " (a variable that keeps its value between calls)" if found[1] == "RESOURCE" else ""
        return Unsupported(f"openvino reads no tensors of type {found[1]}{kept} from .tflite files", hint=_MAY_BE_LEFT)
    if found := re.search(r"ONNX node '<Node\((\w+)\): ([^>]*)>", text):
        kind, outputs = found[1], found[2].split(", ")
        names = [node.name for node in file_nodes(model.path) if outputs[0] in node.output and node.name]
        return Unsupported(f"openvino cannot take {kind} (node {[*names, outputs[0]][0]!r}): {_last(text)}")
    return Unsupported(f"openvino cannot read {model.path.name}: {told(text)}", hint=_MAY_BE_LEFT)


def _last(text: str) -> str:
    """Return the sentence that a conversion ends on, in front of the summary."""
    before = text.partition("Summary:")[0]
    return [line.strip() for line in before.splitlines() if line.strip()][-1].rstrip(".")


def _listed(kinds: list[str], model: Model) -> str:
    """Return kinds of operators, each with the first of its nodes in the file."""
    names = dict.fromkeys(kinds, "")
    if model.format == "onnx":
        for node in file_nodes(model.path):
            kind = f"{node.domain}.{node.op_type}" if node.domain not in {"", "ai.onnx"} else node.op_type
            if kind in names and not names[kind]:
                names[kind] = f" (node {node.name or node.output[0]!r})"
    return ", ".join(f"{kind}{place}" for kind, place in names.items())


def file_nodes(path: Path) -> Iterator[Any]:
    """Yield the nodes of an ONNX file, those of its subgraphs too."""
    import onnx

    waiting = [onnx.load(str(path), load_external_data=False).graph]
    while waiting:
        graph = waiting.pop()
        for node in graph.node:
            yield node
            waiting += [item.g for item in node.attribute if item.HasField("g")]


def weights(model: Model, graph: Any) -> Iterator[tuple[str, Any]]:
    """Yield name and values of a model's floating-point weights: as the ONNX file has them, else as the graph has."""
    if model.format == "onnx":
        import onnx

        stored = onnx.load(str(model.path)).graph.initializer
        floats = {onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE}
        yield from ((item.name, onnx.numpy_helper.to_array(item)) for item in stored if item.data_type in floats)
        return
    for node in graph.get_ordered_ops():
        if node.get_type_name() == "Constant" and node.get_output_element_type(0).to_string() in {"f32", "f16"}:
            yield node.get_friendly_name(), node.data


def _refuse_misread(path: Path) -> None:
    """Refuse what OpenVINO (2026.4) reads without complaint and computes differently.

    Raises:
        Unsupported: A recurrent operator has its batch in front, peepholes, or coupled gates.
    """
    for node in file_nodes(path):
        if node.op_type not in {"RNN", "GRU", "LSTM"}:
            continue
        asked = {item.name: item.i for item in node.attribute}
        peepholes = len(node.input) > _PEEPHOLES and bool(node.input[_PEEPHOLES])
        odd = {
            "layout 1": asked.get("layout", 0) == 1,
            "peepholes": node.op_type == "LSTM" and peepholes,
            "input_forget 1": asked.get("input_forget", 0) == 1,
        }
        for what in (name for name, there in odd.items() if there):
            why = f"openvino has no kernel for {node.op_type} with {what} (node {node.name or node.output[0]!r})"
            raise Unsupported(why, hint=_MAY_BE_LEFT)


def _single(graph: Any, openvino: Any) -> Any:
    """Compute in float32 what a graph computes in float64, for which the CPU has few kernels; its border too."""
    inside = [node for node in graph.get_ordered_ops() if _is_double(node, openvino.Type.f64)]
    for node in inside:
        _narrow(node, openvino)
    if inside:
        graph.validate_nodes_and_infer_types()
    return graph


def _is_double(node: Any, double: Any) -> bool:
    kind = node.get_type_name()
    return kind in {"Parameter", "Constant", "Convert"} and bool(node.get_output_element_type(0) == double)


def _narrow(node: Any, openvino: Any) -> None:
    from openvino import opset13 as ops

    if node.get_type_name() == "Parameter":
        node.set_element_type(openvino.Type.f32)
        return
    if node.get_type_name() == "Constant":
        _replace(node, node.data, node.get_friendly_name())
    else:
        _take_place(ops.convert(node.input_value(0), "f32"), node, node.get_friendly_name())


def _replace(node: Any, values: Any, name: str) -> None:
    import numpy as np
    from openvino import opset13 as ops

    _take_place(ops.constant(np.asarray(values, np.float32)), node, name)


def _take_place(other: Any, node: Any, name: str) -> None:
    other.set_friendly_name(name)
    names = node.output(0).get_names()
    for reader in node.output(0).get_target_inputs():
        reader.replace_source_output(other.output(0))
    other.output(0).get_tensor().set_names(names)
