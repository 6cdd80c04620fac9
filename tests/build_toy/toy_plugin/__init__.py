"""A plugin on numpy alone: a linear classifier, its exporter, its runtime, and a step that breaks on request."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from harness.api import (
    Artifact,
    Availability,
    Calibration,
    Capabilities,
    ExporterSpec,
    Inspected,
    InspectorSpec,
    KnownError,
    MethodSpec,
    MissingDependency,
    Model,
    NoParams,
    Precision,
    Split,
    TargetSpec,
    TensorSpec,
    Unsupported,
    WorkloadSpec,
    hookimpl,
    param,
)


def note(what: str) -> None:
    """Count what was really run."""
    path = os.environ.get("HARNESS_TOY_LOG")
    if path:
        with Path(path).open("a") as stream:
            stream.write(what + "\n")


@dataclass(frozen=True)
class TaskParams:
    items: int = param(20, "items in each split", ge=1)
    fault: str = param("", "what is wrong with the data")
    seconds: float = param(0.0, "how long training takes")


def inputs(params: TaskParams) -> dict[str, TensorSpec]:
    return {"x": TensorSpec("float32", (None, 4))}


def split(params: TaskParams, name: str) -> Split:
    offset = ["train", "calibration", "selection", "test"].index(name)
    if params.fault == "overlap" and name == "selection":
        offset = 0
    if params.fault == "no-calibration" and name == "calibration":
        raise Unsupported("this task has no calibration data")
    rng = np.random.default_rng(offset)
    empty = params.fault == f"empty-{name}"
    x = rng.normal(size=(0 if empty else params.items, 4)).astype("float64" if params.fault == "dtype" else "float32")
    bare = params.fault == f"unlabelled-{name}"
    return Split({"x": x}, None if bare else (x.sum(axis=1) > 0).astype("int64"))


def fit(params: TaskParams, job) -> Model:
    note("fit")
    for step in range(10):
        time.sleep(params.seconds / 10)
        job.progress((step + 1) / 10, "training")
    train = job.data.split("train")
    weights = np.linalg.lstsq(train.inputs["x"], train.labels - 0.5, rcond=None)[0].astype("float32")
    np.save(job.out / "model.npy", weights)
    (job.out / "effect.json").write_text('{"parameters": 4}')
    return Model("toy", job.out / "model.npy", inputs(params), ("y",))


@dataclass(frozen=True)
class PruneParams:
    keep: int = param(3, "weights to keep", ge=1)


def prune(model: Model, params: PruneParams, job) -> Model:
    note("prune")
    weights = np.load(model.path)
    weights[np.argsort(np.abs(weights))[: -params.keep]] = 0
    np.save(job.out / "model.npy", weights)
    return replace(model, path=job.out / "model.npy")


def align(model: Model, params: NoParams, job) -> Model:
    note("align")
    np.save(job.out / "model.npy", np.load(model.path) * job.hardware.channel_multiple)
    return replace(model, path=job.out / "model.npy")


def only_precision(model: Model, params: NoParams, job) -> Model:
    note("int8")
    return replace(model, precision=Precision("int8", "int8", "static", calibration=Calibration()))


def cut(model: Model, params: NoParams, job) -> Model:
    note("cut")
    parts = []
    for at in range(2):
        folder = job.out / "parts" / str(at)
        (folder / "feeds").mkdir(parents=True)
        np.save(folder / "feeds" / "x.npy", job.data.split("calibration").inputs["x"] * (at + 1))
        np.save(folder / "model.npy", np.load(model.path) + at)
        parts.append(Model("toy", folder / "model.npy", model.inputs, ("y",), feeds=folder / "feeds"))
    return replace(model, path=job.out / "parts", parts=tuple(parts))


@dataclass(frozen=True)
class RangesParams:
    needs: str = param("calibration", "what it cannot do without")


def ranges(model: Model, params: RangesParams, job) -> Model:
    note("ranges")
    return model


@dataclass(frozen=True)
class BreakParams:
    how: str = param("print", "what to do")


def wrong(model: Model, params: BreakParams, job) -> Model:
    note(f"break {params.how}")
    return {
        "segv": lambda: os.kill(os.getpid(), signal.SIGSEGV),
        "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
        "hang": lambda: time.sleep(600),
        "exit": lambda: os._exit(0),
        "sys-exit": lambda: sys.exit("bye"),
        "raise": lambda: [][1],
        "type": lambda: 42,
        "format": lambda: replace(model, format="onnx"),
        "outside": lambda: replace(model, path=Path(__file__)),
        "absent": lambda: replace(model, path=job.out / "nothing"),
        "unsupported": lambda: refuse(Unsupported("the toy cannot")),
        "missing": lambda: refuse(MissingDependency("toylib is not installed", hint="pip install toylib")),
        "memory": lambda: refuse(MemoryError("too big")),
        "test": lambda: job.data.split("test"),
        "hardware": lambda: job.hardware.isa,
        "print": lambda: shout(model),
    }[params.how]()


def refuse(error: BaseException) -> Model:
    raise error


def shout(model: Model) -> Model:
    print("\n{}" * 100_000, flush=True)
    os.write(1, b"noise\n" * 1000)
    return model


def export(model: Model, options, job) -> Model:
    note("export")
    assert model.precision == Precision()
    shutil.copy(model.path, job.out / "model.toyx")
    return replace(model, format="toyx", path=job.out / "model.toyx", names={"w": "W"})


@dataclass(frozen=True)
class RuntimeParams:
    how: str = param("", "what the probe, or a session, does")


def probe(params: RuntimeParams) -> Availability:
    note("probe")
    if params.how == "segv":
        os.kill(os.getpid(), signal.SIGSEGV)
    if params.how == "hang":
        time.sleep(600)
    if params.how == "raise":
        raise RuntimeError("no driver")
    if params.how == "absent":
        return Availability(False, "there is no toy chip", "buy one")
    return Availability(True, runtime="toy", version="1")


def capabilities(params: RuntimeParams) -> Capabilities:
    return Capabilities("1", {"float32": "native", "int8": "native"}, channel_multiple=8, isa=("toy512",))


def lower(model: Model, params: RuntimeParams, options, job) -> Artifact:
    note(f"lower {model.precision.name} batch={options.batch} threads={options.threads}")
    weights = np.load(model.path)
    if model.precision.name == "int8":
        scale = np.abs(job.data.split("calibration").inputs["x"]).max() / 127
        weights = np.round(weights / scale).astype("int8")
    path = job.out / "model.toyart"
    with path.open("wb") as stream:
        np.save(stream, weights)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    size = path.stat().st_size
    return Artifact(path, "toyart", digest, model.precision.name, job.hardware.isa[0], size, size)


class Session:
    """Scores of items, or what goes wrong with them."""

    outputs = {"y": TensorSpec("float32", (None,))}  # noqa: RUF012  never changed

    def __init__(self, path: Path, how: str) -> None:
        self.weights, self.how = np.load(path).astype("float32"), how
        self.inputs = inputs(TaskParams())

    def run(self, given):
        note(f"run {len(given['x'])}")
        if self.how == "run":
            raise ValueError("toy kernel: the operator 'dot' wants 5 columns")
        return {"y": given["x"] @ self.weights}

    def close(self) -> None:
        pass


def open_(artifact, params, options, purpose):
    if params.how == "open":
        raise RuntimeError("\x1b[31mtoy loader: no rule for op Dot\x1b[0m\n  at loader.cpp:12")
    if params.how == "open-segv":
        os.kill(os.getpid(), signal.SIGSEGV)
    return Session(artifact.path, params.how)


@hookimpl
def harness_workloads():
    return [
        WorkloadSpec(
            name="toy-task", modality="tabular", summary="sign of a sum", params=TaskParams, inputs=inputs,
            outputs=("y",), fit=fit, split=split, produces="toy", flags=("toy",), default=True,
            loss=lambda outputs, labels: 0, model=lambda params, width, depth: None,
        )
    ]  # fmt: skip


@hookimpl
def harness_methods():
    def method(name, params, compress, **more):
        return MethodSpec(name=name, family=name, summary=name, params=params, compress=compress, **more)

    toy = frozenset({"toy"})
    return [
        method("toy-base", NoParams, lambda model, params, job: model, consumes=frozenset()),
        method("toy-prune", PruneParams, prune, consumes=toy),
        method("toy-align", NoParams, align, consumes=toy, reads=frozenset({"channel_multiple"})),
        method("toy-int8", NoParams, only_precision, consumes=frozenset()),
        method("toy-cut", NoParams, cut, consumes=toy),
        method("toy-ranges", RangesParams, ranges, consumes=toy, needs=lambda params: frozenset({params.needs})),
        method("toy-break", BreakParams, wrong, consumes=frozenset(), reads=frozenset({"channel_multiple"})),
    ]


@hookimpl
def harness_exporters():
    return [ExporterSpec(name="toy-export", summary="copy", consumes="toy", produces="toyx", export=export)]


def nan_weights(model):
    bad = int(np.isnan(np.load(model.path)).sum())
    return {"weights": bad} if bad else {}


@hookimpl
def harness_inspectors():
    return [InspectorSpec(name="toy", inspect=lambda model, shapes: Inspected("toy"), nan_weights=nan_weights)]


@hookimpl
def harness_targets():
    return [
        TargetSpec(
            name=name, summary="numpy", params=RuntimeParams, accepts=frozenset({"toyx"}), probe=probe,
            capabilities=capabilities, lower=lower, open=open_, lower_reads=frozenset({"batch"}), packages=("numpy",),
            known_errors=(KnownError(r"no rule for op (?P<op>\w+)", "the toy has no {op}", status="not-applicable"),),
        )
        for name in ("toy-runtime", "toy-other")
    ]  # fmt: skip
