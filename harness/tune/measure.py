"""One trial: build the pipeline, run the selection split, and time it beside the baseline."""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.bench.oracle import load_outputs
from harness.bench.quality import evaluation_batch, load_labels, refuse_infinite
from harness.bench.records import utc_now
from harness.bench.shared import member_of
from harness.bench.ui import Ui
from harness.build import Built, Cache, build_plan
from harness.build.job import Workload
from harness.errors import HarnessError, PlanError
from harness.explain import Where
from harness.explain import failure as explained
from harness.faults import called
from harness.measure import run_set, run_untimed, slots
from harness.measure.cpus import effective_cores
from harness.plan import Plan, PlannedCell, Request, TargetState, make_plan
from harness.plugins import Registry
from harness.profiles import profile_named
from harness.stats import summarise
from harness.tune.values import Trial, TuneRequest
from harness.types import SCHEMA, Failure, Latency, LaunchSet

SETS = 2  # launch-sets of a trial: enough to steer by; the winners get the whole protocol


class Refused(Exception):
    """A trial that came to nothing, with the reason."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.reason)
        self.failure = failure


@dataclass
class Bench:
    """What measures trials: one workload, one target, the selection split."""

    request: TuneRequest
    registry: Registry
    states: Mapping[str, TargetState]
    cache: Cache
    ui: Ui

    def as_bench(self, *pipelines: str) -> Request:
        """Return the request of a normal run of these pipelines."""
        asked = self.request
        return Request(
            workloads=(asked.workload,), methods=pipelines, targets=(asked.target,), profile=asked.profile,
            threads=(asked.threads,), batches=(asked.batch,), seed=asked.seed, python=asked.python,
            timeout_s=asked.timeout_s, memory_limit_bytes=asked.memory_limit_bytes,
        )  # fmt: skip

    def plan(self, pipeline: str) -> tuple[Plan, PlannedCell, PlannedCell]:
        """Plan a pipeline; return the plan, its cell and the anchor.

        Raises:
            PlanError: The pipeline cannot be planned.
            Refused: It cannot be on this target.
        """
        plan = make_plan(self.as_bench(pipeline), self.registry, self.states, effective_cores())
        anchor = next((planned for planned in plan.cells if planned.is_anchor), None)
        own = next((planned for planned in plan.cells if not planned.is_anchor), None)
        if own is None or anchor is None:
            raise PlanError("there is no baseline to compare with")
        for planned in (own, anchor):
            if planned.impossible is not None:
                raise Refused(planned.impossible)
        return plan, own, anchor

    def trial(self, number: int, pipeline: str, point: Mapping[str, Any]) -> Trial:
        """Measure one pipeline; whatever goes wrong costs this trial alone.

        Raises:
            PlanError: The workload has no labelled selection split to judge by.
        """
        started = time.monotonic()
        base = Trial(SCHEMA, number, pipeline, point, "ok")
        try:
            found = self._measured(base)
        except Refused as refused:
            found = _refused(base, refused.failure)
        except PlanError:
            raise
        except HarnessError as error:
            found = _refused(base, Failure("failed", "latency", "harness", error.message))
        return dataclasses.replace(found, seconds=time.monotonic() - started, finished_utc=utc_now())

    def _measured(self, base: Trial) -> Trial:
        try:
            plan, own, anchor = self.plan(base.pipeline)
        except PlanError as error:  # the point's values do not go together: that is what a search finds out
            raise Refused(Failure("not-applicable", "plan", "plan", error.message)) from error
        built = self._build(plan, own, anchor)
        mine = built[own.cell_id]
        with slots.measuring(on_wait=self.ui.note):
            score = self._quality(own, mine)
            sets = self._sets(own, anchor, built)
        latency = summarise(own.cell_id, anchor.cell_id, sets, profile_named("quick"))
        return _with_values(base, self.request.objectives, mine, score, latency, sets)

    def _build(self, plan: Plan, own: PlannedCell, anchor: PlannedCell) -> dict[str, Built]:
        results = build_plan(
            plan, self.cache, registry=self.registry, workers=effective_cores(), slot=slots.building,
            states=self.states, split="selection",
        )  # fmt: skip
        found: dict[str, Built] = {}
        for planned in (anchor, own):
            item = results[planned.cell_id]
            if isinstance(item, Failure):
                raise Refused(item)
            found[planned.cell_id] = item
        return found

    def _quality(self, planned: PlannedCell, built: Built) -> float | None:
        spec = self.registry.workloads[planned.workload.name].spec
        items = built.evaluation
        if not (items.items and items.labelled) or spec.score is None or spec.aggregate is None:
            if "quality" in self.request.objectives:
                raise PlanError(
                    f"workload {planned.workload.name!r} has no labelled selection split to judge quality by",
                    hint="leave quality out: --objectives latency,size",
                )
            return None
        with tempfile.TemporaryDirectory(prefix="harness-") as scratch:
            result = run_untimed(
                member_of(planned, built, self.as_bench()),
                purposes=frozenset({"accuracy"}),
                batch=evaluation_batch(planned, built, self.states.get(planned.labels["target"])),
                items=items.items,
                outputs_to=Path(scratch) / "outputs",
                timeout_s=self.request.timeout_s,
                memory_limit_bytes=self.request.memory_limit_bytes,
            )
            if isinstance(result, Failure):
                raise Refused(result)
            outputs = load_outputs(result.outputs)
            refuse_infinite(outputs)
            try:
                view = Workload.of(spec, planned.workload.params)
                with called():
                    return view.aggregate(view.score(outputs, load_labels(built)))
            except Exception as error:  # score and aggregate are a plugin's: they cost this trial
                where = Where("accuracy", f"workload {planned.workload.name}", "the outputs could not be judged")
                raise Refused(explained(error, where)) from error

    def _sets(
        self, own: PlannedCell, anchor: PlannedCell, built: Mapping[str, Built]
    ) -> tuple[LaunchSet, ...]:  # fmt: skip
        request = self.as_bench()
        members = [
            member_of(item, built[item.cell_id], request)
            for item in {anchor.cell_id: anchor, own.cell_id: own}.values()
        ]
        found: list[LaunchSet] = []
        for index in range(SETS):
            made = run_set(
                own.cell_id, index, "variants", anchor.cell_id, members, profile_named("quick"), self.request.seed,
                timeout_s=self.request.timeout_s, memory_limit_bytes=self.request.memory_limit_bytes,
            )  # fmt: skip
            for failure in made.failures.values():
                raise Refused(failure)
            found.append(made)
        return tuple(found)


def _refused(base: Trial, failure: Failure) -> Trial:
    return dataclasses.replace(
        base, status=failure.status, stage=failure.stage, blame=failure.blame, reason=failure.reason
    )  # fmt: skip


def _with_values(
    base: Trial,
    objectives: tuple[str, ...],
    built: Built,
    score: float | None,
    latency: Latency,
    sets: tuple[LaunchSet, ...],
) -> Trial:
    ratio = 1.0 if latency.verdict == "anchor" else latency.ratio.point if latency.ratio else None
    artifact = built.artifact
    every = {"quality": score, "latency": ratio, "size": artifact.artifact_bytes, "stored": artifact.stored_bytes}
    values = {name: float(value) for name, value in every.items() if name in objectives and value is not None}
    if len(values) < len(objectives):
        raise Refused(Failure("failed", "latency", "harness", "it never ran in one round with its baseline"))
    return dataclasses.replace(
        base, values=values, quality=score, items=built.evaluation.items, ratio=ratio, p50_ns=latency.p50_ns.point,
        artifact_bytes=artifact.artifact_bytes, stored_bytes=artifact.stored_bytes, sets=sets,
    )  # fmt: skip
