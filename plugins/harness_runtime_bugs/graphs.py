"""ONNX graphs in a few lines: what a report describes, written down anew."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Arrays = Mapping[str, NDArray[Any]]

MICROSOFT = "com.microsoft"
_IR = {21: 10, 23: 11}  # opset -> the IR version that knows its types; 8 before


@dataclass(frozen=True)
class Op:
    """One operator.

    Attributes:
        takes, gives: Names of its inputs and outputs, between spaces; "-" is an input that is left out.
        attributes: An attribute that is a list of ``Op`` is a subgraph without inputs; its last operator gives its
            output.
    """

    op: str
    takes: str
    gives: str
    domain: str = ""
    attributes: Mapping[str, Any] = field(default_factory=dict)


def op(kind: str, takes: str, gives: str, /, *, domain: str = "", **attributes: Any) -> Op:
    """Return an operator with its attributes."""
    return Op(kind, takes, gives, domain, attributes)


@dataclass(frozen=True)
class Int4:
    """A constant of 4-bit integers; numpy has no such type.

    Attributes:
        values: -8 to 7.
    """

    values: NDArray[Any]


def graph(
    *ops: Op,
    inputs: Arrays,
    right: Arrays,
    constants: Mapping[str, NDArray[Any] | Int4] | None = None,
    opset: int = 17,
    free: bool = False,
) -> Callable[[Path], Path]:
    """Return what writes an ONNX file of some operators.

    Args:
        ops: In running order.
        inputs: Arrays of the graph's inputs, for their dtypes and shapes.
        right: Arrays of its outputs, likewise.
        constants: Initializers by name.
        opset: Of the standard operators.
        free: Declare the first axis of inputs and outputs as free.

    Returns:
        Folder -> the path of the file.
    """

    def write(folder: Path) -> Path:
        import onnx
        from onnx import helper

        domains = sorted({item.domain for item in ops if item.domain})
        made = helper.make_graph(
            [_node(item) for item in ops],
            "case",
            [_value(name, array, free=free) for name, array in inputs.items()],
            [_value(name, array, free=free) for name, array in right.items()],
            [_constant(name, value) for name, value in (constants or {}).items()],
        )
        opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
        path = folder / "case.onnx"
        onnx.save(helper.make_model(made, opset_imports=opsets, ir_version=_IR.get(opset, 8)), str(path))
        return path

    return write


def _names(text: str) -> list[str]:
    return ["" if name == "-" else name for name in text.split()]


def _node(item: Op) -> Any:
    from onnx import helper

    attributes = {key: _subgraph(value) if _is_graph(value) else value for key, value in item.attributes.items()}
    return helper.make_node(item.op, _names(item.takes), _names(item.gives), domain=item.domain, **attributes)


def _is_graph(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], Op)


def _subgraph(ops: list[Op]) -> Any:
    from onnx import TensorProto, helper

    name = _names(ops[-1].gives)[0]
    gives = helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
    return helper.make_graph([_node(item) for item in ops], name, [], [gives])


def _value(name: str, array: NDArray[Any], *, free: bool) -> Any:
    from onnx import helper

    shape: list[Any] = list(array.shape)
    if free:
        shape[0] = "n"
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), shape)


def _constant(name: str, value: NDArray[Any] | Int4) -> Any:
    from onnx import TensorProto, helper, numpy_helper

    if isinstance(value, Int4):
        return helper.make_tensor(name, TensorProto.INT4, value.values.shape, value.values.ravel().tolist())
    return numpy_helper.from_array(value, name)
