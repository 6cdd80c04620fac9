"""Products of vectors: in int8 they would give one dimension too many."""

from __future__ import annotations

from typing import Any

from harness_openvino.dynamic import take_place


def vectors_as_rows(graph: Any) -> None:
    """Rewrite, in place, each product of a vector with a matrix as that of one row, which int8 kernels know."""
    for node in list(graph.get_ordered_ops()):
        rank = node.input_value(0).get_partial_shape().rank if node.get_type_name() == "MatMul" else None
        if rank is not None and rank.is_static and rank.get_length() == 1:
            _rewrite(node)
    graph.validate_nodes_and_infer_types()


def _rewrite(node: Any) -> None:
    import numpy as np
    from openvino import opset13 as ops

    axis = ops.constant(np.array([0], np.int64))
    readers = node.output(0).get_target_inputs()
    node.input(0).replace_source_output(ops.unsqueeze(node.input_value(0), axis).output(0))
    node.validate_and_infer_types()
    # The plugin (2026.4) moves a scale of [1, n] behind a squeeze or reshape, where it adds the dimension again. Behind
    # a sum it moves none, and that over the one row gives the same.
    vector = ops.reduce_sum(node.output(0), ops.constant(np.array([-2], np.int64)), keep_dims=False)
    vector.set_friendly_name(f"{node.get_friendly_name()}/vector")
    take_place(vector, node, readers)
