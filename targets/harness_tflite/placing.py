"""Give the quantizer ranges that are not its own: by calibrations that it lacks, or from an encodings file."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from harness.api import Model, Unsupported
from harness_onnx import Bound, Range, ranges, read_encodings
from harness_tflite import flatbuffer

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Feed = Mapping[str, NDArray[Any]]

_SAME_SCALE = {"RESHAPE", "SQUEEZE", "EXPAND_DIMS", "TRANSPOSE", "MAX_POOL_2D", "AVERAGE_POOL_2D"}


def calibrated(path: Path, feeds: Sequence[Feed], method: str) -> dict[str, Range]:
    """Return the range of every float tensor of a file over feeds, by tensor name."""
    return ranges(_runs(path, feeds), cast("Any", method))


def extremes(path: Path, feeds: Sequence[Feed]) -> dict[str, Range]:
    """Return the least and the largest value of every float tensor that is computed, infinite ones too, by name."""
    found: dict[str, Range] = {}
    for values in _runs(path, feeds):
        for name, array in values.items():
            low, high = found.get(name, (float("inf"), float("-inf")))
            found[name] = min(low, float(array.min(initial=low))), max(high, float(array.max(initial=high)))
    return found


def _runs(path: Path, feeds: Sequence[Feed]) -> Iterator[dict[str, NDArray[Any]]]:
    import numpy as np
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    # XNNPACK would compute through fused operators and leave the tensors between them unwritten.
    plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = Interpreter(
        model_path=str(path), experimental_preserve_all_tensors=True, experimental_op_resolver_type=plain
    )
    try:
        interpreter.allocate_tensors()
    except RuntimeError as error:
        missing = re.search(r"unresolved custom op: (\w+)", str(error))
        if missing is None:
            raise
        why = "XNNPACK alone runs it, which does not show what lies between the operators"
        raise Unsupported(f"static int8 needs the ranges around the custom operator {missing[1]}, and {why}") from error
    runner = interpreter.get_signature_runner()
    file = flatbuffer.open_model(path)
    names = flatbuffer.tensor_names(file)
    computed = [index for node in flatbuffer.nodes(file) for index in node.outputs]
    given = [entry["index"] for entry in interpreter.get_input_details()]
    floats = [index for index in (*given, *computed) if _dtype(interpreter, index) == np.float32]
    for feed in feeds:
        runner(**feed)
        yield {names[index]: interpreter.get_tensor(index) for index in floats}


def _dtype(interpreter: Any, index: int) -> Any:
    return interpreter._get_tensor_details(index, 0)["dtype"]  # the public list of all details is O(n) per call


def bound_ranges(model: Model) -> Bound:
    """Return the ranges that a model's encodings bind, by tensor name; none where its precision leaves it open.

    Raises:
        Unsupported: None of the layers is in the file.
    """
    wanted, found = model.precision, Bound()
    if wanted.realise != "exact" or wanted.encodings is None:
        return found
    file = flatbuffer.open_model(model.path)
    names, nodes = flatbuffer.tensor_names(file), flatbuffer.nodes(file)
    for parameter, bounds in read_encodings(wanted.encodings).items():
        weight = model.names.get(parameter)
        readers = [node for node in nodes if any(index >= 0 and names[index] == weight for index in node.inputs)]
        readers = [node for node in readers if node.op not in {"GATHER", "EMBEDDING_LOOKUP"}]  # tied to the layer
        if not readers:
            found.left[parameter] = "no operator of the .tflite file reads its weight as it is"
        found.take(parameter, (names[_data(node)] for node in readers), bounds)
    found.refuse_nothing()
    for node in reversed(nodes):  # both sides of these operators have one scale
        output = names[node.outputs[0]]
        if node.op in _SAME_SCALE and output in found.ranges:
            found.ranges.setdefault(names[node.inputs[0]], found.ranges[output])
    return found


def _data(node: Any) -> int:
    """Return the input of an operator that is no weight: a transposed convolution takes it last."""
    return int(node.inputs[2] if node.op == "TRANSPOSE_CONV" else node.inputs[0])


def set_ranges(values: Any, seen: Mapping[str, Range], bound: Mapping[str, Range]) -> tuple[Any, tuple[str, ...]]:
    """Replace the extremes in the quantizer's statistics by ranges seen, and those by ranges that bind.

    Returns:
        The statistics, and the tensors whose ranges bind nothing, since the quantizer leaves them in float.

    Raises:
        Unsupported: Ranges bind, and none of their tensors has statistics.
    """
    import numpy as np

    free = tuple(sorted(set(bound) - set(values)))
    if free and len(free) == len(bound):
        raise Unsupported(f"the range of {free[0]!r} cannot bind, nor another: the quantizer leaves them in float")
    for name, (low, high) in {**seen, **bound}.items():
        if name in values and "min" in values[name]:
            shape = np.shape(values[name]["min"])
            values[name] = {
                **values[name],
                "min": np.full(shape, low, np.float32),
                "max": np.full(shape, high, np.float32),
            }
    return values, free
