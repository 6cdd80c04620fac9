"""The workload of a user's own PyTorch model and arrays, made by a function of the user's."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import inspect
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from harness.api import BadModel, Job, Model, Split, SplitName, TensorSpec, Unsupported, WorkloadSpec, param
from harness_workloads.archives import Arrays, class_labels, divide
from harness_workloads.scoring import (
    accuracy,
    correct,
    cross_entropy,
    mean_squared_error,
    root_mean,
    squared_error,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

NEEDED: tuple[SplitName, ...] = ("calibration", "selection", "test")


@dataclass(frozen=True)
class UserWorkload:
    """What a factory returns: a model and the data that trains, calibrates and judges it.

    Attributes:
        model: A ``torch.nn.Module`` (trained where ``epochs`` is 0), or a function of the keyword arguments
            ``width`` and ``depth`` that returns an untrained one: then methods can derive smaller students. It takes
            its inputs by position and returns a tensor or a tuple.
        inputs: All items by input name in call order, shape [n, …]; divided into seeded disjoint splits. Leave it
            empty to give ``splits``.
        labels: Class indices [n], or values [n, k] for a regression; ``None`` where there are none.
        splits: Inputs and labels of "train", "calibration", "selection" and "test", in place of ``inputs``; "train"
            may be missing where ``epochs`` is 0.
        outputs: Names of the outputs.
        task: Of the data; a regression is asked for as ``factory-regression``.
        epochs: Passes of training over the train split; 0 takes the model as it is.
        lr: Peak learning rate.
    """

    model: Any
    inputs: Mapping[str, NDArray[Any]] = dataclasses.field(default_factory=dict)
    labels: NDArray[Any] | None = None
    splits: Mapping[SplitName, Split] = dataclasses.field(default_factory=dict)
    outputs: tuple[str, ...] = ("logits",)
    task: Literal["classification", "regression"] = "classification"
    epochs: int = 0
    lr: float = 1e-3


@dataclass(frozen=True)
class Params:
    """Which factory."""

    target: str = param("", "pkg.module:function that returns a harness_workloads.UserWorkload")
    epochs: int | None = param(None, "passes of training, in place of what the factory says", ge=0)


def _import(target: str) -> Callable[[], object]:
    module, _, name = target.partition(":")
    if not module or not name:
        raise BadModel(f"factory {target!r} is not of the form pkg.module:function")
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        folder = str(Path.cwd())  # a console script does not look where it is called from
        if error.name is None or not module.startswith(error.name) or folder in sys.path:
            raise BadModel(f"factory {target!r} cannot be imported: {error}") from error
        sys.path.insert(0, folder)
        return _import(target)
    if not callable(getattr(found, name, None)):
        raise BadModel(f"factory {target!r}: module {module} has no function {name!r}")
    function: Callable[[], object] = getattr(found, name)
    return function


@lru_cache(maxsize=4)
def _made(target: str) -> UserWorkload:
    import harness_torch

    function = _import(target)
    harness_torch.seed_everything(0)  # so that a factory that draws data draws the same in every process
    made = function()
    if not isinstance(made, UserWorkload):
        raise BadModel(f"factory {target!r} returns {type(made).__name__}; harness_workloads.UserWorkload is due")
    _check(target, made)
    return made


def _check(target: str, made: UserWorkload) -> None:
    if bool(made.inputs) == bool(made.splits):
        raise BadModel(f"factory {target!r} must give either inputs or splits")
    if made.splits:
        needed = (*NEEDED, "train") if made.epochs else NEEDED
        missing = [name for name in needed if name not in made.splits]
        if missing:
            raise BadModel(f"factory {target!r} gives splits without {missing[0]!r}")
    if made.task == "classification":
        parts = {"inputs": made.labels} if made.inputs else {name: item.labels for name, item in made.splits.items()}
        for name, labels in parts.items():
            if labels is not None:
                class_labels(labels, f"of {name} from factory {target!r}")


def _asked(params: Params, task: str) -> UserWorkload:
    made = _made(params.target)
    if made.task != task:
        name = "factory" if made.task == "classification" else "factory-regression"
        raise BadModel(f"factory {params.target!r} makes a {made.task}", hint=f"ask for the workload {name}")
    return made


def _one(params: Params) -> Split:
    made = _made(params.target)
    return made.splits["test"] if made.splits else Split(made.inputs, made.labels)


def _split(params: Params, name: SplitName) -> Split:
    made = _made(params.target)
    if not made.splits:
        return divide(Arrays(made.inputs, made.labels), name, train=True)
    if name not in made.splits:
        raise Unsupported(f"factory {params.target!r} gives no {name} split")
    return made.splits[name]


def _build(params: Params, *, width: float = 1.0, depth: float = 1.0) -> Any:
    made = _made(params.target)
    if not _is_function(made.model):
        raise Unsupported(
            f"factory {params.target!r} gives a module, of which no other size can be built",
            hint="give model as a function of width and depth",
        )
    return made.model(width=width, depth=depth)


def _is_function(model: Any) -> bool:
    from torch import nn

    return not isinstance(model, nn.Module)


def _fit(params: Params, job: Job, *, task: str) -> Model:
    import copy

    import harness_torch

    made = _asked(params, task)
    harness_torch.seed_everything(job.seed)
    module = job.workload.build() if _is_function(made.model) else copy.deepcopy(made.model)
    epochs = made.epochs if params.epochs is None else params.epochs
    harness_torch.fit(module, job, epochs=epochs, lr=made.lr)
    return harness_torch.new_model(module.eval(), job, job.workload.inputs, job.workload.outputs)


def _fingerprint(params: Params) -> str:
    """Hash the arrays, the weights of a given module, and the source file of the factory."""
    made = _made(params.target)
    digest = hashlib.sha256()
    source = inspect.getsourcefile(_import(params.target))
    if source:
        digest.update(Path(source).read_bytes())
    for name, split in [*made.splits.items(), ("all", Split(made.inputs, made.labels))]:
        for key, value in {**split.inputs, "labels": split.labels}.items():
            digest.update(f"{name} {key}".encode() + (b"" if value is None else value.tobytes()))
    if not _is_function(made.model):
        for value in made.model.state_dict().values():
            digest.update(value.contiguous().numpy().tobytes())
    return digest.hexdigest()


def _inputs(params: Params) -> dict[str, TensorSpec]:
    return {name: TensorSpec(str(value.dtype), (None, *value.shape[1:])) for name, value in _one(params).inputs.items()}


def workloads() -> Iterable[WorkloadSpec[Any]]:
    """Return the workloads of this module."""
    classification = WorkloadSpec(
        name="factory",
        modality="file",
        summary="your own PyTorch model and arrays, from a function of yours that returns a UserWorkload",
        params=Params,
        inputs=_inputs,
        outputs=lambda params: _made(params.target).outputs,
        fit=lambda params, job: _fit(params, job, task="classification"),
        split=_split,
        score=correct,
        aggregate=accuracy,
        model=_build,
        loss=cross_entropy,
        labelled=lambda params: _one(params).labels is not None,
        fingerprint=_fingerprint,
    )
    yield classification
    yield dataclasses.replace(
        classification,
        name="factory-regression",
        summary="the same for a regression: root mean squared error, lower is better",
        fit=lambda params, job: _fit(params, job, task="regression"),
        task="regression",
        metric="RMSE",
        unit="",
        higher_is_better=False,
        interval="bootstrap",
        score=squared_error,
        aggregate=root_mean,
        loss=mean_squared_error,
    )
