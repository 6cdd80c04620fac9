"""``onnx.reference`` as a target: the evaluator that defines what ONNX operators mean, in numpy."""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Mapping
from importlib import metadata
from typing import TYPE_CHECKING, Any

import harness_onnx
from harness.api import (
    Artifact,
    Availability,
    Capabilities,
    Job,
    Model,
    NoParams,
    Options,
    Placement,
    Purpose,
    TensorSpec,
    Unsupported,
    stored_size,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Arrays = Mapping[str, NDArray[Any]]


def probe(params: NoParams) -> Availability:
    """Run one addition: installed is not yet available."""
    del params
    started = time.perf_counter()
    try:
        total = _add()
    except ImportError as error:
        return Availability(available=False, reason=f"onnx cannot be imported: {error}", hint="pip install onnx")
    if total != [0.0, 2.0, 4.0]:
        return Availability(available=False, reason=f"onnx.reference added (0, 1, 2) to itself and got {total}")
    seconds = time.perf_counter() - started
    return Availability(available=True, runtime="onnx.reference", version=metadata.version("onnx"), seconds=seconds)


def _add() -> list[float]:
    import numpy as np
    from onnx import TensorProto, helper
    from onnx.reference import ReferenceEvaluator

    value, total = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [3]) for name in ("value", "total"))
    graph = helper.make_graph([helper.make_node("Add", ["value", "value"], ["total"])], "probe", [value], [total])
    found = ReferenceEvaluator(helper.make_model(graph)).run(None, {"value": np.arange(3, dtype=np.float32)})
    return [float(item) for item in found[0]]


def capabilities(params: NoParams) -> Capabilities:
    """Return float32 only: the evaluator computes int8 too, but in loops that no one would deploy."""
    del params
    why = "onnx.reference has no fast kernels; it is offered in float32 only"
    return Capabilities(
        version="2026.11",
        precisions={"float32": "numpy"},
        gaps={"int8": why, "dynamic-int8": why, "float16": why},
        evidence={"precisions": "by choice of this plugin"},
    )


def lower(model: Model, params: NoParams, options: Options, job: Job) -> Artifact:
    """Copy the file.

    Raises:
        Unsupported: Another precision than float32 is wanted.
    """
    del params, options
    if model.precision.name != "float32":
        raise Unsupported(f"onnx.reference is offered in float32 only, not {model.precision.name}")
    path = job.out / "model.onnx"
    shutil.copyfile(model.path, path)
    stored, stored_as = stored_size(path, harness_onnx.weight_spans(path), model.precision.storage)
    return Artifact(
        path=path,
        format="onnx",
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        realised="float32",
        how="the graph as exported",
        artifact_bytes=path.stat().st_size,
        stored_bytes=stored,
        stored_as=stored_as,
    )


def open_session(artifact: Artifact, params: NoParams, options: Options, purpose: Purpose) -> ReferenceSession:
    """Load the file; this is where the runtime is imported."""
    del params, options, purpose
    return ReferenceSession(artifact)


class ReferenceSession:
    """A session needs ``inputs``, ``outputs``, ``run`` and ``close``; placements and effective options are extras."""

    def __init__(self, artifact: Artifact) -> None:
        from onnx.reference import ReferenceEvaluator

        self._path = artifact.path
        self._evaluator: Any = ReferenceEvaluator(str(artifact.path))
        self._inputs, self._outputs = harness_onnx.model_io(artifact.path)

    @property
    def inputs(self) -> Mapping[str, TensorSpec]:
        """Inputs by name."""
        return self._inputs

    @property
    def outputs(self) -> Mapping[str, TensorSpec]:
        """Outputs by name."""
        return self._outputs

    def run(self, inputs: Arrays) -> Arrays:
        """Evaluate the graph, node by node."""
        return dict(zip(self._outputs, self._evaluator.run(None, dict(inputs)), strict=True))

    def placements(self) -> tuple[Placement, ...]:
        """Return one entry per node."""
        macs = harness_onnx.macs_by_node(self._path)
        return tuple(
            Placement(node.op_type, node.name, "numpy", "cpu", "float32", macs.get(node.name, 0))
            for node in self._evaluator.proto_.graph.node
        )

    def effective(self) -> Mapping[str, str]:
        """Return what is known of the threads: they are numpy's."""
        return {"threads": "not available: numpy's linear algebra decides", "device": "cpu"}

    def close(self) -> None:
        """Drop the graph."""
        self._evaluator = None
