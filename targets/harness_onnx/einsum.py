"""Einsum nodes that are matrix products, written as such: quantizers know MatMul alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness_onnx.graph import attribute, drop_unread, import_onnx, put_at

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto


@dataclass(frozen=True)
class _Product:
    """Letters of the operands and the result as a matrix product has them."""

    left: str
    right: str
    result: str


def einsums_as_products(model: ModelProto) -> None:
    """Rewrite, in place, each Einsum of two operands that sums over one letter, with transposes where they are due.

    A letter of both operands and of the result is a batch dimension. What repeats a letter within an operand, sums one
    of a single operand or holds an ellipsis stays as it is.
    """
    for node in [node for node in model.graph.node if node.op_type == "Einsum" and len(node.input) == 2]:
        given, arrow, wanted = _equation(node).partition("->")
        terms = given.split(",")
        product = _product(terms[0], terms[1], wanted) if arrow and len(terms) == 2 else None
        if product is not None:
            _rewrite(model, node, (terms[0], terms[1], wanted), product)
    drop_unread(model)


def _equation(node: NodeProto) -> str:
    text = attribute(node, "equation", b"")
    return (text.decode() if isinstance(text, bytes) else str(text)).replace(" ", "")


def _product(left: str, right: str, result: str) -> _Product | None:
    if "." in left + right or any(len(set(term)) < len(term) for term in (left, right, result)):
        return None
    batch = "".join(letter for letter in result if letter in left and letter in right)
    summed = [letter for letter in left if letter in right and letter not in result]
    rows = "".join(letter for letter in result if letter in left and letter not in right)
    columns = "".join(letter for letter in result if letter in right and letter not in left)
    whole = set(left) == {*batch, *summed, *rows} and set(right) == {*batch, *summed, *columns}
    if not whole or len(summed) != 1 or len(columns) != 1 or not rows or (batch and len(rows) != 1):
        return None
    return _Product(batch + rows + summed[0], batch + summed[0] + columns, batch + rows + columns)


def _rewrite(model: ModelProto, node: NodeProto, terms: tuple[str, str, str], product: _Product) -> None:
    onnx = import_onnx()
    name, place = node.name or node.output[0], list(model.graph.node).index(node)
    fresh: list[NodeProto] = []
    sides = [
        _ordered(model, source, term, wanted, f"{name}/{side}", fresh)
        for source, term, wanted, side in zip(
            node.input, terms[:2], (product.left, product.right), ("left", "right"), strict=True
        )
    ]
    last = terms[2] == product.result
    made = node.output[0] if last else f"{name}/product"
    fresh.append(onnx.helper.make_node("MatMul", sides, [made], name=name))
    if not last:
        order = [product.result.index(letter) for letter in terms[2]]
        fresh.append(onnx.helper.make_node("Transpose", [made], [node.output[0]], name=f"{name}/turned", perm=order))
    model.graph.node.remove(node)
    put_at(model, place, fresh)


def _ordered(
    model: ModelProto, source: str, term: str, wanted: str, name: str, fresh: list[NodeProto]
) -> str:  # fmt: skip
    """Return a tensor with an operand's dimensions in the wanted order; what is stored is stored anew."""
    if term == wanted:
        return source
    onnx, order = import_onnx(), [term.index(letter) for letter in wanted]
    stored = next((item for item in model.graph.initializer if item.name == source), None)
    if stored is None:
        fresh.append(onnx.helper.make_node("Transpose", [source], [name], name=f"{name}/turned", perm=order))
        return name
    values = onnx.numpy_helper.to_array(stored).transpose(order)
    model.graph.initializer.append(onnx.numpy_helper.from_array(values.copy(), name))
    return name
