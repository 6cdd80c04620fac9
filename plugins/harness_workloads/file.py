"""The workload of a user's own model file, with the user's own data or none."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
    as_array,
    feed,
    first_line,
    fixed_batch,
    items_in,
    param,
)
from harness_workloads.archives import Arrays, divide, label_name, names, read, shapes, sizes
from harness_workloads.formats import Declared, declared, model_format
from harness_workloads.labels import checked_labels, first_output
from harness_workloads.roles import Interface, resolve, said, single
from harness_workloads.scoring import (
    accuracy,
    correct,
    cross_entropy,
    mean_squared_error,
    root_mean,
    squared_error,
)
from harness_workloads.seeded import seeded_split
from harness_workloads.tflite import own_precision

if TYPE_CHECKING:
    from harness.api import Task

TASKS = ("", "classification", "none")
LARGEST = 2 * 1024**3  # bytes of one protobuf file


@dataclass(frozen=True)
class Params:
    """Which files."""

    path: str = param("", "model file: .onnx, .pt2 (torch.export) or .tflite")
    data: str | None = param(None, ".npz with an array per input, optional labels 'y', optional 'calib_<input>'")
    axes: str = param("", "item axis of inputs where the file does not tell, such as 'x=1;rate=none'")
    states: str = param("", "inputs that an output is fed back into, such as 'h=hn'")
    task: str = param("", "what the first output is; found from labels where not said", choices=TASKS)
    classes_axis: int | None = param(None, "axis of the classes in the first output, items first")


def _path(params: Params) -> Path:
    if not params.path:
        raise BadModel("no model file is given", hint="--model my.onnx, or file:path=my.onnx as a workload")
    return Path(params.path)


def _declared(params: Params) -> Declared:
    return declared(_path(params))


def interface(params: Params) -> Interface:
    """Return the model's inputs and outputs with their roles; of the data only names and shapes are read.

    Raises:
        BadModel: The files do not fit each other, or what is said of them; one sentence says how.
    """
    return _interface(params, *_modified_ns(params))


def _modified_ns(params: Params) -> tuple[int, int]:
    return _path(params).stat().st_mtime_ns if _path(params).exists() else 0, _data_modified_ns(params)


def _data_modified_ns(params: Params) -> int:
    if params.data is None:
        return 0
    try:
        return Path(params.data).stat().st_mtime_ns
    except OSError as error:
        raise BadModel(f"data file {params.data} cannot be read: {error.strerror}") from error


@lru_cache(maxsize=8)
def _interface(params: Params, _model_ns: int, _data_ns: int) -> Interface:
    found = _declared(params)
    held = None if params.data is None else shapes(Path(params.data))
    told = said(params.axes, params.states)
    return resolve(str(_path(params)), found.takes, found.gives, held, told, params.data or "")


def labelled(params: Params) -> bool:
    """Tell whether the data holds labels of a declared task; the arrays are not read."""
    if params.data is None or params.task == "none":
        return False
    inputs = _declared(params).inputs
    return label_name(inputs) in names(Path(params.data)) and label_name(inputs) not in inputs


def task(params: Params) -> Task:
    """Return what is declared of the first output: nothing is guessed from its shape."""
    if params.task == "none":
        return "none"
    declares = params.task == "classification" or params.classes_axis is not None or labelled(params)
    return "classification" if declares else "none"


def _arrays(params: Params) -> Arrays:
    return _read(params, *_modified_ns(params))


@lru_cache(maxsize=2)
def _read(params: Params, _model_ns: int, _data_ns: int) -> Arrays:
    found = interface(params)
    first = first_output(found, _declared(params).gives)
    as_labels = partial(checked_labels, first=first, axis=params.classes_axis, task=params.task)
    return read(Path(params.data or ""), found.inputs, stacked=found.stacked, as_labels=as_labels)


def split(params: Params, name: SplitName) -> Split:
    """Return a split of the user's data, or seeded inputs where there is none.

    Raises:
        BadModel: The data does not fit the model, or the model is not valid.
    """
    _refuse_invalid(_path(params), _path(params).stat().st_mtime_ns)
    if params.data is None:
        return seeded_split(interface(params).inputs, name, str(_path(params)))
    return divide(_arrays(params), name, train=_declared(params).format == "torch")


@lru_cache(maxsize=8)
def _refuse_invalid(path: Path, _modified_ns: int) -> None:
    """Refuse an ONNX file that nothing can run, once for all splits."""
    if model_format(path) == "onnx":
        import harness_onnx

        harness_onnx.refuse_invalid(path)


def _fit(params: Params, job: Job) -> Model:
    found, known = _declared(params), interface(params)
    if params.data is not None:
        counts = sizes(_arrays(params), train=found.format == "torch")
        told = ", ".join(f"{name} {count}" for name, count in counts.items() if count)
        job.log.info("%s is divided into disjoint splits: %s", params.data, told)
    flags: tuple[str, ...] = ("random_calibration",) if params.data is None else ()
    if found.format == "torch":
        import harness_torch
        from harness_workloads.program import load_program

        module = load_program(found.files[0])
        return harness_torch.new_model(module, job, known.inputs, found.outputs, flags=flags, axes=known.axes)
    target = job.out / f"model{found.files[0].suffix}"
    if found.format == "onnx":
        made, known = _read_in(found, known, target, params, job)
        flags += made
    else:
        shutil.copyfile(found.files[0], target)
    precision = _own_precision(target) if found.format == "onnx" else own_precision(target)
    return Model(found.format, target, known.inputs, found.outputs, flags=flags, precision=precision, axes=known.axes)


def _read_in(
    found: Declared, known: Interface, target: Path, params: Params, job: Job
) -> tuple[tuple[str, ...], Interface]:
    """Write the normal form of an ONNX file, with external data inside.

    Returns:
        The flags that it brings, and its interface as far as running it tells more.
    """
    import harness_onnx

    total = sum(file.stat().st_size for file in found.files)
    if total >= LARGEST:
        raise BadModel(f"model {found.files[0]} has {total} bytes; one ONNX file holds less than {LARGEST}")
    feeds = [_one_call(known.inputs, params, size) for size in (2, 1)]
    flags, why = harness_onnx.normal_form(found.files[0], target, [one for one in feeds if one is not None])
    if why:
        job.log.warning("%s is used as it came: %s", found.files[0].name, why)
    try:
        known = _tried(harness_onnx.runner(target), found.outputs, known, params)
    except Exception as error:  # noqa: BLE001  of the runtime's own classes, from loading; each target says its own
        job.log.info("%s cannot be run to find its batch: %s", found.files[0].name, first_line(str(error)))
    before, one = target.read_bytes(), _one_call(known.inputs, params, 1)
    harness_onnx.bind(target, known.inputs, found.outputs, known.sized)
    if known.sized and one is not None and not harness_onnx.runs(target, one):
        target.write_bytes(before)  # a branch that is never taken may contradict the sizes
        if harness_onnx.runs(target, one):
            harness_onnx.bind(target, known.inputs, found.outputs, None)
    return flags, known


def _one_call(inputs: Mapping[str, TensorSpec], params: Params, batch: int) -> dict[str, Any] | None:
    """Return what some items bring in one call, or as many as the model is fixed to; None where there are none."""
    try:
        arrays = split(params, "calibration").inputs
    except Unsupported:
        return None
    count = next(iter(items_in(inputs, arrays).values()))
    if not count:  # items that are all alike stand in one split, to be measured on
        return None
    return feed(inputs, arrays, [place % count for place in range(fixed_batch(inputs) or batch)])


def _of_fixed_batch(outputs: Sequence[str], found: Sequence[tuple[int, ...]] | None, known: Interface) -> Interface:
    """Return the interface with the item axes of outputs as one call of a fixed batch shows them."""
    axes = dict(known.axes)
    for name, shape in zip(outputs, found or (), strict=False):
        axis = axes.get(name)
        if axis is not None and (axis >= len(shape) or shape[axis] != known.batch):
            same = [at for at, size in enumerate(shape) if size == known.batch]
            axes[name] = same[0] if len(same) == 1 else None
    return replace(known, axes=axes)


def _tried(
    run: Callable[[Mapping[str, Any]], Sequence[Any]], outputs: Sequence[str], known: Interface, params: Params
) -> Interface:
    """Run a file that says it takes any batch with two and three items, and return what that tells.

    A file that takes one item alone is fixed to it. Of an output of which the file does not tell the item axis, it is
    the one that grows with the batch; of one whose shape is not as the file says, the only one of the batch's size.
    """
    if _one_call(known.inputs, params, 1) is None:
        return known
    if known.batch is not None:
        return _of_fixed_batch(outputs, _shapes(run, _one_call(known.inputs, params, known.batch)), known)
    two = _shapes(run, _one_call(known.inputs, params, 2))
    if two is None:
        alone = _shapes(run, _one_call(known.inputs, params, 1))
        return known if alone is None else _of_fixed_batch(outputs, alone, single(known))
    three = _shapes(run, _one_call(known.inputs, params, 3)) if known.unsure else None
    axes = dict(known.axes)
    for name, *pair in zip(outputs, two, three or (), strict=False):
        if name in known.unsure:
            grown = [at for at, sizes in enumerate(zip(*pair, strict=False)) if sizes == (2, 3)]
            axes[name] = grown[0] if grown and len(pair[0]) == len(pair[1]) else None
    return replace(known, axes=axes)


def _shapes(run: Callable[[Mapping[str, Any]], Sequence[Any]], inputs: Mapping[str, Any] | None) -> list[Any] | None:
    try:
        return [as_array(value).shape for value in run(inputs or {})]
    except Exception:  # noqa: BLE001  a runtime raises of many classes; what does not run is told where it matters
        return None


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
    """Return the workloads of this module."""
    classification = WorkloadSpec(
        name="file",
        modality="file",
        summary="your own model file; with labelled data its accuracy, else its agreement with itself in float32",
        params=Params,
        inputs=lambda params: interface(params).inputs,
        outputs=lambda params: _declared(params).outputs,
        fit=_fit,
        split=split,
        task=task,
        classes_axis=lambda params: params.classes_axis,
        score=correct,
        aggregate=accuracy,
        loss=cross_entropy,
        produces=lambda params: model_format(_path(params)),
        labelled=labelled,
        fingerprint=_fingerprint,
    )
    yield classification
    yield replace(
        classification,
        name="file-regression",
        summary="the same with labels that are values: root mean squared error, lower is better",
        split=lambda params, name: split(replace(params, task="regression"), name),
        fit=lambda params, job: _fit(replace(params, task="regression"), job),
        task="regression",
        metric="RMSE",
        unit="",
        higher_is_better=False,
        interval="bootstrap",
        score=squared_error,
        aggregate=root_mean,
        loss=mean_squared_error,
    )
