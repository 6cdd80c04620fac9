"""From a .tflite model to the artifact: as it is, or quantized."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

from harness.api import Artifact, Job, Model, Options, Unsupported, stored_size, weight_bytes
from harness_tflite import flatbuffer
from harness_tflite.chatter import captured
from harness_tflite.quantize import Quantized, quantize
from harness_tflite.session import AXES
from harness_tflite.sparse import sparsify

QUANTIZED = frozenset({"float16", "int8", "dynamic-int8", "weight-only-int8", "weight-only-int4"})


def lower(model: Model, options: Options, job: Job) -> Artifact:
    """Write the artifact into ``job.out``.

    Raises:
        Unsupported: LiteRT cannot realise the precision.
    """
    del options  # the file is already of one batch size
    name = model.precision.name
    path = job.out / "model.tflite"
    axes = {key: spec.axis for key, spec in model.inputs.items()}
    if any(axis != 0 for axis in axes.values()):
        (job.out / AXES).write_text(json.dumps(axes))
    quantized = flatbuffer.is_quantized(model.path)
    if quantized and model.precision.realise == "exact" and model.precision.encodings is None:
        shutil.copyfile(model.path, path)
        return _artifact(model, path, name, "the file as given", ())
    if quantized and name != "float32":
        raise Unsupported("the file is quantized already; baseline runs it as it is")
    if name == "float32" and model.precision.storage == "sparse":
        return _sparse(model, path)
    if name == "float32":
        shutil.copyfile(model.path, path)
        return _artifact(model, path, name, "the file as converted", ())
    if name == "binary":
        shutil.copyfile(model.path, path)
        return _artifact(model, path, "float32", "the file as converted: signs are multiplied in float32", ())
    if name not in QUANTIZED:
        raise Unsupported(f"LiteRT has no kernels for {name}", hint=f"use one of {', '.join(sorted(QUANTIZED))}")
    _refuse_nothing(model.path, name)
    job.progress(0.2, f"quantizing to {name}")
    with captured(job.log):
        result = quantize(model, lambda: job.data.split("calibration"), path, threads=job.threads)
    for op, reason in result.left_out.items():
        job.log.warning("%s stays in float: %s", op, reason)
    if not _bytes_of(path, model.precision.weights):
        left = "; ".join(f"{op} left in float: {reason}" for op, reason in result.left_out.items())
        raise Unsupported(f"LiteRT: nothing to quantize: every weight stays as it is{f' ({left})' if left else ''}")
    realised = "weight-only-float16" if name == "float16" else name  # the arithmetic is float32
    return _artifact(model, path, realised, result.how, _flags(result))


def _refuse_nothing(path: Path, name: str) -> None:
    """Refuse what would leave a file's weights as they are, or has no scale.

    Raises:
        Unsupported: float16 is asked of a file that has it, or a weight holds NaN.
    """
    if name == "float16" and _bytes_of(path, "float16") and not _bytes_of(path, "float32"):
        raise Unsupported("the weights are float16 already; baseline runs the file as it is")
    for weight, count, size in flatbuffer.not_a_number(path):
        raise Unsupported(f"weight {weight!r} holds NaN ({count} of its {size} values), which has no scale")


def _bytes_of(path: Path, dtype: str) -> int:
    return weight_bytes(flatbuffer.weight_spans(path)).get(dtype, 0)


def _sparse(model: Model, path: Path) -> Artifact:
    """Store the zeros of 1x1 convolutions sparse; what runs dense all the same is flagged."""
    found = sparsify(model.path, path)
    if not found.zeros:
        shutil.copyfile(model.path, path)
        how = "the file as converted: no 1x1 convolution is half zeros, and others have no sparse kernel"
        return _artifact(model, path, "float32", how, ("stored_sparse_executed_dense",))
    share = sum(found.zeros.values()) / len(found.zeros)
    how = (
        f"{len(found.zeros)} 1x1 kernels with {share:.0%} zeros as sparse rows, {found.bytes_saved} bytes saved; "
        "XNNPACK has sparse kernels on ARM64, on x86 with AVX it unpacks the rows at load and computes dense"
    )
    return _artifact(model, path, "float32", how, ())


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _flags(result: Quantized) -> tuple[str, ...]:
    return (*(f"float_op:{op}" for op in result.left_out), *result.flags)


def _artifact(model: Model, path: Path, realised: str, how: str, flags: tuple[str, ...]) -> Artifact:
    spans = flatbuffer.weight_spans(path)
    stored, stored_as = stored_size(path, spans, model.precision.storage)
    return Artifact(
        path=path,
        format="tflite",
        sha256=_sha256(path),
        realised=realised,
        how=how,
        artifact_bytes=path.stat().st_size,
        stored_bytes=stored,
        stored_as=stored_as,
        flags=flags,
        weight_bytes=weight_bytes(spans),
    )
