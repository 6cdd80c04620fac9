"""LiteRT (TFLite): a target with XNNPACK kernels, and the exporter from torch that feeds it."""

from __future__ import annotations

from collections.abc import Iterator

from harness.api import (
    Artifact,
    Availability,
    Capabilities,
    ExporterSpec,
    Finding,
    InspectorSpec,
    Job,
    Model,
    Options,
    OracleSpec,
    Purpose,
    RunsOn,
    Session,
    TargetSpec,
    hookimpl,
)
from harness_tflite.errors import KNOWN_ERRORS
from harness_tflite.params import Params

# The parts are imported when they are called: listing targets must not pay for them.


def export(model: Model, options: Options, job: Job) -> Model:
    """Convert a torch model for the batch of ``options``."""
    from harness_tflite import convert

    return convert.export(model, options, job)


def probe(params: Params) -> Availability:
    """Run a one-operator model."""
    if params.android:
        from harness_tflite import android

        return android.probe(params)
    if params.arm64:
        from harness_tflite import aarch64

        return aarch64.probe(params.arm64)
    from harness_tflite import probing

    return probing.probe(params)


def capabilities(params: Params) -> Capabilities:
    """Say what LiteRT can do on this host."""
    from harness_tflite import probing

    return probing.capabilities(params)


def lower(model: Model, params: Params, options: Options, job: Job) -> Artifact:
    """Quantize where the precision asks for it."""
    from harness_tflite import lowering

    del params
    return lowering.lower(model, options, job)


def open_session(artifact: Artifact, params: Params, options: Options, purpose: Purpose) -> Session:
    """Load the artifact; what is measured does not change with the purpose."""
    del purpose
    if params.android:
        from harness_tflite.android import AndroidSession

        return AndroidSession(artifact, params, options)
    if params.arm64:
        from harness_tflite.aarch64 import Aarch64Session

        return Aarch64Session(artifact, params, options)
    from harness_tflite.session import TfliteSession

    return TfliteSession(artifact, params, options)


def runs_on(params: Params) -> RunsOn:
    """Say whether models run here."""
    if params.android:
        return "device"
    return "emulator" if params.arm64 else "here"


def examine(model: Model, params: Params) -> tuple[Finding, ...]:
    """Load the file without quantizing it, and say whether a precision has something to act on."""
    from harness_tflite import examining

    return examining.examine(model, params)


@hookimpl
def harness_inspectors() -> Iterator[InspectorSpec]:
    """Offer to read .tflite files."""
    from harness_tflite.inspecting import inspect

    yield InspectorSpec(name="tflite", inspect=inspect, extra="tflite")


@hookimpl
def harness_exporters() -> Iterator[ExporterSpec]:
    """Offer torch -> tflite."""
    yield ExporterSpec(
        name="torch-to-tflite",
        summary="litert-torch; one file per batch size",
        consumes="torch",
        produces="tflite",
        export=export,
        reads=frozenset({"batch"}),
        extra="tflite-convert",
        known_gaps={"environment": "importing JAX, which litert-torch does, sets variables for TensorFlow and TPUs"},
    )


@hookimpl
def harness_targets() -> Iterator[TargetSpec[Params]]:
    """Offer LiteRT."""
    yield TargetSpec(
        name="tflite",
        summary="LiteRT (TensorFlow Lite) on the CPU, with XNNPACK",
        params=Params,
        accepts=frozenset({"tflite"}),
        probe=probe,
        capabilities=capabilities,
        lower=lower,
        open=open_session,
        packages=("ai-edge-litert", "ai-edge-quantizer"),
        extra="tflite",
        known_errors=KNOWN_ERRORS,
        runs_on=runs_on,
        environment=("ADB_*", "ANDROID_*"),
        examine=examine,
    )


@hookimpl
def harness_oracles() -> Iterator[OracleSpec]:
    """Offer LiteRT's reference kernels as what its files are judged by."""
    from harness_tflite import oracle

    yield OracleSpec(
        name="tflite",
        summary="LiteRT's reference kernels; where they are slow, its built-in ones without a delegate",
        consumes="tflite",
        open=oracle.open_oracles,
        batch=1,
        extra="tflite",
    )
