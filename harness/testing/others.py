"""Checks of exporters, oracles and workloads."""

from __future__ import annotations

import math
from typing import Any

from harness.specs import ExporterSpec, WorkloadSpec
from harness.testing.common import arrays, beside, ended, error_of, raised_well, told
from harness.testing.observed import Answered, Material, Splits, Stepped
from harness.testing.results import Judge
from harness.testing.running import FLOAT_TOLERANCE
from harness.types import Failure, Model


def judge_export(
    judge: Judge, spec: ExporterSpec, incoming: Model, first: Stepped | Failure, second: Stepped | Failure, at: str
) -> Model | None:
    """Check an exporter on one test model; return the model where there is one."""
    if not ended(judge, first, "export", at) or isinstance(first, Failure):
        return None
    model = first.model
    if first.raised is not None or model is None:
        _not_exported(judge, first, at)
        return None
    judge.expect("runs", True, expected="", seen="", fix="", sample=at)
    beside(judge, first.watched, at, files=False)
    judge.expect(
        "input-kept",
        not first.input_changed,
        expected="the incoming model is only read",
        seen="its folder has changed",
        fix="copy it into job.out before changing it",
        sample=at,
    )
    fine = first.exists and first.inside and model.format == spec.produces
    judge.expect(
        "format",
        fine,
        expected=f"a {spec.produces!r} file in job.out",
        seen=f"{model.format!r} at {model.path}",
        fix="dataclasses.replace(model, format=…, path=job.out / …)",
        sample=at,
    )
    same = dict(model.inputs) == dict(incoming.inputs) and tuple(model.outputs) == tuple(incoming.outputs)
    judge.expect(
        "interface",
        same,
        expected=f"the incoming inputs and outputs: {told(incoming.inputs)} -> {', '.join(incoming.outputs)}",
        sample=at,
        seen=f"{told(model.inputs)} -> {', '.join(model.outputs)}",
        fix="dataclasses.replace(model, format=…, path=…); the batch stays free, also where the file is for one",
    )
    if ended(judge, second, "export, a second time", at) and isinstance(second, Stepped):
        judge.expect(
            "seed",
            second.raised is None and second.content_sha256 == first.content_sha256,
            sample=at,
            expected="the same model gives the same bytes",
            seen=str(second.raised or "the files differ"),
            fix="take times, paths and counters out of the file",
        )
        beside(judge, second.watched, at, files=True)
    return model if fine else None


def _not_exported(judge: Judge, seen: Stepped, at: str) -> None:
    if seen.raised is None:
        judge.expect(
            "runs",
            False,
            expected="export returns a Model",
            seen=seen.gave,
            sample=at,
            fix="return dataclasses.replace(model, format=…, path=…)",
        )
    elif seen.raised.unsupported or seen.raised.kind == "MissingDependency":
        raised_well(judge, seen.raised, "export", at)
    else:
        judge.expect(
            "unsupported",
            False,
            expected="export works on this layer kind, or raises Unsupported",
            seen=str(seen.raised),
            fix="raise Unsupported with the reason",
            sample=at,
        )


def judge_answers(judge: Judge, seen: Answered | Failure, material: Material) -> None:
    """Check what an oracle gave for one test model."""
    at = material.exercises
    if not ended(judge, seen, "open and run", at) or isinstance(seen, Failure):
        return
    if not raised_well(judge, seen.raised, "open and run", at):
        return
    judge.expect(
        "runs", bool(seen.oracle), expected="a label that says which program answers", seen="an empty one", sample=at,
        fix="label = 'torch eager'",
    )  # fmt: skip
    beside(judge, seen.watched, at, files=False)
    judge.expect(
        "input-kept",
        not seen.input_changed,
        expected="the model is only read",
        seen="its folder has changed",
        fix="copy it into job.out before changing it",
        sample=at,
    )
    pairs = zip(arrays(seen.outputs), arrays(material.reference), strict=False)
    worst = max((error_of(got, wanted) for got, wanted in pairs), default=math.inf)
    judge.expect(
        "outputs",
        worst <= FLOAT_TOLERANCE,
        expected=f"the trained model's outputs within {FLOAT_TOLERANCE:g} of their largest value",
        seen=f"{worst:.2g} of it",
        fix="bind inputs and outputs by name; run without optimizations",
        sample=at,
    )


def judge_splits(judge: Judge, seen: Splits | Failure) -> bool:
    """Check a workload's data; tell whether there are any."""
    if not ended(judge, seen, "split", "") or isinstance(seen, Failure):
        return False
    if seen.raised is not None:
        if seen.raised.on_purpose:  # such as a file that the defaults do not name
            judge.skip("splits", str(seen.raised))
            return False
        return judge.expect(
            "runs",
            False,
            expected="split returns a Split",
            seen=str(seen.raised),
            fix="raise Unsupported or BadModel with the reason",
        )
    beside(judge, seen.watched, "", files=False)
    if not judge.expect(
        "splits",
        not seen.problem,
        expected="splits as declared, that share no item",
        seen=seen.problem,
        fix="cut one shuffled order into four parts; keep dtypes and shapes as inputs says",
    ):
        return False
    moved = sorted(name for name in seen.first if seen.first[name] != seen.second.get(name))
    judge.expect(
        "splits",
        not moved,
        expected="the same items every time",
        seen=f"{', '.join(moved)} changed",
        fix="draw from numpy.random.default_rng with a fixed seed",
    )
    return True


def judge_fit(judge: Judge, produces: str, first: Stepped | Failure, second: Stepped | Failure) -> bool:
    """Check the training of a workload; tell whether there is a model."""
    if not ended(judge, first, "fit", "") or isinstance(first, Failure):
        return False
    judge.expect(
        "test-split",
        not first.test_asked,
        expected="train, calibration and selection are enough",
        seen="it asked for the test split",
        fix="judge with job.data.split('selection') while fitting",
    )
    if first.raised is not None or first.model is None:
        if first.raised is not None and first.raised.on_purpose:
            judge.skip("runs", str(first.raised))
        else:
            judge.expect(
                "runs",
                False,
                expected="fit returns a Model",
                seen=str(first.raised or first.gave),
                fix="return harness_torch.new_model(module, job, inputs, outputs)",
            )
        return False
    judge.expect("runs", True, expected="", seen="", fix="")
    beside(judge, first.watched, "", files=False)
    fine = first.exists and first.inside and first.model.format == produces
    judge.expect(
        "format",
        fine,
        expected=f"a {produces!r} file in job.out",
        seen=f"{first.model.format!r} at {first.model.path}",
        fix="write it below job.out; produces says the format",
    )
    if ended(judge, second, "fit, a second time", "") and isinstance(second, Stepped):
        judge.expect(
            "seed",
            second.content_sha256 == first.content_sha256,
            expected="the same seed gives the same bytes",
            seen=str(second.raised or "the files differ"),
            fix="seed every generator with job.seed (harness_torch.seed_everything)",
        )
    return True


def judge_score(judge: Judge, spec: WorkloadSpec[Any], seen: Splits | Failure) -> None:
    """Check the scores of a trained model."""
    if not ended(judge, seen, "score", "") or isinstance(seen, Failure):
        return
    if seen.stage == "unlabelled":
        judge.skip("score", "the workload has no labels")
        return
    if seen.raised is not None:
        judge.expect(
            "score",
            False,
            expected="score and aggregate return",
            seen=str(seen.raised),
            fix="score(outputs by name, labels) -> array [n, k]; aggregate(array) -> float",
        )
        return
    shape = tuple(seen.scores_shape)
    judge.expect(
        "score",
        len(shape) == 2 and shape[0] == seen.items,
        expected=f"statistics of shape [{seen.items}, k]",
        seen=f"shape {list(shape)}",
        fix="one row per item: scores[:, None] where there is one statistic",
    )
    judge.expect(
        "score",
        seen.permuted_equal,
        expected="permuted items give permuted scores",
        seen="others",
        fix="score each item by itself; put what needs all of them into aggregate",
    )
    values = {float(value) for value in seen.scores}
    wilson = spec.interval != "wilson" or (shape[1:] == (1,) and values <= {0.0, 1.0})
    judge.expect(
        "score",
        wilson,
        expected="one 0/1 column where interval is wilson",
        seen=f"values {sorted(values)}",
        fix="interval='bootstrap' for anything else",
    )
    judge.expect(
        "score",
        seen.metric is not None,
        expected="a finite metric",
        seen=seen.aggregate,
        fix="aggregate returns a float",
    )
