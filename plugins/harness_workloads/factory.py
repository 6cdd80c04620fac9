"""The workload of a user's own PyTorch model and arrays, made by a function of the user's."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from harness.api import (
    BadModel,
    HarnessError,
    Job,
    Model,
    Split,
    SplitName,
    TensorSpec,
    Unsupported,
    WorkloadSpec,
    param,
)
from harness_workloads.archives import Arrays, divide
from harness_workloads.importing import Found, imported, reason
from harness_workloads.labels import checked_labels
from harness_workloads.roles import Port
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

    from harness.api import Task
    from harness_torch import Plain

NEEDED: tuple[SplitName, ...] = ("calibration", "selection", "test")
_FEW = 2  # items that a module is tried with


@dataclass(frozen=True)
class UserWorkload:
    """What a factory returns: a model and the data that trains, calibrates and judges it.

    Attributes:
        model: A ``torch.nn.Module`` (trained where ``epochs`` is 0), or a function of the keyword arguments
            ``width`` and ``depth`` that returns an untrained one: then methods can derive smaller students. Inputs
            bind to forward's parameters by name, else by position; it returns tensors in a tuple, dict or dataclass.
        inputs: All items by input name in call order, shape [n, …]; divided into seeded disjoint splits. Leave it
            empty to give ``splits``. Those that ``constants`` and ``states`` name are given once, as they are fed.
        labels: Class indices [n], or values [n, k] for a regression; ``None`` where there are none. Names of classes,
            and indices with gaps, are numbered in sorted order where there are as many as the model has outputs.
        splits: Inputs and labels of "train", "calibration", "selection" and "test", in place of ``inputs``; "train"
            may be missing where ``epochs`` is 0.
        outputs: Names of the outputs, or the keys of those that count; empty for the model's own names.
        task: Of the data; a regression is asked for as ``factory-regression``.
        classes_axis: Axis of the classes in the first output, items first. Where there are neither labels nor this,
            outputs are compared as values alone.
        constants: Inputs that are one array for all items, such as a sampling rate.
        states: Input -> the output that is fed back into it; the input is given as it starts, of batch 1. Such a model
            runs item by item, in the order of the data.
        epochs: Passes of training over the train split; 0 takes the model as it is.
        lr: Peak learning rate.
    """

    model: Any
    inputs: Mapping[str, NDArray[Any]] = dataclasses.field(default_factory=dict)
    labels: NDArray[Any] | None = None
    splits: Mapping[SplitName, Split] = dataclasses.field(default_factory=dict)
    outputs: tuple[str, ...] = ()
    task: Literal["classification", "regression"] = "classification"
    classes_axis: int | None = None
    constants: tuple[str, ...] = ()
    states: Mapping[str, str] = dataclasses.field(default_factory=dict)
    epochs: int = 0
    lr: float = 1e-3

    @property
    def kept(self) -> frozenset[str]:
        """Names of the inputs that hold no items."""
        return frozenset((*self.constants, *self.states))


@dataclass(frozen=True)
class Params:
    """Which factory."""

    target: str = param("", "FILE_OR_MODULE:function that returns a harness_workloads.UserWorkload")
    epochs: int | None = param(None, "passes of training, in place of what the factory says", ge=0)


@dataclass(frozen=True)
class _Made:
    """What a factory made, checked.

    Attributes:
        user: With arrays in the dtypes that the model takes, and labels as class indices.
        plain: The model that was given, or the one that its function makes at full width and depth.
        found: Where the factory is.
    """

    user: UserWorkload
    plain: Plain
    found: Found


@lru_cache(maxsize=4)
def _made(target: str) -> _Made:
    import harness_torch

    with imported(target) as found:
        harness_torch.seed_everything(0)  # so that a factory that draws data draws the same in every process
        try:
            user = found.value() if callable(found.value) else found.value
        except HarnessError:
            raise
        except (Exception, SystemExit) as error:
            raise BadModel(f"factory {target!r} raised {reason(error)}") from error
        if not isinstance(user, UserWorkload):
            raise BadModel(f"factory {target!r} returns {type(user).__name__}; harness_workloads.UserWorkload is due")
        user = _as_arrays(user)
        _check(target, user)
        module = _sized(target, user, {})
    plain = _plain(target, user, module)
    return _Made(_fitted(target, user, plain), plain, found)


def _as_arrays(user: UserWorkload) -> UserWorkload:
    splits = {name: Split(*_arrays(item.inputs, item.labels)) for name, item in user.splits.items()}
    inputs, labels = _arrays(user.inputs, user.labels)
    return dataclasses.replace(user, inputs=inputs, labels=labels, splits=splits)


def _arrays(inputs: Mapping[str, Any], labels: Any) -> tuple[dict[str, NDArray[Any]], NDArray[Any] | None]:
    """Return arrays where tensors or lists may have been given."""

    def array(value: Any) -> NDArray[Any]:
        return np.asarray(value.detach().cpu() if hasattr(value, "detach") else value)

    return {name: array(value) for name, value in inputs.items()}, None if labels is None else array(labels)


def _check(target: str, user: UserWorkload) -> None:
    if bool(user.inputs) == bool(user.splits):
        raise BadModel(f"factory {target!r} must give either inputs or splits")
    if user.splits:
        needed = (*NEEDED, "train") if user.epochs else NEEDED
        missing = [name for name in needed if name not in user.splits]
        if missing:
            raise BadModel(f"factory {target!r} gives splits without {missing[0]!r}")
    if user.states and user.epochs:
        raise BadModel(
            f"factory {target!r} trains a model with states, which runs item by item", hint="train it before; epochs=0"
        )
    for name, split in _parts(user).items():
        _check_kept(target, user, name, split)
        items = {key: value for key, value in split.inputs.items() if key not in user.kept}
        counts = {key: len(value) if value.ndim else 0 for key, value in items.items()}
        if split.labels is not None:
            counts["labels"] = len(split.labels) if split.labels.ndim else 0
        if len(set(counts.values())) > 1:
            told = ", ".join(f"{key} {count}" for key, count in counts.items())
            raise BadModel(f"factory {target!r}: numbers of items differ in {name}: {told}")


def _check_kept(target: str, user: UserWorkload, name: str, split: Split) -> None:
    unknown = sorted(user.kept - set(split.inputs))
    if unknown:
        raise BadModel(
            f"factory {target!r}: constants and states name {unknown[0]!r}, which is no input of {name}",
            hint=f"its inputs are {', '.join(map(repr, split.inputs))}",
        )
    if user.kept >= set(split.inputs):
        raise BadModel(f"factory {target!r}: no input of {name} differs from item to item")


def _parts(user: UserWorkload) -> Mapping[str, Split]:
    """Return the inputs, or the splits, by name."""
    return {"inputs": Split(user.inputs, user.labels)} if user.inputs else {str(k): v for k, v in user.splits.items()}


def _fitted(target: str, user: UserWorkload, plain: Plain) -> UserWorkload:
    """Return the workload with inputs in the dtypes that the model takes, and labels as class indices."""

    def fitted(name: str, split: Split) -> Split:
        inputs = {key: value.astype(plain.dtypes[key], copy=False) for key, value in split.inputs.items()}
        labels = split.labels
        if labels is not None and user.task == "classification":
            first = next(iter(plain.outputs.values()))
            where = f"of {name} from factory {target!r}"
            port = Port(str(first.dtype), ("n", *first.shape[1:]))
            labels = checked_labels(labels, where, first=port, axis=user.classes_axis, task=user.task)
        return Split(inputs, labels)

    if user.inputs:
        whole = fitted("inputs", Split(user.inputs, user.labels))
        return dataclasses.replace(user, inputs=whole.inputs, labels=whole.labels)
    splits = {name: fitted(name, item) for name, item in user.splits.items()}
    return dataclasses.replace(user, splits=splits)


def _plain(target: str, user: UserWorkload, module: Any) -> Plain:
    """Bring a module into plain form, with the first items of the data."""
    import harness_torch

    inputs = next(iter(_parts(user).values())).inputs
    few = 1 if user.states else _FEW
    batch = {name: value if name in user.kept else value[:few] for name, value in inputs.items()}
    what = f"the model of factory {target!r}"
    made = harness_torch.plain(module, batch, outputs=user.outputs, whole=user.kept, what=what)
    lost = [(name, source) for name, source in user.states.items() if source not in made.outputs]
    if lost:
        known = ", ".join(map(repr, made.outputs))
        raise BadModel(f"factory {target!r}: the state {lost[0][0]!r} has no output {lost[0][1]!r}; known: {known}")
    return made


def _sized(target: str, user: UserWorkload, size: Mapping[str, float]) -> Any:
    """Return the user's module, of another width or depth where it is made by a function of these.

    Raises:
        BadModel: What the factory gives makes no module.
        Unsupported: Another size is asked for, and the factory gives a module or a function of no such argument.
    """
    from torch import nn

    if isinstance(user.model, nn.Module) or not callable(user.model):
        module, takes = user.model, frozenset[str]()
    else:
        takes = _arguments(user.model)
        try:
            module = user.model(**{name: size.get(name, 1.0) for name in takes})
        except Exception as error:
            raise BadModel(f"the model function of factory {target!r} raised {reason(error)}") from error
    if not isinstance(module, nn.Module):
        raise BadModel(
            f"factory {target!r} gives {type(module).__name__} as its model; a torch.nn.Module is due",
            hint="a state dict is loaded into its module first" if isinstance(module, dict) else None,
        )
    if any(value != 1.0 and name not in takes for name, value in size.items()):
        raise Unsupported(
            f"factory {target!r} gives a module, of which no other size can be built",
            hint="give model as a function of width and depth",
        )
    return module


def _arguments(function: Callable[..., Any]) -> frozenset[str]:
    """Return which of width and depth a function takes."""
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return frozenset()
    any_name = any(item.kind is item.VAR_KEYWORD for item in parameters.values())
    return frozenset(name for name in ("width", "depth") if any_name or name in parameters)


def _asked(params: Params, task: str) -> _Made:
    made = _made(params.target)
    if made.user.task != task:
        name = "factory" if made.user.task == "classification" else "factory-regression"
        raise BadModel(f"factory {params.target!r} makes a {made.user.task}", hint=f"ask for the workload {name}")
    return made


def _one(params: Params) -> Split:
    user = _made(params.target).user
    return user.splits["test"] if user.splits else Split(user.inputs, user.labels)


def _split(params: Params, name: SplitName) -> Split:
    user = _made(params.target).user
    if not user.splits:
        return divide(Arrays(user.inputs, user.labels, kept=user.kept), name, train=True)
    if name not in user.splits:
        raise Unsupported(f"factory {params.target!r} gives no {name} split")
    return user.splits[name]


def _build(params: Params, *, width: float = 1.0, depth: float = 1.0) -> Any:
    user = _made(params.target).user
    if not _is_function(user.model):
        raise Unsupported(
            f"factory {params.target!r} gives a module, of which no other size can be built",
            hint="give model as a function of width and depth",
        )
    return _plain(params.target, user, _sized(params.target, user, {"width": width, "depth": depth})).module


def _is_function(model: Any) -> bool:
    from torch import nn

    return not isinstance(model, nn.Module)


def _fit(params: Params, job: Job, *, task: str) -> Model:
    import harness_torch

    made = _asked(params, task)
    user = made.user
    harness_torch.seed_everything(job.seed)
    module = job.workload.build() if _is_function(user.model) else harness_torch.copied(made.plain.module)
    epochs = user.epochs if params.epochs is None else params.epochs
    harness_torch.fit(
        module, job, epochs=epochs, lr=user.lr, on_batch=lambda trained, _step, _steps: made.plain.hold(trained)
    )
    flags, names = made.plain.flags, job.workload.outputs
    axes = {name: None for name in names if name in user.states.values()}
    return harness_torch.new_model(module.eval(), job, job.workload.inputs, names, flags=flags, axes=axes)


def _fingerprint(params: Params) -> str:
    """Hash the arrays, the weights of a given module, and the user's own source files that were imported."""
    made = _made(params.target)
    digest = hashlib.sha256()
    for source in made.found.sources():
        digest.update(source.read_bytes())
    for name, split in _parts(made.user).items():
        for key, value in {**split.inputs, "labels": split.labels}.items():
            digest.update(f"{name} {key}".encode() + (b"" if value is None else value.tobytes()))
    if not _is_function(made.user.model):
        module = made.plain.module
        for key, value in (*module.named_parameters(), *module.named_buffers()):
            digest.update(f"{key} {value.dtype}".encode() + value.detach().float().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _inputs(params: Params) -> dict[str, TensorSpec]:
    user = _made(params.target).user
    return {name: _spec(user, name, value) for name, value in _one(params).inputs.items()}


def _spec(user: UserWorkload, name: str, value: NDArray[Any]) -> TensorSpec:
    if name in user.states:
        return TensorSpec(str(value.dtype), value.shape, "state", None, user.states[name])
    if name in user.constants:
        return TensorSpec(str(value.dtype), value.shape, "constant", None)
    return TensorSpec(str(value.dtype), (1 if user.states else None, *value.shape[1:]))


def _task(params: Params) -> Task:
    """Return what is declared of the first output: nothing is guessed from its shape."""
    declared = _one(params).labels is not None or _made(params.target).user.classes_axis is not None
    return "classification" if declared else "none"


def workloads() -> Iterable[WorkloadSpec[Any]]:
    """Return the workloads of this module."""
    classification = WorkloadSpec(
        name="factory",
        modality="file",
        summary="your own PyTorch model and arrays, from a function of yours that returns a UserWorkload",
        params=Params,
        inputs=_inputs,
        outputs=lambda params: tuple(_made(params.target).plain.outputs),
        fit=lambda params, job: _fit(params, job, task="classification"),
        split=_split,
        task=_task,
        classes_axis=lambda params: _made(params.target).user.classes_axis,
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
