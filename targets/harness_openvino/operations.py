"""Which operations of an OpenVINO graph the parameters of a model stand for."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from harness.api import Model, Unsupported
from harness_onnx import Range, float_nodes, read_encodings, recurrent_nodes
from harness_openvino.reading import file_nodes

MULTIPLIERS = frozenset({
    "Convolution", "GroupConvolution", "ConvolutionBackpropData", "GroupConvolutionBackpropData", "MatMul",
})  # fmt: skip
_NO_LAYERS = {"Add", "Constant", "Reshape"}  # what is left by a layer's name when the layer itself took another


def operations(graph: Any, path: Path, nodes: Mapping[str, str]) -> tuple[str, ...]:
    """Return the operations made from nodes of the ONNX file, which stand with the parameters that named them.

    Converting may append to a node's name. A recurrent node's is lost: it is found by kind, size and direction.

    Raises:
        Unsupported: A name is left without a layer, since converting fused it under another name; or only some of
            several recurrent layers of one size are meant.
    """
    if not nodes:
        return ()
    kinds = {item.get_friendly_name(): item.get_type_name() for item in graph.get_ordered_ops()}
    recurrent = recurrent_nodes(path)
    given = {node.name: tuple(node.output) for node in file_nodes(path)}
    found: list[str] = []
    for node, parameter in nodes.items():
        if node in recurrent:
            names = _sequences(graph, *recurrent[node])
            alike = {other for other, facts in recurrent.items() if facts == recurrent[node]}
            if names and not (alike <= set(nodes) and len(alike) == len(names)):
                why = "openvino's graph has several recurrent layers of its size, which cannot be told apart"
                raise Unsupported(f"override of {parameter!r}: {why}")
        else:
            names = [name for name in kinds if name == node or name.startswith(f"{node}/")]
            names = names if _is_layer(names, kinds) else [*names, *_renamed(graph, names, given.get(node, ()))]
        if not _is_layer(names, kinds):
            why = "openvino's graph has no convolution, matrix product or recurrent layer that reads this weight"
            raise Unsupported(f"override of {parameter!r}: {why}")
        found += names
    return tuple(dict.fromkeys(found))


def _is_layer(names: list[str], kinds: Mapping[str, str]) -> bool:
    return any(kinds[name] not in _NO_LAYERS for name in names)


def _renamed(graph: Any, names: list[str], outputs: Collection[str]) -> list[str]:
    """Return layers that converting gave another name than their node's.

    It may leave the node's name to the sum that adds the bias, and name what gives an output of the model after that.
    """
    found = []
    for item in graph.get_ordered_ops():
        tensors = item.output(0).get_names() if item.get_output_size() else set()
        if item.get_friendly_name() not in names and tensors.isdisjoint(outputs):
            continue
        sources = [item, *(port.get_node() for port in item.input_values() if item.get_type_name() == "Add")]
        found += [node.get_friendly_name() for node in sources if node.get_type_name() in MULTIPLIERS]
    return found


def _sequences(graph: Any, kind: str, hidden: int, direction: str) -> list[str]:
    """Return the names of the recurrent operations with these attributes of an ONNX node."""
    found = []
    for item in graph.get_ordered_ops():
        if item.get_type_name() == f"{kind}Sequence":
            facts = item.get_attributes()
            if (facts["hidden_size"], facts["direction"]) == (hidden, direction):
                found.append(item.get_friendly_name())
    return found


def kept_float(graph: Any, model: Model) -> tuple[str, ...]:
    """Return the operations of the graph that overrides keep float."""
    return operations(graph, model.path, float_nodes(model.path, model.precision.overrides, model.names))


def bound_inputs(graph: Any, model: Model) -> dict[str, dict[str, Range]]:
    """Return the input ranges that encodings give: by parameter, and by the friendly name of each of its layers.

    A parameter has no layer here where converting left none.
    """
    wanted = model.precision
    if wanted.realise != "exact" or wanted.encodings is None:
        return {}
    return {
        parameter: dict.fromkeys(_layers(graph, model, parameter), bounds)
        for parameter, bounds in read_encodings(wanted.encodings).items()
    }


def _layers(graph: Any, model: Model, parameter: str) -> tuple[str, ...]:
    try:
        return operations(graph, model.path, float_nodes(model.path, {parameter: "float32"}, model.names))
    except Unsupported:
        return ()


def ignored_scope(nncf: Any, names: tuple[str, ...], kinds: tuple[str, ...] = ()) -> Any:
    """Return NNCF's scope of the operations, by name or kind, that it is to leave alone; ``None`` for none.

    A kind that the graph has not is no error.
    """
    return nncf.IgnoredScope(names=list(names), types=list(kinds), validate=not kinds) if names or kinds else None
