"""Put the precision into the ONNX file, then build the plan from it."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

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
    how = write_typed(model, typed, job, rest=params.rest)
    sparse = params.sparse_weights or model.precision.pattern == "2:4"
    logger = make_logger(trt, job.log)
    for number in range(params.builds):
        job.progress(0.4 + 0.6 * number / params.builds, f"building engine {number + 1} of {params.builds}")
        plan = build_plan(trt, logger, typed, params, options.batch, sparse=sparse)
        plan_path(job.out / "model.plan", number).write_bytes(plan)
    path = job.out / "model.plan"
    (job.out / MACS_FILE).write_text(json.dumps(harness_onnx.macs_by_node(model.path), sort_keys=True))
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    size = path.stat().st_size
    note = f"{how}; strongly typed {flavor.title} {trt.__version__}, TF32 {'on' if params.tf32 else 'off'}"
    several = f"; {params.builds} engines" if params.builds > 1 else ""
    note += f"{_sparsity(logger.sparse) if sparse else ''}{several}"
    return Artifact(
        path, flavor.plan_format, digest, model.precision.name, note, artifact_bytes=size, stored_bytes=size
    )


def plan_path(first: Path, number: int) -> Path:
    """Return where an engine lies: the first at ``model.plan``, others beside it at ``model.1.plan`` and on."""
    return first.with_suffix(f".{number}.plan") if number else first


def _sparsity(told: Mapping[str, int]) -> str:
    if not told:
        return "; 2:4 kernels allowed, and the builder's log names no layer that takes one"
    return f"; 2:4 kernels: {told.get('Found', 0)} layers eligible, {told.get('Chose', 0)} chosen"


def check_supported(flavor: Flavor, precision: Precision) -> None:
    """Refuse what no strongly typed engine of ours can be built for.

    Raises:
        Unsupported: With the reason.
    """
    if precision.name not in REALISED:
        raise Unsupported(f"{flavor.title}: {GAPS.get(precision.name, f'no way to express {precision.name}')}")
    if precision.realise == "exact" and precision.encodings is not None:
        raise Unsupported("encodings that bind are not passed on to the Q/DQ writer")
    if precision.name == "int8" and precision.activations_symmetric is False:
        raise Unsupported(f"{flavor.title} takes symmetric int8 only: a zero point other than 0 is refused")
    if precision.name == "int8" and not precision.weights_symmetric:
        raise Unsupported(f"{flavor.title} takes symmetric int8 weights only")


REALISED = ("float32", "float16", "int8", "float8", "weight-only-int4")
INT4_BLOCK = 64  # rows that share a scale; TensorRT's documentation lists 64 and 128
GAPS = {
    "binary": "there is no 1-bit kernel",
    "dynamic-int8": "activation ranges are fixed when the engine is built; there is no dynamic int8",
    "bfloat16": "no bfloat16 ONNX is written by harness_onnx",
    "weight-only-int8": "int8 weights without int8 activations are unpacked when the engine is built: nothing is saved",
    "dynamic-int4": "int4 is for weights alone",
}


def write_typed(model: Model, out: Path, job: Job, *, rest: str = "float32") -> str:
    """Write the ONNX file whose types are the precision, and return how in one line.

    Args:
        model: In float32, with the precision that is wanted.
        out: The file to write.
        job: Its calibration split gives the ranges.
        rest: What a quantized file computes where it is not quantized: "float32" or "float16".
    """
    name = model.precision.name
    if harness_onnx.as_given(model):
        shutil.copyfile(model.path, out)
        return "the user's quantized ONNX file"
    if name == "float16":
        harness_onnx.to_float16(model.path, out)
        return "float16 ONNX, float32 at the border"
    if name == "float32":
        shutil.copyfile(model.path, out)
        return "the ONNX file as exported"
    how = {"int8": _int8, "float8": _float8, "weight-only-int4": _int4}[name](model, out, job)
    if rest == "float16":
        harness_onnx.halve_rest(out)
    return f"{how}, other layers {rest}"


def _int8(model: Model, out: Path, job: Job) -> str:
    precision = model.precision
    feeds, items = _feeds(model, job)
    method = (precision.calibration or Calibration()).method
    harness_onnx.symmetric_qdq(
        model.path,
        out,
        feeds,
        calibration=method,
        per_channel=precision.granularity == "per-channel",
        exclude=harness_onnx.float_nodes(model.path, precision.overrides, model.names),
    )
    return f"symmetric int8 Q/DQ by ONNX Runtime, {precision.granularity} weights, {method} over {items} items"


def _float8(model: Model, out: Path, job: Job) -> str:
    feeds, items = _feeds(model, job)
    exclude = harness_onnx.float_nodes(model.path, model.precision.overrides, model.names)
    harness_onnx.float8_qdq(model.path, out, feeds, exclude=exclude)
    return f"float8 (E4M3) Q/DQ by ONNX Runtime, per-tensor scales from the spread over {items} items"


def _int4(model: Model, out: Path, job: Job) -> str:
    del job
    if "int8" in model.precision.overrides.values():
        raise Unsupported(
            "tensorrt: beside layers with int4 weights others can stay float, but not have int8 weights",
            hint="mixed-precision:widths=int4/float32",
        )
    exclude = harness_onnx.float_nodes(model.path, model.precision.overrides, model.names)
    counts = harness_onnx.weight_only(model.path, out, bits=4, exclude=exclude, block=INT4_BLOCK, blocks_only=True)
    return f"int4 weights of {sum(counts.values())} matrix products, a scale for {INT4_BLOCK} rows"


def _feeds(model: Model, job: Job) -> tuple[Any, int]:
    wanted = model.precision.calibration or Calibration()
    feeds, items = harness_onnx.calibration_feeds(model, job.data.split("calibration").inputs, wanted.samples)
    if not feeds:
        raise HarnessError(f"static {model.precision.name} needs a calibration split and it is empty")
    return feeds, items
