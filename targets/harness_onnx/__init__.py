"""Export PyTorch models to ONNX; and the library that several targets lower ONNX files with.

It is public: target plugins import ``qdq``, ``symmetric_qdq``, ``dynamic_int8``, ``weight_only``, ``to_float16``,
``ranges``, ``read_encodings``, ``weight_spans``, ``macs_by_node`` and ``model_io`` from here. Importing it loads no
framework.
"""

from __future__ import annotations

from collections.abc import Iterator

from harness.api import ExporterSpec, InspectorSpec, OracleSpec, hookimpl
from harness_onnx.agreement import answers_differ, runner, runs
from harness_onnx.export import export
from harness_onnx.graph import (
    BATCH,
    as_given,
    bind,
    check_file,
    consumers,
    float_nodes,
    is_quantized,
    layer_nodes,
    macs_by_node,
    model_io,
    normalise,
    override_nodes,
    raw_tensors,
    recurrent_nodes,
    save_normalised,
    weight_spans,
)
from harness_onnx.half import to_float16
from harness_onnx.inspecting import inspect, nan_weights, quantizable
from harness_onnx.losses import Loss, loss
from harness_onnx.narrow import float8_qdq, halve_rest
from harness_onnx.normal import normal_form
from harness_onnx.quantize import (
    calibration_batches,
    calibration_feeds,
    calibration_items,
    dynamic_int8,
    qdq,
    quiet,
    symmetric_qdq,
)
from harness_onnx.ranges import Bound, Range, bound_ranges, ranges, read_encodings, tensor_runs
from harness_onnx.validity import refuse_invalid
from harness_onnx.weight_only import weight_only
from harness_onnx.widen import widened
from harness_onnx.wire import TensorSpan

__all__ = [
    "BATCH",
    "Bound",
    "Loss",
    "Range",
    "TensorSpan",
    "answers_differ",
    "as_given",
    "bind",
    "bound_ranges",
    "calibration_batches",
    "calibration_feeds",
    "calibration_items",
    "check_file",
    "consumers",
    "dynamic_int8",
    "float8_qdq",
    "float_nodes",
    "halve_rest",
    "is_quantized",
    "layer_nodes",
    "loss",
    "macs_by_node",
    "model_io",
    "normal_form",
    "normalise",
    "override_nodes",
    "qdq",
    "quantizable",
    "quiet",
    "ranges",
    "raw_tensors",
    "read_encodings",
    "recurrent_nodes",
    "refuse_invalid",
    "runner",
    "runs",
    "save_normalised",
    "symmetric_qdq",
    "tensor_runs",
    "to_float16",
    "weight_only",
    "weight_spans",
    "widened",
]


@hookimpl
def harness_exporters() -> Iterator[ExporterSpec]:
    """Offer the way from PyTorch to ONNX."""
    yield ExporterSpec(
        name="onnx",
        summary="torch.onnx.export of the exported program: one file, free batch, checked against PyTorch",
        consumes="torch",
        produces="onnx",
        export=export,
        extra="torch",
    )


@hookimpl
def harness_oracles() -> Iterator[OracleSpec]:
    """Offer ONNX's own evaluator as what its files are judged by."""
    from harness_onnx import oracle

    yield OracleSpec(
        name="onnx",
        summary="ONNX's reference evaluator; where it is slow or lacks an operator, ONNX Runtime without optimizations",
        consumes="onnx",
        open=oracle.open_oracles,
        extra="onnxruntime",
    )


@hookimpl
def harness_inspectors() -> Iterator[InspectorSpec]:
    """Offer to read ONNX files."""
    yield InspectorSpec(name="onnx", inspect=inspect, extra="onnxruntime", nan_weights=nan_weights)
