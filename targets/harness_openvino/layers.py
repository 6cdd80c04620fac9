"""What each operator of an IR gives: the model is compiled again with its tensors as further outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.api import LayerOutput

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Arrays = Mapping[str, NDArray[Any]]
    Port = tuple[str, int]  # friendly name of an operation, which of its outputs

FLOATS = frozenset({"f32", "f16", "f64"})
_NOT_RUN = frozenset({"Const", "Input", "Output"})
_UNBIASED = ("/WithoutBiases", "/WithoutBiases/scaled", "/WithoutBiases/scale")  # what the converter adds a bias to


class Layers:
    """A second compilation of a model, with its operators' outputs.

    Args:
        compile_model: Compiles a model as the cell's session did: same device, same settings.
        model: What that session compiled; it stays as it is.
        runtime: What that session runs: ``CompiledModel.get_runtime_model``.
    """

    def __init__(self, compile_model: Callable[[Any], Any], model: Any, runtime: Any) -> None:
        grown = model.clone()
        made = outputs_of(grown, runtime)
        ports = {
            (node.get_friendly_name(), port.get_index()): port for node in grown.get_ops() for port in node.outputs()
        }
        known = set(_results(grown))
        grown.add_outputs([ports[at] for at, _op in made.values() if at not in known])
        places = {at: place for place, at in enumerate(_results(grown))}
        self._wanted = [(name, op, places[at]) for name, (at, op) in made.items()]
        self._request: Any = compile_model(grown).create_infer_request()

    def run(self, inputs: Arrays) -> Iterator[LayerOutput]:
        """Yield what each operator gives, in the order of the graph."""
        results = self._request.infer(dict(inputs), share_inputs=True)
        for name, op, place in self._wanted:
            yield LayerOutput(name, op, results[place])


def _results(model: Any) -> list[Port]:
    sources = (result.input_value(0) for result in model.get_results())
    return [(source.get_node().get_friendly_name(), source.get_index()) for source in sources]


def outputs_of(model: Any, runtime: Any) -> dict[str, tuple[Port, str]]:
    """Return name in the float file -> where its values are in this model, and the operator that made them.

    A tensor within a kernel, such as a convolution's before the ReLU that it is fused with, is left out: as an output
    it would keep the two from being fused. A quantized tensor is read behind its FakeQuantize, where the next operator
    reads it; before, it exists in the file alone, as the integer kernels hold both operators.

    Args:
        model: An ``openvino.Model``.
        runtime: Its compilation's runtime model, which tells what was fused.
    """
    kernels = _kernels(runtime)
    readers = _readers(model, set().union(*kernels))
    reached: set[str] = set()
    found: dict[str, tuple[Port, str]] = {}
    quantized: set[str] = set()
    for node in model.get_ordered_ops():
        name, kind = node.get_friendly_name(), node.get_type_name()
        if kind != "Parameter" and reached.isdisjoint(
            port.get_node().get_friendly_name() for port in node.input_values()
        ):
            continue
        reached.add(name)
        within = set().union(*(kernel for kernel in kernels if name in kernel))
        if kind in {"Parameter", "Result"} or not within:
            continue
        for port in node.outputs():
            if port.get_element_type().to_string() not in FLOATS or readers(port) <= within:
                continue
            source = node.input_value(0) if _is_grid(node) else port
            maker = source.get_node()
            for tensor in sorted(source.get_names())[:1]:
                if maker.get_type_name() == "Parameter" or tensor in quantized:
                    continue  # no operator's; another reader's grid
                if source is not port:
                    quantized.add(tensor)
                found[tensor] = ((name, port.get_index()), _op(maker))
    return found


def _kernels(runtime: Any) -> list[set[str]]:
    """Return for each operation that runs the names of those that were fused into it."""
    found = []
    for node in runtime.get_ordered_ops():
        info = node.get_rt_info()
        if str(info["layerType"].astype(str)) not in _NOT_RUN:
            names = str(info["originalLayersNames"].astype(str)) if "originalLayersNames" in info else ""
            found.append({node.get_friendly_name(), *names.split(",")} - {""})
    return found


def _readers(model: Any, named: set[str]) -> Callable[[Any], set[str]]:
    """Return a function from a port to the operations that read it, through those that no kernel names."""
    seen: dict[str, set[str]] = {}

    def readers(port: Any) -> set[str]:
        return set().union(*(seen[end.get_node().get_friendly_name()] for end in port.get_target_inputs()))

    for node in reversed(model.get_ordered_ops()):
        name = node.get_friendly_name()
        runs = name in named or node.get_type_name() == "Result"
        seen[name] = {name} if runs else set().union(*map(readers, node.outputs()))
    return readers


def _is_grid(node: Any) -> bool:
    """Tell whether an operation rounds and clips and leaves the scale: one that gives signs, or integers, does not."""
    if node.get_type_name() != "FakeQuantize":
        return False
    bounds = [node.input_value(place).get_node() for place in range(1, 5)]
    if any(bound.get_type_name() != "Constant" for bound in bounds):
        return False
    low, high, out_low, out_high = (np.asarray(bound.data, np.float64) for bound in bounds)
    return bool(np.allclose(low, out_low) and np.allclose(high, out_high))


def _op(node: Any) -> str:
    """Return the type of an operator, that of the product where its bias or its scale stands behind it."""
    name, kind = node.get_friendly_name(), str(node.get_type_name())
    for port in node.input_values() if kind in {"Add", "Multiply"} else ():
        source = port.get_node()
        before = source.get_friendly_name()
        if before.endswith(_UNBIASED) or name in {f"{before}/scaled", f"{before}/scale"}:
            return _op(source)
    return kind
