"""Put the precision into the ONNX file, then build the plan from it."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import harness_onnx
from harness.api import Artifact, Calibration, HarnessError, Job, Model, Options, Precision, Unsupported
from harness_tensorrt.engine import build_plan, make_logger
from harness_tensorrt.flavors import Flavor, Params, import_library

MACS_FILE = "macs.json"  # beside the plan: multiply-accumulates by ONNX node, which the engine does not tell


def lower(flavor: Flavor, model: Model, params: Params, options: Options, job: Job) -> Artifact:
    """Write the plan for this GPU and this batch into ``job.out``.

    Raises:
        MissingDependency: The library is not installed.
        Unsupported: The library cannot realise the precision, or refuses the graph.
        HarnessError: The engine cannot be built.
    """
    check_supported(flavor, model.precision)
    trt = import_library(flavor)
    typed = job.out / "typed.onnx"
    job.progress(0.1, f"writing {model.precision.name} ONNX")
    how = write_typed(model, typed, job)
    job.progress(0.4, "building the engine")
    path = job.out / "model.plan"
    path.write_bytes(build_plan(trt, make_logger(trt, job.log), typed, params, options.batch))
    (job.out / MACS_FILE).write_text(json.dumps(harness_onnx.macs_by_node(model.path), sort_keys=True))
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    size = path.stat().st_size
    note = f"{how}; strongly typed {flavor.title} {trt.__version__}, TF32 {'on' if params.tf32 else 'off'}"
    return Artifact(
        path, flavor.plan_format, digest, model.precision.name, note, artifact_bytes=size, stored_bytes=size
    )


def check_supported(flavor: Flavor, precision: Precision) -> None:
    """Refuse what no strongly typed engine of ours can be built for.

    Raises:
        Unsupported: With the reason.
    """
    if precision.name not in {"float32", "float16", "int8"}:
        raise Unsupported(f"{flavor.title}: {GAPS.get(precision.name, f'no way to express {precision.name}')}")
    if precision.realise == "exact" and precision.encodings is not None:
        raise Unsupported("encodings that bind are not passed on to the Q/DQ writer")
    if precision.name == "int8" and precision.activations_symmetric is False:
        raise Unsupported(f"{flavor.title} takes symmetric int8 only: a zero point other than 0 is refused")
    if precision.name == "int8" and not precision.weights_symmetric:
        raise Unsupported(f"{flavor.title} takes symmetric int8 weights only")


GAPS = {
    "binary": "there is no 1-bit kernel",
    "dynamic-int8": "activation ranges are fixed when the engine is built; there is no dynamic int8",
    "bfloat16": "no bfloat16 ONNX is written by harness_onnx",
    "float8": "no float8 Q/DQ is written by harness_onnx",
    "weight-only-int8": "no weight-only Q/DQ is written by harness_onnx",
    "weight-only-int4": "no blockwise int4 Q/DQ is written by harness_onnx",
}


def write_typed(model: Model, out: Path, job: Job) -> str:
    """Write the ONNX file whose types are the precision, and return how in one line."""
    precision = model.precision
    if precision.name == "float16":
        harness_onnx.to_float16(model.path, out)
        return "float16 ONNX, float32 at the border"
    if precision.name != "int8":
        shutil.copyfile(model.path, out)
        return "the ONNX file as exported"
    wanted = precision.calibration or Calibration()
    arrays = job.data.split("calibration").inputs
    fixed = next(iter(harness_onnx.model_io(model.path)[0].values())).shape[0]
    feeds = harness_onnx.calibration_batches(arrays, wanted.samples, batch=fixed)
    if not feeds:
        raise HarnessError("static int8 needs a calibration split and it is empty")
    harness_onnx.symmetric_qdq(
        model.path,
        out,
        feeds,
        calibration=wanted.method,
        per_channel=precision.granularity == "per-channel",
        exclude=harness_onnx.float_nodes(model.path, precision.overrides, model.names),
    )
    items = harness_onnx.calibration_items(arrays, wanted.samples)
    grain = f"{precision.granularity} weights, {wanted.method} over {items} items"
    return f"symmetric int8 Q/DQ by ONNX Runtime, {grain}, other layers float32"
