"""Checks of a method, from what two runs of it gave."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from harness.claims import BY_FAMILY, COUNTED
from harness.specs import Examined, MethodSpec
from harness.testing.common import arrays, beside, ended, raised_well, told
from harness.testing.observed import Material, Stepped
from harness.testing.results import Judge
from harness.types import Failure, Model

RECORD_TOLERANCE = 0.01  # relative, of a count that the step wrote down


def judge_method(
    judge: Judge,
    spec: MethodSpec[Any],
    params: Any,
    material: Material,
    incoming: Model,
    first: Stepped | Failure,
    second: Stepped | Failure,
) -> None:
    """Check one method on one test model.

    Args:
        judge: Collects the results.
        spec: The method.
        params: That it ran with.
        material: The test model.
        incoming: The model that it was given.
        first: A run.
        second: Another with the same seed, in another folder.
    """
    at = material.exercises
    if not ended(judge, first, "compress", at) or isinstance(first, Failure):
        return
    _asked(judge, spec, first, at)
    model = first.model
    if first.raised is not None or model is None:
        _not_done(judge, spec, first, at)
        return
    judge.expect("runs", True, expected="", seen="", fix="", sample=at)
    beside(judge, first.watched, at, files=False)
    if not _file(judge, spec, first, model, incoming, at):
        return
    if ended(judge, second, "compress, a second time", at) and isinstance(second, Stepped):
        _again(judge, first, second, at)
    _interface(judge, model, incoming, first, material, at)
    _wants(judge, spec, params, model, at)
    _effect(judge, spec, first, model, incoming, material, at)


def _asked(judge: Judge, spec: MethodSpec[Any], seen: Stepped, at: str) -> None:
    odd = sorted(set(seen.reads) - spec.reads)
    judge.expect(
        "reads",
        not odd,
        expected=f"reads {', '.join(sorted(spec.reads)) or 'no capability field'}, as declared",
        seen=f"it asks job.hardware for {', '.join(odd)}",
        fix=f"reads=frozenset({{{', '.join(map(repr, odd))}}})",
        sample=at,
    )
    judge.expect(
        "test-split",
        not seen.test_asked,
        expected="train, calibration and selection are enough",
        seen="it asked for the test split",
        fix="use job.data.split('selection') to judge inside a step",
        sample=at,
    )
    judge.expect(
        "input-kept",
        not seen.input_changed,
        expected="the incoming model is only read",
        seen="its folder has changed",
        fix="copy it into job.out before changing it",
        sample=at,
    )


def _not_done(judge: Judge, spec: MethodSpec[Any], seen: Stepped, at: str) -> None:
    if set(seen.reads) - spec.reads or seen.test_asked:
        judge.skip("runs", "it stopped at what the check above names", at)
    elif seen.raised is None:
        judge.expect(
            "runs",
            False,
            expected="compress returns a Model",
            seen=seen.gave,
            sample=at,
            fix="return harness_torch.save(module, model, job), or dataclasses.replace(model, path=…)",
        )
    elif seen.raised.on_purpose:
        if seen.raised.unsupported or seen.raised.kind == "MissingDependency":
            raised_well(judge, seen.raised, "compress", at)
        else:
            judge.expect(
                "unsupported",
                False,
                expected="Unsupported for what cannot be",
                seen=str(seen.raised),
                fix="raise Unsupported with the reason",
                sample=at,
            )
    else:
        judge.expect(
            "unsupported",
            False,
            expected="compress works on this layer kind, or raises Unsupported",
            seen=str(seen.raised),
            fix="handle the layer, or raise Unsupported with the reason: it becomes a row, not a crash",
            sample=at,
        )


def _file(judge: Judge, spec: MethodSpec[Any], seen: Stepped, model: Model, incoming: Model, at: str) -> bool:
    wanted = spec.produces or incoming.format
    there = judge.expect(
        "format",
        seen.exists and seen.inside,
        expected="a file in job.out",
        seen=f"{model.path} {'lies elsewhere' if seen.exists else 'does not exist'}",
        fix="write the model below job.out and point path at it",
        sample=at,
    )
    same = judge.expect(
        "format",
        model.format == wanted,
        expected=f"format {wanted!r}, as declared",
        seen=repr(model.format),
        fix=f"produces={model.format!r} in the spec, or return the declared format",
        sample=at,
    )
    return there and same


def _again(judge: Judge, first: Stepped, second: Stepped, at: str) -> None:
    same = second.raised is None and second.content_sha256 == first.content_sha256
    judge.expect(
        "seed",
        same,
        expected="two runs with one seed give the same bytes",
        seen=str(second.raised) if second.raised else "the files differ",
        fix="seed every generator with job.seed (harness_torch.seed_everything), leave out times and paths",
        sample=at,
    )
    beside(judge, second.watched, at, files=True)


def _interface(judge: Judge, model: Model, incoming: Model, seen: Stepped, material: Material, at: str) -> None:
    same = dict(model.inputs) == dict(incoming.inputs) and tuple(model.outputs) == tuple(incoming.outputs)
    judge.expect(
        "interface",
        same,
        expected=f"{told(incoming.inputs)} -> {', '.join(incoming.outputs)}",
        seen=f"{told(model.inputs)} -> {', '.join(model.outputs)}",
        fix="keep the incoming model's inputs and outputs: dataclasses.replace(model, …)",
        sample=at,
    )
    if seen.examine_failed:
        judge.expect(
            "interface",
            False,
            expected="the model runs",
            seen=seen.examine_failed,
            sample=at,
            fix="leave a model that can be loaded and called as the incoming one",
        )
        return
    got, wanted = arrays(seen.outputs), arrays(material.reference)
    if got and wanted:
        shapes = [(a.shape, str(a.dtype)) for a in got], [(a.shape, str(a.dtype)) for a in wanted]
        judge.expect(
            "interface",
            shapes[0] == shapes[1],
            expected=f"outputs {shapes[1]}",
            seen=f"{shapes[0]}",
            fix="keep the outputs' shapes and dtypes",
            sample=at,
        )
        finite = all(np.isfinite(a).all() for a in got if a.dtype.kind == "f")
        judge.expect(
            "finite",
            finite,
            expected="finite outputs",
            seen="NaN or infinity",
            fix="look for a division by zero, an empty group, or a learning rate too high",
            sample=at,
        )


def _wants(judge: Judge, spec: MethodSpec[Any], params: Any, model: Model, at: str) -> None:
    if spec.wants is None:
        return
    told = spec.wants(params)
    judge.expect(
        "wants",
        told.name == model.precision.name,
        expected=f"precision {told.name}, as wants says",
        seen=model.precision.name,
        fix="build both from one function of the params",
        sample=at,
    )


def _effect(
    judge: Judge, spec: MethodSpec[Any], seen: Stepped, model: Model, incoming: Model, material: Material, at: str
) -> None:
    claims = spec.changes or BY_FAMILY.get(spec.family, frozenset({"weights"}))
    after = seen.examined
    for claim in sorted(claims):
        told = _claim(claim, seen, model, incoming, material)
        if told is not None:
            judge.expect(
                "effect",
                told[0],
                expected=f"{claim} {told[1]}",
                seen=told[2],
                sample=at,
                fix=f"make sure that the change reaches the saved model, or take {claim!r} out of changes",
            )
    if after is not None:
        _recorded(judge, seen.effect, after, at)
        judge.expect(
            "layers",
            not after.foreign_layers,
            expected="layers of torch.nn and harness_torch only",
            seen=", ".join(after.foreign_layers),
            sample=at,
            fix="replace helper layers by plain ones before saving, so that every later step can read the model",
        )


def _claim(
    claim: str, seen: Stepped, model: Model, incoming: Model, material: Material
) -> tuple[bool, str, str] | None:
    if claim == "precision":
        same = model.precision == incoming.precision
        return not same, "asks for another arithmetic or storage", f"{model.precision.name}, as before"
    if claim == "parts":
        return len(model.parts) > 1, "more than one", str(len(model.parts) or 1)
    if claim == "weights":
        got, wanted = arrays(seen.outputs), arrays(material.reference)
        same = (
            bool(got)
            and len(got) == len(wanted)
            and all(np.array_equal(a, b) for a, b in zip(got, wanted, strict=True))
        )
        return not same, "differ", "the outputs are bit for bit those of the incoming model"
    after, before = _count(seen.examined, claim), _count(material.examined, claim)
    if after is None or before is None:
        return None
    return after < before, f"below {before}", str(after)


def _count(examined: Examined | None, name: str) -> int | None:
    return None if examined is None else getattr(examined, name)


def _recorded(judge: Judge, effect: Mapping[str, float], after: Examined, at: str) -> None:
    for name in COUNTED:
        told, counted = effect.get(name), _count(after, name)
        if told is None or counted is None:
            continue
        judge.expect(
            "effect-record",
            abs(told - counted) <= RECORD_TOLERANCE * max(counted, 1),
            expected=f"{name} of {counted}, counted in the file",
            seen=f"effect.json says {told:g}",
            sample=at,
            fix="let harness_torch.save write the effect, after the last change",
        )
