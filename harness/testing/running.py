"""Checks of one session of a target: its signature, and its outputs beside the trained model's."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from harness.specs import TargetSpec
from harness.testing.common import arrays, ended, error_of, sqnr_db, told
from harness.testing.observed import Material, Ran
from harness.testing.results import Judge
from harness.types import Failure, Model, TensorSpec

FLOAT_TOLERANCE = 2e-3  # largest error over the largest output: room for fused and vectorised float32 arithmetic
LEAST_SQNR_DB = {"float32": 40.0, "float16": 30.0, "bfloat16": 15.0, "int8": 8.0}
LEAST_OTHER_DB = 0.0


def judge_run(
    judge: Judge, spec: TargetSpec[Any], seen: Ran | Failure, model: Model, material: Material, at: str, precision: str
) -> bool:
    """Check one life of a session on one item at a time; tell whether it gave outputs."""
    if not ended(judge, seen, "a session", at) or isinstance(seen, Failure) or not _lived(judge, seen, at):
        return False
    _signature(judge, seen, model, at)
    _dtypes(judge, seen, at)
    judge.expect(
        "input-kept",
        not seen.inputs_changed,
        expected="run only reads its inputs",
        seen=f"it wrote into {', '.join(seen.inputs_changed)}",
        fix="copy an input before changing it",
        sample=at,
    )
    judge.expect(
        "repeatable",
        seen.again_equal,
        expected="the same inputs give the same bits",
        seen="they differ",
        fix="clear the state between runs; switch off unordered reductions",
        sample=at,
    )
    outside = seen.watched.outside
    judge.expect(
        "outside",
        not outside,
        expected="a session writes nothing",
        seen=f"it wrote {', '.join(outside[:3])}",
        fix="switch the runtime's cache and log files off",
        sample=at,
    )
    judge.expect(
        "environment",
        not seen.watched.environment,
        expected="os.environ is as before",
        seen=f"changed: {', '.join(seen.watched.environment)}",
        fix="pass options to the runtime",
        sample=at,
    )
    if spec.ranked:
        _outputs(judge, seen, material, precision, at)
    return True


def _lived(judge: Judge, seen: Ran, at: str) -> bool:
    if seen.missing_members:
        return judge.expect(
            "runs",
            False,
            expected="a session has inputs, outputs, run and close",
            seen=f"it lacks {', '.join(seen.missing_members)}",
            fix="see harness.api.Session",
            sample=at,
        )
    if seen.raised is None:
        return True
    if seen.stage == "close":
        return judge.expect(
            "close",
            False,
            expected="close returns",
            seen=str(seen.raised),
            fix="close what is open, once, and nothing else",
            sample=at,
        )
    check = (
        "placements" if seen.stage == "placements" else "batch" if "first dimension" in seen.raised.message else "runs"
    )
    return judge.expect(
        check,
        False,
        expected=f"{seen.stage} returns",
        seen=str(seen.raised),
        fix="run what lower lets through; refuse the rest there, with Unsupported",
        sample=at,
    )


def _fits(spec: TensorSpec, wanted: TensorSpec) -> bool:
    """Tell whether a runtime takes what a model declares; the core narrows integers for it."""
    whole = spec.dtype.startswith("int") and wanted.dtype.startswith("int")
    return (
        (spec.dtype == wanted.dtype or whole)
        and len(spec.shape) == len(wanted.shape)
        and all(a is None or b is None or a == b for a, b in zip(spec.shape, wanted.shape, strict=True))
    )


def _signature(judge: Judge, seen: Ran, model: Model, at: str) -> None:
    inputs = set(seen.inputs) == set(model.inputs) and all(_fits(seen.inputs[n], s) for n, s in model.inputs.items())
    judge.expect(
        "interface",
        inputs,
        expected=f"inputs {told(model.inputs)}",
        seen=told(seen.inputs),
        sample=at,
        fix="map the runtime's names back to model.inputs; keep dtypes",
    )
    judge.expect(
        "interface",
        set(seen.outputs_declared) == set(model.outputs),
        expected=f"outputs {sorted(model.outputs)}",
        seen=f"{sorted(seen.outputs_declared)}",
        fix="map the runtime's names back to model.outputs",
        sample=at,
    )


def _dtypes(judge: Judge, seen: Ran, at: str) -> None:
    wrong = [
        name
        for name, spec in seen.first.items()
        if name not in seen.outputs_declared or not _fits(spec, seen.outputs_declared[name])
    ]
    judge.expect(
        "dtypes",
        not wrong and bool(seen.first),
        expected=f"outputs as declared: {told(seen.outputs_declared)}",
        seen=told(seen.first) or "no outputs",
        fix="declare what run returns, with its rank (harness_onnx.model_io reads it from an ONNX file), or convert it",
        sample=at,
    )


def _by_name(seen: Ran, material: Material) -> list[tuple[Any, Any]]:
    """Pair what a session wrote with the reference, in the order of the model's outputs."""
    names = [path.stem.partition("-")[2] for path in sorted(material.reference.glob("*.npy"))]
    wanted, folder = arrays(material.reference), seen.outputs
    pairs = []
    for name, reference in zip(names, wanted, strict=True):
        path = folder / f"{name}.npy" if folder else None
        pairs.append((np.load(path) if path and path.is_file() else np.empty(0), reference))
    return pairs


def _outputs(judge: Judge, seen: Ran, material: Material, precision: str, at: str) -> None:
    pairs = _by_name(seen, material)
    finite = all(np.isfinite(got).all() for got, _wanted in pairs if got.dtype.kind == "f")
    if not judge.expect(
        "finite",
        finite,
        expected="finite outputs",
        seen="NaN or infinity",
        sample=at,
        fix="look for an overflow of the narrow type, or memory that is read before it is written",
    ):
        return
    shapes = [got.shape for got, _wanted in pairs], [wanted.shape for _got, wanted in pairs]
    if not judge.expect(
        "outputs",
        shapes[0] == shapes[1],
        expected=f"outputs of shape {shapes[1]}",
        seen=f"{shapes[0]}",
        fix="return every output of the model under its name",
        sample=at,
    ):
        return
    if precision == "float32":
        worst = max((error_of(got, wanted) for got, wanted in pairs), default=math.inf)
        judge.expect(
            "outputs",
            worst <= FLOAT_TOLERANCE,
            sample=at,
            seen=f"{worst:.2g} of it",
            expected=f"the trained model's outputs within {FLOAT_TOLERANCE:g} of their largest value",
            fix="compare layer by layer; look at layouts, epsilons, paddings and activation kinds",
        )
        return
    least = LEAST_SQNR_DB.get(precision.rpartition("-")[2], LEAST_OTHER_DB)
    got_db = min((sqnr_db(got, wanted) for got, wanted in pairs), default=-math.inf)
    judge.expect(
        "outputs",
        got_db >= least,
        expected=f"at least {least:g} dB of signal to quantization noise",
        seen=f"{got_db:.1f} dB",
        fix="look at the calibration data, and at layers that need a wider type",
        sample=at,
    )
