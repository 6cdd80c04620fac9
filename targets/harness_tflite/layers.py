"""What each operator of a .tflite file gives: a second interpreter loads it with those tensors as further outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.api import LayerOutput
from harness_tflite import flatbuffer
from harness_tflite.placement import op_name

if TYPE_CHECKING:
    from numpy.typing import NDArray

_GRIDS = frozenset({"QUANTIZE", "DEQUANTIZE"})


class Layers:
    """A second interpreter of a file.

    Args:
        path: A .tflite file.
        load: Makes an allocated interpreter from a file's bytes, as the cell's session has one.
    """

    def __init__(self, path: Path, load: Callable[[bytes], Any]) -> None:
        made = outputs_of(path)
        self._interpreter: Any = load(flatbuffer.with_outputs(path, [tensor for tensor, _op in made.values()]))
        details = {int(entry["index"]): entry for entry in self._interpreter.get_tensor_details()}
        self._wanted = [
            (name, op_name(op), details[tensor])
            for name, (tensor, op) in made.items()
            if np.issubdtype(details[tensor]["dtype"], np.floating) or _scales(details[tensor]).size
        ]

    def run(self, inputs: Mapping[int, NDArray[Any]]) -> Iterator[LayerOutput]:
        """Yield what each operator gives, in the order of the file, for inputs by tensor index."""
        for index, values in inputs.items():
            self._interpreter.set_tensor(index, values)
        self._interpreter.invoke()
        for name, op, entry in self._wanted:
            yield LayerOutput(name, op, _floats(self._interpreter.get_tensor(entry["index"]), entry))


def outputs_of(path: Path) -> dict[str, tuple[int, str]]:
    """Return name in the float file -> tensor of this file, and the operator that made it.

    A quantized tensor stands for the float one of its name; where the quantizer left an operator in float and puts
    QUANTIZE behind it, the result is read where the next operator reads it. Weights that are unpacked at load are
    no operator's.
    """
    model = flatbuffer.open_model(path)
    names = flatbuffer.tensor_names(model)
    reached = set(flatbuffer.inputs(model))
    found: dict[str, tuple[int, str]] = {}
    for node in flatbuffer.nodes(model):
        if reached.isdisjoint(node.inputs):
            continue
        reached.update(node.outputs)
        if node.op not in _GRIDS:
            found.update((names[tensor], (tensor, node.op)) for tensor in node.outputs)
        elif node.op == "QUANTIZE":
            source, op = found.get(names[node.inputs[0]], (-1, ""))
            if source == node.inputs[0]:  # its first reader's, and no input of the graph
                found[names[source]] = (node.outputs[0], op)
    return found


def _scales(entry: Mapping[str, Any]) -> NDArray[Any]:
    return np.asarray(entry["quantization_parameters"]["scales"])


def _floats(values: NDArray[Any], entry: Mapping[str, Any]) -> NDArray[Any]:
    """Return what integers stand for, as DEQUANTIZE computes it; activations have one scale."""
    if np.issubdtype(values.dtype, np.floating):
        return values
    zero = np.int32(entry["quantization_parameters"]["zero_points"][0])
    return (values.astype(np.int32) - zero).astype(np.float32) * np.float32(_scales(entry)[0])
