"""A registry made by hand: tiny specs with the shapes of real ones, so that plan and command line need no plugin."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from harness.api import (
    Availability,
    Capabilities,
    ExporterSpec,
    MethodSpec,
    NoParams,
    Precision,
    TargetSpec,
    TensorSpec,
    WorkloadSpec,
    param,
)
from harness.plan import TargetState
from harness.plugins import PluginInfo, Problem, Registry
from harness.specs import Offer


@dataclass(frozen=True)
class Ratio:
    ratio: float = param(0.5, "share removed", gt=0, lt=1)
    epochs: int = param(4, "fine-tune", ge=0)


@dataclass(frozen=True)
class FileParams:
    path: str = param("", "the file")
    labelled: bool = param(False, "whether the data has labels")


@dataclass(frozen=True)
class Device:
    provider: str = param("cpu", "where it runs", choices=("cpu", "npu"))


def _never(*_args: Any, **_kwargs: Any) -> Any:
    raise AssertionError("planning calls no plugin's work")


def workload(name: str, **changes: Any) -> WorkloadSpec[Any]:
    return WorkloadSpec(**{
        "name": name, "modality": "image", "summary": f"{name} for tests", "params": NoParams,
        "inputs": lambda params: {"x": TensorSpec("float32", (None, 4))}, "outputs": ("y",),
        "fit": _never, "split": _never, "model": _never, "loss": _never,
    } | changes)  # fmt: skip


def method(name: str, family: str, **changes: Any) -> MethodSpec[Any]:
    return MethodSpec(**{
        "name": name, "family": family, "summary": f"{name} for tests", "params": NoParams, "compress": _never,
    } | changes)  # fmt: skip


def exporter(consumes: str, produces: str, **changes: Any) -> ExporterSpec:
    return ExporterSpec(**{
        "name": f"{consumes}-{produces}", "summary": "for tests", "consumes": consumes, "produces": produces,
        "export": _never,
    } | changes)  # fmt: skip


def target(name: str, *accepts: str, **changes: Any) -> TargetSpec[Any]:
    return TargetSpec(**{
        "name": name, "summary": f"{name} for tests", "params": NoParams, "accepts": frozenset(accepts),
        "probe": _never, "capabilities": _never, "lower": _never, "open": _never,
    } | changes)  # fmt: skip


def offers(specs: Iterable[Any], plugin: str) -> dict[str, Offer[Any]]:
    return {spec.name: Offer(spec, plugin, "fake-dist", "1.0") for spec in sorted(specs, key=lambda spec: spec.name)}


def asks(weights: str, scheme: str = "static") -> Any:
    return lambda params: Precision(weights=weights, scheme=scheme)  # type: ignore[arg-type]  # the tests' own words


EXPORTERS = (exporter("torch", "onnx", extra="onnxruntime"), exporter("torch", "mid"), exporter("mid", "tflite"))
ANYTHING = frozenset[str]()  # consumes: takes any format
TRAINING = frozenset({"training"})


def methods() -> tuple[MethodSpec[Any], ...]:
    return (
        method("baseline", "none", consumes=ANYTHING),
        method(
            "int8", "quantization", consumes=ANYTHING, needs=frozenset({"calibration"}),
            wants=asks("int8"), defaults=("int8", "distillation+int8"),
        ),
        method("fp16", "quantization", consumes=ANYTHING, wants=asks("float16", "float")),
        method("magnitude-pruning", "pruning", params=Ratio, needs=TRAINING, before=frozenset({"quantization"})),
        method("channel-pruning", "pruning", params=Ratio, conflicts=frozenset({"magnitude-pruning"})),
        method(
            "distillation", "distillation", needs=TRAINING | {"torch-model"}, after=frozenset({"pruning"}), defaults=(),
        ),
        method("onnx-tool", "other", consumes=frozenset({"onnx"}), defaults=()),
    )  # fmt: skip


def registry(
    *, workloads: Iterable[WorkloadSpec[Any]] | None = None, extra_methods: Iterable[MethodSpec[Any]] = (),
    targets: Iterable[TargetSpec[Any]] | None = None, without: Iterable[str] = (),
) -> Registry:  # fmt: skip
    works = workloads if workloads is not None else (
        workload("digits", default=True),
        workload("unlabelled", labelled=False),
        workload(
            "file", params=FileParams, produces=lambda params: params.path.rpartition(".")[2],
            labelled=lambda params: params.labelled, model=None, loss=None,
        ),
    )  # fmt: skip
    runtimes = (
        targets
        if targets is not None
        else (
            target("ort", "onnx", params=Device, extra="onnxruntime"),
            target("lite", "tflite"),
            target("null", ranked=False),
        )
    )
    chosen = [spec for spec in (*methods(), *extra_methods) if spec.name not in set(without)]
    return Registry(
        offers(works, "fake-work"), offers(chosen, "fake-methods"),
        offers(EXPORTERS, "fake-exporters"), {},
        offers(runtimes, "fake-targets"),
        (PluginInfo("fake-work", "fakes", "fake-dist", "1.0", "loaded", {"workload": ("digits",)}),
         PluginInfo("broken", "nowhere", "bad-dist", "0.1", "broken", {}, "ImportError on import: no such thing")),
        (Problem("broken", "bad-dist", "ImportError on import: no such thing"),),
        lambda record: None,
    )  # fmt: skip


def available(*precisions: str, **changes: Any) -> TargetState:
    names = precisions or ("float32", "int8", "float16")
    able = Capabilities("1", dict.fromkeys(names, "natively"), **changes)
    return TargetState(Availability(True, runtime="fake", version="1"), able)


def states(**changes: TargetState) -> dict[str, TargetState]:
    lite = available("float32", gaps={"int8": "its converter is not here"})
    return {"ort": available(), "lite": lite, "null": available("float32")} | changes
