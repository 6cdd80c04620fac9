"""The workload of a user's own model file, with the user's own data or none."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from harness.api import (
    BadModel,
    Job,
    Model,
    Precision,
    Split,
    SplitName,
    TensorSpec,
    Unsupported,
    WorkloadSpec,
    feed,
    items_in,
    param,
)
from harness_workloads.archives import LABELS, Arrays, divide, names, read, sizes
from harness_workloads.formats import Declared, declared, model_format
from harness_workloads.scoring import accuracy, correct, cross_entropy
from harness_workloads.seeded import seeded_split
from harness_workloads.tflite import own_precision

LARGEST = 2 * 1024**3  # bytes of one protobuf file


@dataclass(frozen=True)
class Params:
    """Which files."""

    path: str = param("", "model file: .onnx, .pt2 (torch.export) or .tflite")
    data: str | None = param(None, ".npz with an array per input, optional labels 'y', optional 'calib_<input>'")


def _path(params: Params) -> Path:
    if not params.path:
        raise BadModel("no model file is given", hint="--model my.onnx, or file:path=my.onnx as a workload")
    return Path(params.path)


def _declared(params: Params) -> Declared:
    return declared(_path(params))


def labelled(params: Params) -> bool:
    """Tell whether the data holds labels; the arrays are not read."""
    if params.data is None:
        return False
    return LABELS in names(Path(params.data)) and LABELS not in _declared(params).inputs


def _arrays(params: Params) -> Arrays:
    path = Path(params.data or "")
    try:
        state = path.stat()
    except OSError as error:
        raise BadModel(f"data file {path} cannot be read: {error.strerror}") from error
    return _read(params, state.st_mtime_ns)


@lru_cache(maxsize=2)
def _read(params: Params, _modified_ns: int) -> Arrays:
    return read(Path(params.data or ""), _declared(params).inputs)


def split(params: Params, name: SplitName) -> Split:
    """Return a split of the user's data, or seeded inputs where there is none.

    Raises:
        BadModel: The data does not fit the model, or the model is not valid.
    """
    _refuse_invalid(_path(params), _path(params).stat().st_mtime_ns)
    if params.data is None:
        return seeded_split(_declared(params).inputs, name, str(_path(params)))
    return divide(_arrays(params), name, train=_declared(params).format == "torch")


@lru_cache(maxsize=8)
def _refuse_invalid(path: Path, _modified_ns: int) -> None:
    """Refuse an ONNX file that nothing can run, once for all splits."""
    if model_format(path) == "onnx":
        import harness_onnx

        harness_onnx.refuse_invalid(path)


def _fit(params: Params, job: Job) -> Model:
    found = _declared(params)
    if params.data is not None:
        counts = sizes(_arrays(params), train=found.format == "torch")
        told = ", ".join(f"{name} {count}" for name, count in counts.items() if count)
        job.log.info("%s is divided into disjoint splits: %s", params.data, told)
    flags: tuple[str, ...] = ("random_calibration",) if params.data is None else ()
    if found.format == "torch":
        import harness_torch
        from harness_workloads.program import load_program

        module = load_program(found.files[0])
        return harness_torch.new_model(module, job, found.inputs, found.outputs, flags=flags)
    target = job.out / f"model{found.files[0].suffix}"
    if found.format == "onnx":
        flags += _read_in(found, target, params, job)
    else:
        shutil.copyfile(found.files[0], target)
    precision = _own_precision(target) if found.format == "onnx" else own_precision(target)
    return Model(found.format, target, dict(found.inputs), found.outputs, flags=flags, precision=precision)


def _read_in(found: Declared, target: Path, params: Params, job: Job) -> tuple[str, ...]:
    """Write the normal form of an ONNX file, with external data inside, and return the flags that it brings."""
    import harness_onnx

    total = sum(file.stat().st_size for file in found.files)
    if total >= LARGEST:
        raise BadModel(f"model {found.files[0]} has {total} bytes; one ONNX file holds less than {LARGEST}")
    flags, why = harness_onnx.normal_form(found.files[0], target, _calls(found.inputs, params))
    if why:
        job.log.warning("%s is used as it came: %s", found.files[0].name, why)
    return flags


def _calls(inputs: Mapping[str, TensorSpec], params: Params) -> list[dict[str, Any]]:
    """Return the inputs of a call with two items and of one with one, or with as many as the file is fixed to."""
    try:
        arrays = split(params, "calibration").inputs
    except Unsupported:
        return []
    items = [spec for spec in inputs.values() if spec.role == "item"]
    fixed = next((size for spec in items if spec.axis is not None and (size := spec.shape[spec.axis])), None)
    sizes_tried = (fixed,) if fixed else (1,) if any(spec.axis is None for spec in items) else (2, 1)
    count = min(items_in(inputs, arrays).values(), default=1)
    return [feed(inputs, arrays, [place % count for place in range(size)]) for size in sizes_tried]


def _own_precision(path: Path) -> Precision:
    """Return what a file says it computes in: int8 as it is where it holds conversions to integers, else float32."""
    import harness_onnx

    if harness_onnx.is_quantized(path):
        return Precision("int8", "int8", "static", realise="exact")
    return Precision()


def _fingerprint(params: Params) -> str:
    digest = hashlib.sha256()
    files = [*_declared(params).files, *([Path(params.data)] if params.data else [])]
    for file in files:
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def workloads() -> Iterable[WorkloadSpec[Any]]:
    """Return the workload of this module."""
    yield WorkloadSpec(
        name="file",
        modality="file",
        summary="your own model file; with labelled data its accuracy, else its agreement with itself in float32",
        params=Params,
        inputs=lambda params: _declared(params).inputs,
        outputs=lambda params: _declared(params).outputs,
        fit=_fit,
        split=split,
        score=correct,
        aggregate=accuracy,
        loss=cross_entropy,
        produces=lambda params: model_format(_path(params)),
        labelled=labelled,
        fingerprint=_fingerprint,
    )
