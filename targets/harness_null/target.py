"""Lowering copies the model file; a session returns zeros at once."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.api import (
    Artifact,
    Availability,
    Capabilities,
    Job,
    Model,
    NoParams,
    Options,
    Purpose,
    TargetSpec,
    TensorSpec,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SHAPES = "null.json"


class NullSession:
    """Takes the model's declared inputs and returns one zero per item and output."""

    def __init__(self, inputs: Mapping[str, TensorSpec], outputs: tuple[str, ...], batch: int) -> None:
        import numpy as np

        self.inputs = inputs
        self.outputs = {name: TensorSpec("float32", (None, 1)) for name in outputs}
        self._batch = batch
        self._zeros = {name: np.zeros((batch, 1), np.float32) for name in outputs}
        for array in self._zeros.values():
            array.flags.writeable = False

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> Mapping[str, NDArray[Any]]:
        """Return the same zeros every time; another batch than the declared one gets zeros of its own."""
        size = len(next(iter(inputs.values())))
        if size == self._batch:
            return self._zeros
        import numpy as np

        return {name: np.zeros((size, 1), np.float32) for name in self.outputs}

    def effective(self) -> Mapping[str, str]:
        """Say that nothing runs."""
        return {"threads": "0", "device": "none"}

    def close(self) -> None:
        """Hold nothing, free nothing."""


def probe(_params: object) -> Availability:
    """It is always there."""
    return Availability(True, runtime="null", version="1")


def capabilities(_params: object) -> Capabilities:
    """Accept every precision name: nothing is computed in any of them."""
    names = ("float32", "float16", "int8", "dynamic-int8")
    evidence = {"precisions": "runs no model"}
    return Capabilities("1", dict.fromkeys(names, "not computed"), devices=("none",), evidence=evidence)


def lower(model: Model, _params: object, _options: Options, job: Job) -> Artifact:
    """Copy the model file and note its inputs and outputs beside it."""
    path = job.out / model.path.name
    shutil.copyfile(model.path, path)
    inputs = {name: {"dtype": spec.dtype, "shape": list(spec.shape)} for name, spec in model.inputs.items()}
    (job.out / _SHAPES).write_text(json.dumps({"inputs": inputs, "outputs": list(model.outputs)}))
    size = path.stat().st_size
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    how, flags = "copied; runs no model", ("runs_no_model",)
    return Artifact(path, model.format, digest, model.precision.name, how, size, size, flags=flags)


def declared(artifact: Artifact, options: Options) -> tuple[Mapping[str, TensorSpec], tuple[str, ...], int]:
    """Return the inputs and outputs that the model declared, and the batch asked for."""
    found = json.loads((Path(artifact.path).parent / _SHAPES).read_text())
    inputs = {name: TensorSpec(spec["dtype"], tuple(spec["shape"])) for name, spec in found["inputs"].items()}
    return inputs, tuple(found["outputs"]), options.batch


def open_session(artifact: Artifact, _params: NoParams, options: Options, _purpose: Purpose) -> NullSession:
    """Read the declared inputs and outputs."""
    return NullSession(*declared(artifact, options))


SPEC = TargetSpec(
    name="null",
    summary="runs no model: its numbers are the harness's own overhead",
    params=NoParams,
    accepts=frozenset({"onnx", "tflite", "torch"}),
    probe=probe,
    capabilities=capabilities,
    lower=lower,
    open=open_session,
    ranked=False,
)
