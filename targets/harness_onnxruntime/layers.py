"""What each operator of a file gives: the graph runs with its intermediate tensors as further outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.api import LayerOutput, Unsupported

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from onnx import GraphProto, NodeProto

    Arrays = Mapping[str, NDArray[Any]]

FLOATS = frozenset({"tensor(float)", "tensor(float16)", "tensor(double)"})
_BEFORE = "_QuantizeLinear_Input"  # how quantize_static renames an output of the graph before it quantizes it


class Layers:
    """A second session of a file, with its operators' outputs.

    Args:
        path: An ONNX file.
        create: Makes a session of a file's bytes, with the optimizations and kernels of the one that the cell runs in.

    Raises:
        Unsupported: The file is none whose graph can be given outputs.
    """

    def __init__(self, path: Path, create: Callable[[bytes], Any]) -> None:
        import onnx

        if path.suffix != ".onnx":
            raise Unsupported(f"the graph of an {path.suffix.removeprefix('.').upper()} file takes no further outputs")
        model = onnx.load(str(path))
        known = {item.name for item in model.graph.output}
        self._made = outputs_of(model.graph)
        tensors = {tensor for tensor, _op in self._made.values()}
        model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in sorted(tensors - known))
        self._session = create(model.SerializeToString())
        held = {item.name for item in self._session.get_outputs() if item.type in FLOATS}
        self._wanted = [(name, *found) for name, found in self._made.items() if found[0] in held]

    def run(self, inputs: Arrays) -> Iterator[LayerOutput]:
        """Yield what each operator gives, in the order of the graph."""
        values = self._session.run([tensor for _name, tensor, _op in self._wanted], dict(inputs))
        for (name, _tensor, op), array in zip(self._wanted, values, strict=True):
            yield LayerOutput(name, op, array)


def outputs_of(graph: GraphProto) -> dict[str, tuple[str, str]]:
    """Return name in the float file -> tensor of this file, and the operator that made it.

    A quantized tensor is read where the next operator reads it, after DequantizeLinear: before QuantizeLinear it exists
    in the file alone, as the runtime's integer kernels hold both operators. What no input reaches is left out.
    """
    weights = {item.name for item in graph.initializer}
    reached = {item.name for item in graph.input} - weights
    makers: dict[str, NodeProto] = {}
    found: dict[str, tuple[str, str]] = {}
    for node in _running_order(graph):
        if not reached.intersection(node.input):
            continue
        reached.update(filter(None, node.output))
        makers.update((name, node) for name in node.output if name)
        if node.op_type == "DequantizeLinear":
            _dequantized(node, makers, found)
        elif node.op_type != "QuantizeLinear":
            found.update((name, (name, node.op_type)) for name in node.output if name)
    return found


def _running_order(graph: GraphProto) -> list[NodeProto]:
    """Return the nodes, each after those that it reads: the conversion to float16 puts its casts at the end."""
    known = {"", *(item.name for item in [*graph.initializer, *graph.input])}
    waiting = list(graph.node)
    found: list[NodeProto] = []
    while waiting:
        late: list[NodeProto] = []
        for node in waiting:
            if known.issuperset(node.input):
                found.append(node)
                known.update(node.output)
            else:
                late.append(node)
        if len(late) == len(waiting):
            return [*found, *late]
        waiting = late
    return found


def _dequantized(node: NodeProto, makers: Mapping[str, NodeProto], found: dict[str, tuple[str, str]]) -> None:
    """Put a DequantizeLinear's output in the place of the tensor that was quantized."""
    before = makers.get(node.input[0])
    if before is None:
        return
    if before.op_type != "QuantizeLinear":  # an operator on integers
        found[node.output[0]] = (node.output[0], before.op_type)
        return
    name = before.input[0]
    tensor, op = found.get(name, ("", ""))
    if tensor == name:  # the first reader's; a tensor of the graph's inputs is no operator's
        del found[name]
        found[name.removesuffix(_BEFORE)] = (node.output[0], op)
