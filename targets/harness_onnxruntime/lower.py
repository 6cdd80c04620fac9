"""ONNX files in, ONNX files out, quantized the way ONNX Runtime runs fastest."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from harness.api import Artifact, Calibration, Job, Model, Options, Unsupported, stored_size, weight_bytes
from harness_onnx import (
    as_given,
    bound_ranges,
    calibration_feeds,
    dynamic_int8,
    float_nodes,
    override_nodes,
    qdq,
    recurrent_nodes,
    save_normalised,
    to_float16,
    weight_only,
    weight_spans,
    widened,
)
from harness_onnxruntime.mending import keep_answers

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from harness_onnxruntime.params import Params

    Way = Callable[[Model, Params, Job, Path], str | tuple[str, tuple[str, ...]]]


def lower(model: Model, params: Params, options: Options, job: Job) -> Artifact:
    """Realise the wanted precision in an ONNX file.

    Raises:
        Unsupported: ONNX Runtime's CPU provider cannot realise it.
    """
    del options
    wanted = model.precision
    if as_given(model):
        return _written(model, params, job, _float32)
    ways: Mapping[str, Way] = {
        "float32": _float32,
        "float16": _float16,
        "int8": _int8,
        "dynamic-int8": _dynamic,
        "weight-only-int8": _weight_only,
        "weight-only-int4": _weight_only,
        "binary": _binary,
    }
    if wanted.name not in ways:
        known = f"known: {', '.join(ways)}"
        raise Unsupported(f"onnxruntime's CPU provider does not realise {wanted.name}", hint=known)
    if params.provider != "cpu" and wanted.name not in {"float32", "float16", "int8"}:
        raise Unsupported(f"onnxruntime: {wanted.name} has kernels in the CPU provider alone, not in {params.provider}")
    wide = job.out / "wide.onnx"
    if wanted.weights in {"float16", "int8", "int4"}:
        _refuse_halves(model)
        model = widened(model, wide)
    artifact = _written(model, params, job, ways[wanted.name])
    wide.unlink(missing_ok=True)
    return artifact


def _refuse_halves(model: Model) -> None:
    """Refuse to halve what is stored in float16.

    Raises:
        Unsupported: With the reason.
    """
    stored = weight_bytes(weight_spans(model.path)) if model.precision.name == "float16" else {}
    if "float16" in stored and not {"float32", "float64"} & set(stored):
        raise Unsupported("the weights are float16 already; baseline runs the file as it is")


def _written(model: Model, params: Params, job: Job, way: Way) -> Artifact:
    wanted, out = model.precision, job.out / "model.onnx"
    told = way(model, params, job, out)
    how, flags = (told, ()) if isinstance(told, str) else told
    spans = weight_spans(out)
    stored, stored_as = stored_size(out, spans, wanted.storage)
    if params.saved != "no":
        out, how = save_optimised(out, params.saved), f"{how}; rewritten and saved as {params.saved}"
        stored, stored_as = out.stat().st_size, ""
    return Artifact(
        path=out,
        format=out.suffix.removeprefix("."),
        sha256=_sha256(out),
        realised="float32" if wanted.name == "binary" else wanted.name,
        how=how,
        artifact_bytes=out.stat().st_size,
        stored_bytes=stored,
        stored_as=stored_as,
        flags=flags,
        weight_bytes=weight_bytes(spans),
    )


def save_optimised(source: Path, kind: str) -> Path:
    """Write the graph as ONNX Runtime rewrites it for any CPU, beside its source, and return the new file.

    What depends on this CPU, such as the NCHWc layout, is left to the load.
    """
    import onnxruntime

    out = source.with_name("optimised.onnx" if kind == "onnx" else "optimised.ort")
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(out)
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    options.add_session_config_entry("session.save_model_format", kind.upper())
    onnxruntime.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])
    return out


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _float32(model: Model, params: Params, job: Job, out: Path) -> str:
    del params, job
    save_normalised(model.path, out)
    return "graph as exported"


def _binary(model: Model, params: Params, job: Job, out: Path) -> str:
    del params, job
    save_normalised(model.path, out)
    return "graph as exported: signs are computed and multiplied in float32, for there is no 1-bit kernel"


def _weight_only(model: Model, params: Params, job: Job, out: Path) -> str:
    del job
    wanted = model.precision
    bits = 4 if wanted.weights == "int4" else 8
    given = override_nodes(model.path, wanted.overrides, model.names, dtypes=("float32", "int8"))
    per_channel = wanted.granularity == "per-channel"
    recurrent = recurrent_nodes(model.path)  # no kernel takes their matrices as integers
    exclude, wider = given["float32"], given["int8"].keys() - recurrent.keys()
    counts = weight_only(model.path, out, bits=bits, per_channel=per_channel, exclude=exclude, wider=wider)
    layers = ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
    blocks = ", blocks of 32 rows in MatMul" if bits == 4 and per_channel else ""
    left = len(exclude.keys() | recurrent.keys())
    mixed = f"; {len(wider)} layers with int8 weights, {left} left float32" if wanted.overrides else ""
    inside = {"float32": "float32", "int8": "rows of int8 in MatMul"}[params.weight_only_activations]
    how = f"DequantizeLinear of symmetric {wanted.weights} weights ({layers}), {wanted.granularity}{blocks}{mixed}"
    return f"{how}; activations: {inside}"


_NAMED = 5  # operators that are named at most


def _float16(model: Model, params: Params, job: Job, out: Path) -> str:
    del params
    feeds, _count = calibration_feeds(model, job.data.split("calibration").inputs, Calibration().samples)
    kept = to_float16(model.path, out, feeds=feeds)
    left = f"; {len(kept)} operators stay float32, whose values exceed 65504: {_few(kept)}" if kept else ""
    return f"onnxruntime.transformers.float16, float32 inputs and outputs{left}"


def _dynamic(model: Model, params: Params, job: Job, out: Path) -> str:
    del params, job
    wanted = model.precision
    exclude = float_nodes(model.path, wanted.overrides, model.names)
    behind = dynamic_int8(model.path, out, per_channel=wanted.granularity == "per-channel", exclude=exclude)
    apart = f", but by a factor behind them for the channels of {behind}" if behind else ""
    return f"quantize_dynamic, int8 weights, {wanted.granularity} for MatMul, per-tensor for Conv{apart}"


def _int8(model: Model, params: Params, job: Job, out: Path) -> tuple[str, tuple[str, ...]]:
    wanted = model.precision
    if not wanted.weights_symmetric:
        raise Unsupported("onnxruntime: int8 weights are symmetric on its fast path")
    calibration = wanted.calibration or Calibration()
    feeds, items = calibration_feeds(model, job.data.split("calibration").inputs, calibration.samples)
    bound = bound_ranges(model)
    symmetric = bool(wanted.activations_symmetric)
    activations = "int8" if symmetric else params.activations  # a symmetric uint8 would have zero point 128
    exclude = float_nodes(model.path, wanted.overrides, model.names)

    def quantize(only: Collection[str]) -> None:
        qdq(
            model.path,
            out,
            feeds,
            calibration=calibration.method,
            activations=activations,
            symmetric=symmetric,
            per_channel=wanted.granularity == "per-channel",
            reduce_range=params.reduce_range,
            exclude=exclude,
            bound=bound,
            operators=params.int8_format == "operators",
            only=only,
        )

    lost, kept = keep_answers(quantize, model, out, feeds, params)
    mended = f"; {kept} stay float32, since eight bits ruined an output" if kept else ""
    form = "QOperator" if params.int8_format == "operators" else "QDQ"
    how = (
        f"quantize_static {form}, {'symmetric ' if symmetric else ''}{activations} activations, "
        f"{wanted.granularity} int8 weights, {calibration.method} over {items} items"
        f"{bound.told}{mended}{f'; {lost.told}' if lost else ''}"
    )
    return how, (*bound.flags, *((lost.flag,) if lost else ()))


def _few(names: Collection[str]) -> str:
    return ", ".join(list(names)[:_NAMED]) + (" …" if len(names) > _NAMED else "")
