"""Which operators a static quantization leaves in float: those that only shape, join and scale what goes out."""

from __future__ import annotations

from collections.abc import Sequence

from harness_tflite.flatbuffer import Node

_BEHIND = {
    "ADD", "CONCATENATION", "DIV", "EXP", "EXPAND_DIMS", "LOGISTIC", "MUL", "PACK", "RESHAPE", "SLICE", "SOFTMAX",
    "SPLIT", "SPLIT_V", "SQUEEZE", "STRIDED_SLICE", "SUB", "TANH", "TRANSPOSE", "UNPACK",
}  # fmt: skip


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
