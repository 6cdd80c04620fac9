"""Quantization: methods that ask a target for a precision, and methods that prepare or train a model for one."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from harness.api import Asked, Calibration, Job, MethodSpec, Model, NoParams, Precision, hookimpl, param

_EARLIER = frozenset({"pruning", "decomposition", "distillation", "binarization"})  # they need float weights
_PREPARING = frozenset({"weight-equalization", "fixed-point", "codebook", "bias-correction"})
_ASKING = frozenset(
    {"int8", "dynamic-int8", "weight-only", "fp16", "bf16", "fp8", "qat", "mixed-precision"}
)  # a pipeline asks for one precision
_RIVALS = frozenset({"none"}) | _ASKING
_BEFORE = _EARLIER | _PREPARING


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


@dataclass(frozen=True)
class WeightOnlyParams:
    """Parameters of ``weight-only``."""

    bits: int = param(8, "bits of a weight", choices=(8, 4))
    granularity: Literal["per-channel", "per-tensor"] = param("per-channel", "how many scales a weight tensor has")


def weight_only(params: WeightOnlyParams) -> Precision:
    """Return the precision of ``weight-only``: integer weights that are multiplied in float32."""
    return Precision(weights=f"int{params.bits}", scheme="weight-only", granularity=params.granularity)


def brain_half(params: NoParams) -> Precision:
    """Return the precision of ``bf16``."""
    del params
    return Precision(weights="bfloat16", activations="bfloat16", scheme="float")


@dataclass(frozen=True)
class Float8Params:
    """Parameters of ``fp8``."""

    samples: int = param(256, "items of the calibration split that are used at most", ge=1)


def float8(params: Float8Params) -> Precision:
    """Return the precision of ``fp8``: weights and activations in E4M3, scales from calibration."""
    calibration = Calibration(samples=params.samples)
    return Precision("float8", "float8", "static", granularity="per-tensor", calibration=calibration)


def half(params: NoParams) -> Precision:
    """Return the precision of ``fp16``."""
    del params
    return Precision(weights="float16", activations="float16", scheme="float")


def _ask(model: Model, wanted: Precision, job: Job) -> Model:
    # Zeros stay zeros and two values stay two values under a symmetric weight scale and under float16,
    # so what an earlier step promised about storage still holds.
    job.progress(1.0, f"asks for {wanted.name}")
    before = model.precision
    wanted = dataclasses.replace(wanted, storage=before.storage, pattern=before.pattern)
    return dataclasses.replace(model, precision=wanted)


def compress_static(model: Model, params: Int8Params, job: Job) -> Model:
    """Ask for static int8."""
    return _ask(model, static_int8(params), job)


def compress_dynamic(model: Model, params: DynamicParams, job: Job) -> Model:
    """Ask for dynamic int8."""
    return _ask(model, dynamic_int8(params), job)


def compress_half(model: Model, params: NoParams, job: Job) -> Model:
    """Ask for float16."""
    return _ask(model, half(params), job)


def compress_weight_only(model: Model, params: WeightOnlyParams, job: Job) -> Model:
    """Ask for integer weights alone."""
    return _ask(model, weight_only(params), job)


def compress_brain_half(model: Model, params: NoParams, job: Job) -> Model:
    """Ask for bfloat16."""
    return _ask(model, brain_half(params), job)


def compress_float8(model: Model, params: Float8Params, job: Job) -> Model:
    """Ask for float8."""
    return _ask(model, float8(params), job)


@hookimpl
def harness_methods() -> Iterator[MethodSpec[Any]]:
    """Offer the methods that ask for a precision, and those that prepare a model for one."""
    yield from _asking()
    yield from _preparing()
    yield from _learning()


def _asking() -> Iterator[MethodSpec[Any]]:
    yield MethodSpec(
        name="int8",
        techniques=(
            "integer quantization",
            "bit widths",
            "calibration",
            "calibration:calibration=percentile",
            "calibration:calibration=entropy",
            "calibration:calibration=mse",
        ),
        family="quantization",
        summary="static int8: calibrated weights and activations, native to a target",
        params=Int8Params,
        compress=compress_static,
        consumes=frozenset(),
        needs=frozenset({"calibration"}),
        wants=static_int8,
        after=_BEFORE,
        conflicts=_RIVALS,
        defaults=("int8", "distillation+int8", "channel-pruning:ratio=0.5+int8"),
    )
    yield MethodSpec(
        name="dynamic-int8",
        techniques=("dynamic-range quantization",),
        family="quantization",
        summary="dynamic int8: int8 weights, activations quantized at run time",
        params=DynamicParams,
        compress=compress_dynamic,
        consumes=frozenset(),
        wants=dynamic_int8,
        after=_BEFORE,
        conflicts=_RIVALS,
    )
    yield MethodSpec(
        name="fp16",
        techniques=("bit widths",),
        family="quantization",
        summary="float16 weights and, where the target has it, float16 arithmetic",
        params=NoParams,
        compress=compress_half,
        consumes=frozenset(),
        wants=half,
        after=_BEFORE,
        conflicts=_RIVALS,
    )
    yield MethodSpec(
        name="weight-only",
        techniques=("bit widths", "bit widths:bits=4"),
        family="quantization",
        summary="int8 or int4 weights, unpacked and multiplied in float32",
        params=WeightOnlyParams,
        compress=compress_weight_only,
        consumes=frozenset(),
        wants=weight_only,
        after=_BEFORE,
        conflicts=_RIVALS,
        defaults=(),
    )
    yield MethodSpec(
        name="bf16",
        techniques=("bit widths",),
        family="quantization",
        summary="bfloat16 arithmetic, where the CPU has it",
        params=NoParams,
        compress=compress_brain_half,
        consumes=frozenset(),
        wants=brain_half,
        after=_BEFORE,
        conflicts=_RIVALS,
        defaults=(),
    )
    yield MethodSpec(
        name="fp8",
        techniques=("bit widths",),
        family="quantization",
        summary="float8 (E4M3) weights and activations, where the GPU has it",
        params=Float8Params,
        compress=compress_float8,
        consumes=frozenset(),
        needs=frozenset({"calibration"}),
        wants=float8,
        after=_BEFORE,
        conflicts=_RIVALS,
        defaults=(),
    )


def _preparing() -> Iterator[MethodSpec[Any]]:
    from harness_quantization import codebooks, correction, equalization

    yield MethodSpec(
        name="weight-equalization",
        techniques=("integer quantization",),
        family="quantization",
        summary="equal weight ranges across consecutive layers, same function",
        params=equalization.EqualizationParams,
        exact=True,
        compress=equalization.equalize,
        after=_EARLIER,
        conflicts=frozenset({"none", "weight-equalization"}),
        defaults=(),
        changes=frozenset({"weights"}),
    )
    yield MethodSpec(
        name="fixed-point",
        techniques=("fixed-point quantization",),
        family="quantization",
        summary="weights on a Qm.n grid or on 2^bits steps over [-1, 1]",
        params=codebooks.FixedPointParams,
        asks=lambda params: Asked(f"weights of {params.bits} bits"),
        compress=codebooks.compress_fixed_point,
        needs=lambda params: frozenset({"training"} if params.epochs else ()),
        check=codebooks.check_fixed_point,
        after=_EARLIER | {"weight-equalization"},
        conflicts=frozenset({"none", "fixed-point", "codebook"}),
        defaults=(),
    )
    yield MethodSpec(
        name="codebook",
        techniques=("codebook quantization", "codebook quantization:buckets=kl"),
        family="quantization",
        summary="weights as indices into a trained table of 2^bits values per layer",
        params=codebooks.CodebookParams,
        asks=lambda params: Asked(f"{2**params.bits} values for the weights of a layer, {params.bits} bits each"),
        compress=codebooks.compress_codebook,
        needs=lambda params: frozenset({"training"} if params.epochs else ()),
        after=_EARLIER | {"weight-equalization"},
        conflicts=frozenset({"none", "codebook"}),
        defaults=(),
    )
    yield MethodSpec(
        name="bias-correction",
        techniques=("bias correction",),
        family="quantization",
        summary="weights rounded per channel, biases take back the mean shift",
        params=correction.CorrectionParams,
        compress=correction.compress,
        needs=frozenset({"calibration"}),
        after=_EARLIER | {"weight-equalization"},
        conflicts=frozenset({"none", "bias-correction", "codebook", "fixed-point"}),
        defaults=(),
        changes=frozenset({"weights"}),
    )


def _learning() -> Iterator[MethodSpec[Any]]:
    from harness_quantization import mixed, qat

    yield MethodSpec(
        name="qat",
        techniques=("quantization-aware training",),
        family="quantization",
        summary="int8 trained through its rounding; the learned ranges bind",
        params=qat.QatParams,
        compress=qat.compress,
        needs=lambda params: frozenset({"calibration", "training"} if params.epochs else {"calibration"}),
        wants=qat.wants,
        after=_BEFORE,
        conflicts=_RIVALS,
        defaults=(),
    )
    yield MethodSpec(
        name="mixed-precision",
        techniques=("mixed precision", "mixed precision:widths=int4/int8/float32"),
        family="quantization",
        summary="few bits except for the layers that cost most, under a budget",
        params=mixed.MixedParams,
        asks=lambda params: Asked(f"{params.widths} by layer, {params.budget:g} of the metric to lose"),
        compress=mixed.compress,
        needs=frozenset({"calibration", "selection"}),
        wants=mixed.wants,
        after=_BEFORE,
        conflicts=_RIVALS,
        defaults=(),
    )
