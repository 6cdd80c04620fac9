"""Graphs that the CPU plugin fuses wrongly, and the setting that keeps it from that."""

from __future__ import annotations

from typing import Any

_DISABLED = {"SNIPPETS_MODE": "DISABLE"}


def safe_settings(graph: Any) -> dict[str, str]:
    """Return the settings under which a graph's results are right; empty where those of the plugin are.

    OpenVINO 2026.4 joins int8 matrix products of small batches into one kernel, which takes a bias that is not there
    from what lies in memory: with a product without a bias in front, results reach 1e9.
    """
    return _DISABLED if any(_is_misfused(node) for node in graph.get_ordered_ops()) else {}


def _is_misfused(node: Any) -> bool:
    """Tell whether a node is an int8 product whose result is quantized again without a bias added before."""
    if node.get_type_name() != "MatMul" or node.input_value(0).get_node().get_type_name() != "FakeQuantize":
        return False
    while len(readers := list(node.output(0).get_target_inputs())) == 1:
        node = readers[0].get_node()
        if node.get_type_name() == "FakeQuantize":
            return True
        if node.get_input_size() != 1 or not node.get_output_size():
            return False
    return False
