"""The workload of a user's own model file, with the user's own data or none."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from harness.api import BadModel, Job, Model, Precision, Split, SplitName, WorkloadSpec, param
from harness_workloads.archives import LABELS, Arrays, divide, names, read, sizes
from harness_workloads.formats import Declared, declared, model_format, onnx_model
from harness_workloads.modern import has_made_weights, is_old, modernise
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
        BadModel: The data does not fit the model.
    """
    if params.data is None:
        return seeded_split(_declared(params).inputs, name, str(_path(params)))
    return divide(_arrays(params), name, train=_declared(params).format == "torch")


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
    _copy(found, target)
    if found.format == "onnx":
        flags += _brought_up_to_date(found.files[0], target)
    precision = _own_precision(target) if found.format == "onnx" else own_precision(target)
    return Model(found.format, target, dict(found.inputs), found.outputs, flags=flags, precision=precision)


def _copy(found: Declared, target: Path) -> None:
    """Copy the model into one file; external data goes inside."""
    if len(found.files) == 1:
        shutil.copyfile(found.files[0], target)
        return
    import onnx

    total = sum(file.stat().st_size for file in found.files)
    if total >= LARGEST:
        raise BadModel(f"model {found.files[0]} has {total} bytes; one ONNX file holds less than {LARGEST}")
    onnx.save_model(onnx.load(found.files[0]), target, save_as_external_data=False)


def _brought_up_to_date(source: Path, target: Path) -> tuple[str, ...]:
    """Rewrite an old file where it lies, and return the flags of its weights."""
    import onnx

    model = onnx_model(target)
    if is_old(model):
        model = modernise(model, source)
        onnx.save(model, target)
    return ("synthetic_weights",) if has_made_weights(model) else ()


def _own_precision(path: Path) -> Precision:
    """Return what a file says it computes in: int8 as it is where it holds conversions to integers, else float32."""
    import onnx

    kinds = {node.op_type for node in onnx.load(path, load_external_data=False).graph.node}
    if any(kind in {"QuantizeLinear", "DequantizeLinear"} or kind.startswith("QLinear") for kind in kinds):
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
