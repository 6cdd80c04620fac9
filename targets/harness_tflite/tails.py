"""Which operators a static quantization leaves in float: one scale would leave nothing of most of their values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from harness_tflite.flatbuffer import Node

_BEHIND = {
    "ADD", "CONCATENATION", "DIV", "EXP", "EXPAND_DIMS", "LOGISTIC", "MUL", "PACK", "RESHAPE", "SLICE", "SOFTMAX",
    "SPLIT", "SPLIT_V", "SQUEEZE", "STRIDED_SLICE", "SUB", "TANH", "TRANSPOSE", "UNPACK",
}  # fmt: skip
_ROOTS = {"RSQRT", "SQRT"}  # of a variance
_VARIANCE = {"ADD", "MEAN", "MUL", "RESHAPE", "SQUARE", "SQUARED_DIFFERENCE"}  # what leads to the root
_SCALED = {"ADD", "DIV", "MUL", "RESHAPE", "SUB"}  # what makes use of it
_WIDE = 1e5  # a mask of minus infinity, or of the least float


def tail(nodes: Sequence[Node], outputs: Sequence[int]) -> tuple[Node, ...]:
    """Return the operators behind the last layers: their results go to outputs of the graph and to nothing else.

    In integers, parts of unlike size that are joined at the end would share one scale: boxes of hundreds of pixels and
    scores below 1, of which nothing would be left. A sigmoid's smallest result would be 1/256.

    Args:
        nodes: Of the main subgraph, in order.
        outputs: Its outputs by tensor index.
    """
    free, found = set(outputs), []
    readers: dict[int, list[Node]] = {}
    for node in nodes:
        for index in node.inputs:
            readers.setdefault(index, []).append(node)
    for node in reversed(nodes):
        behind = [reader for index in node.outputs for reader in readers.get(index, ())]
        ends = all(index in free or index in readers for index in node.outputs)
        if node.op in _BEHIND and ends and all(reader in found for reader in behind):
            found.append(node)
    return tuple(reversed(found))


def wide(nodes: Sequence[Node], ranges: Mapping[int, tuple[float, float]]) -> tuple[Node, ...]:
    """Return the operators that read or give values beyond any scale, such as those of an attention mask.

    Args:
        nodes: Of the main subgraph.
        ranges: Least and largest value by tensor index.
    """
    far = {index for index, bounds in ranges.items() if not max(map(abs, bounds)) <= _WIDE}
    return tuple(node for node in nodes if far & {*node.inputs, *node.outputs})


def normalizations(nodes: Sequence[Node]) -> tuple[Node, ...]:
    """Return the operators of layer norms written out: the root of a variance spans more than 8 bits resolve."""
    makers = {index: node for node in nodes for index in node.outputs}
    found: list[Node] = []
    for root in (node for node in nodes if node.op in _ROOTS):
        found += [root, *_variance(root, makers)]
    for node in nodes:  # in order, so that what follows what follows is met
        if node.op in _SCALED and any(makers.get(index) in found for index in node.inputs) and node not in found:
            found.append(node)
    return tuple(found)


def _variance(root: Node, makers: Mapping[int, Node]) -> Iterator[Node]:
    """Yield what leads to a root, back to where the mean is subtracted, and the mean."""
    waiting = [makers[index] for index in root.inputs if index in makers]
    while waiting:
        node = waiting.pop()
        if node.op not in _VARIANCE:
            continue
        yield node
        sources = [makers[index] for index in node.inputs if index in makers]
        waiting += [item for item in sources if node.op != "SQUARED_DIFFERENCE" or item.op in {"MEAN", "RESHAPE"}]
