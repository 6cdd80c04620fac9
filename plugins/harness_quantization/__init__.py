"""Post-training quantization: these methods ask for a precision, and each target realises it natively."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from harness.api import Calibration, Job, MethodSpec, Model, NoParams, Precision, hookimpl, param

_EARLIER = frozenset({"pruning", "decomposition", "distillation", "binarization"})  # they need float weights
_RIVALS = frozenset({"none", "quantization"})


@dataclass(frozen=True)
class Int8Params:
    """Parameters of ``int8``."""

    calibration: Literal["minmax", "percentile", "entropy", "mse", "moving-average"] = param(
        "minmax", "how the range of an activation is found from the calibration items"
    )
    samples: int = param(256, "items of the calibration split that are used at most", ge=1)
    granularity: Literal["per-channel", "per-tensor"] = param("per-channel", "how many scales a weight tensor has")
    symmetric: bool | None = param(None, "activations with zero point 0; none leaves the choice to the target")


@dataclass(frozen=True)
class DynamicParams:
    """Parameters of ``dynamic-int8``."""

    granularity: Literal["per-channel", "per-tensor"] = param("per-channel", "how many scales a weight tensor has")


def static_int8(params: Int8Params) -> Precision:
    """Return the precision of ``int8``: weights and activations, ranges from calibration."""
    return Precision(
        weights="int8",
        activations="int8",
        scheme="static",
        granularity=params.granularity,
        activations_symmetric=params.symmetric,
        calibration=Calibration(method=params.calibration, samples=params.samples),
    )


def dynamic_int8(params: DynamicParams) -> Precision:
    """Return the precision of ``dynamic-int8``: activation ranges are found at run time, so nothing is calibrated."""
    return Precision(weights="int8", activations="int8", scheme="dynamic", granularity=params.granularity)


def half(params: NoParams) -> Precision:
    """Return the precision of ``fp16``."""
    del params
    return Precision(weights="float16", activations="float16", scheme="float")


def _ask(model: Model, wanted: Precision, job: Job) -> Model:
    # Zeros stay zeros and two values stay two values under a symmetric weight scale and under float16,
    # so what an earlier step promised about storage still holds.
    job.progress(1.0, f"asks for {wanted.name}")
    return dataclasses.replace(model, precision=dataclasses.replace(wanted, storage=model.precision.storage))


def compress_static(model: Model, params: Int8Params, job: Job) -> Model:
    """Ask for static int8."""
    return _ask(model, static_int8(params), job)


def compress_dynamic(model: Model, params: DynamicParams, job: Job) -> Model:
    """Ask for dynamic int8."""
    return _ask(model, dynamic_int8(params), job)


def compress_half(model: Model, params: NoParams, job: Job) -> Model:
    """Ask for float16."""
    return _ask(model, half(params), job)


@hookimpl
def harness_methods() -> Iterator[MethodSpec[Any]]:
    """Offer ``int8``, ``dynamic-int8`` and ``fp16``."""
    yield MethodSpec(
        name="int8",
        family="quantization",
        summary="static int8: calibrated weights and activations, native to a target",
        params=Int8Params,
        compress=compress_static,
        consumes=frozenset(),
        needs=frozenset({"calibration"}),
        wants=static_int8,
        after=_EARLIER,
        conflicts=_RIVALS,
        defaults=("int8", "distillation+int8", "channel-pruning:ratio=0.5+int8"),
    )
    yield MethodSpec(
        name="dynamic-int8",
        family="quantization",
        summary="dynamic int8: int8 weights, activations quantized at run time",
        params=DynamicParams,
        compress=compress_dynamic,
        consumes=frozenset(),
        wants=dynamic_int8,
        after=_EARLIER,
        conflicts=_RIVALS,
    )
    yield MethodSpec(
        name="fp16",
        family="quantization",
        summary="float16 weights and, where the target has it, float16 arithmetic",
        params=NoParams,
        compress=compress_half,
        consumes=frozenset(),
        wants=half,
        after=_EARLIER,
        conflicts=_RIVALS,
    )
