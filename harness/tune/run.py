"""From a request to a front, a reproducible spec, and a fresh measurement of the winners."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import harness
from harness.bench import RunResult, Ui
from harness.bench import run as bench
from harness.bench.records import utc_now
from harness.bench.run import package_lock, sources_of
from harness.build import Cache, probe_targets
from harness.codec import dumps, sha256, write_whole
from harness.config import write_config
from harness.errors import Interrupted, PlanError
from harness.grammar import format_pipeline, parse_pipeline, parse_step
from harness.measure import fingerprint
from harness.params import suggest
from harness.plan import ANCHOR, Request, resolve_targets
from harness.plugins import Registry
from harness.tune import space
from harness.tune.front import front, spread
from harness.tune.measure import Bench, Refused
from harness.tune.search import optuna_module, search
from harness.tune.store import FRONT, SPEC, StudyStore
from harness.tune.values import OBJECTIVES, Study, Trial, TuneRequest
from harness.types import SCHEMA, Step


@dataclass(frozen=True)
class TuneResult:
    """What a search came to.

    Attributes:
        winners: Of the front, those that are measured again.
        spec: ``bench.toml`` of the winners; ``None`` where no trial went well.
        run: The fresh measurement; ``None`` where it was not asked for.
    """

    folder: Path
    study: Study
    trials: tuple[Trial, ...]
    front: tuple[Trial, ...]
    winners: tuple[Trial, ...]
    spec: Path | None
    run: RunResult | None = None


def tune(request: TuneRequest, *, registry: Registry, out: Path, confirm: bool = True, ui: Ui) -> TuneResult:
    """Search, store each trial as it ends, write the winners' spec, and measure them anew on the test split.

    The search sees the selection split alone. The same request goes on where an earlier process stopped.

    Args:
        request: What to search.
        registry: What plugins offer.
        out: Root of the results tree.
        confirm: Measure the winners by a normal run.
        ui: Progress and talk.

    Raises:
        PlanError: The request cannot be planned, or nothing can be varied.
        MissingDependency: Optuna is not installed.
        Interrupted: The user stopped it.
    """
    _check(request, registry)
    steps = parse_pipeline(request.pipeline)
    axes = space.axes(request.vary, steps, registry)
    optuna_module()
    ui.stage("probing target", 1)
    asked = Request(workloads=(request.workload,), targets=(request.target,), python=request.python)
    states = probe_targets(
        resolve_targets(asked, registry), python=request.python, timeout_s=min(120.0, request.timeout_s)
    )  # fmt: skip
    ui.advance("probing target", 1, "")
    machine = Bench(request, registry, states, Cache(), ui)
    _possible(machine, format_pipeline(space.pipeline_at(steps, axes, {a.name: _any(a) for a in axes})))
    study = _study(request, registry, axes)
    with StudyStore(out, study) as store:
        try:
            _search(machine, steps, axes, store)
        except KeyboardInterrupt:
            raise Interrupted(
                f"stopped; {len(store.trials)} finished trials are in {store.folder}", hint="run the same command again"
            ) from None
        result = _finish(machine, store)
    if not confirm or not result.winners:
        return result
    confirmed = bench(_spec(machine, result.winners), registry=registry, out=out, ui=ui)
    return replace(result, run=confirmed)


def _check(request: TuneRequest, registry: Registry) -> None:
    unknown = next((name for name in request.objectives if name not in OBJECTIVES), None)
    if unknown is not None:
        raise PlanError(f"there is no objective {unknown!r}", hint=suggest(unknown, OBJECTIVES, "objective"))
    if not request.objectives or len(set(request.objectives)) < len(request.objectives):
        raise PlanError("give each objective once", hint=f"some of {', '.join(OBJECTIVES)}")
    registry.find("workload", parse_step(request.workload).name)
    target = registry.find("target", parse_step(request.target).name)
    if not target.spec.ranked:
        raise PlanError(f"target {request.target!r} runs no model, so nothing can be searched on it")
    for step in parse_pipeline(request.pipeline):
        if step.name == ANCHOR:
            raise PlanError(f"{ANCHOR!r} has nothing to search")
        registry.find("method", step.name)


def _any(axis: Any) -> Any:
    return axis.default if axis.default is not None else axis.choices[0] if axis.kind == "choice" else _low(axis)


def _low(axis: Any) -> Any:
    return int(axis.low) if axis.kind == "int" else axis.low


def _possible(machine: Bench, pipeline: str) -> None:
    """Refuse what cannot be on this target whatever the point is.

    Raises:
        PlanError: With the reason that a run's row would give.
    """
    try:
        machine.plan(pipeline)
    except Refused as refused:
        failure = refused.failure
        raise PlanError(f"{pipeline} cannot be searched here: {failure.status}: {failure.reason}") from refused


def _study(request: TuneRequest, registry: Registry, axes: tuple[Any, ...]) -> Study:
    spec = registry.find("workload", parse_step(request.workload).name).spec
    host, lock = fingerprint(), package_lock()
    up = {name: name == "quality" and spec.higher_is_better for name in request.objectives}
    what = [
        request.workload, request.pipeline, request.target, request.objectives, request.threads, request.batch,
        request.seed, request.python, axes, host.host_id, lock, sources_of(registry), harness.__version__,
    ]  # fmt: skip
    return Study(
        SCHEMA, sha256(what), request, axes, up, spec.metric, host.host_id, harness.__version__, lock, utc_now()
    )  # fmt: skip


def _search(machine: Bench, steps: tuple[Step, ...], axes: tuple[Any, ...], store: StudyStore) -> None:
    request, ui = machine.request, machine.ui
    if store.trials:
        ui.note(f"resuming {store.folder}: {len(store.trials)} trials are done")
    else:
        ui.note(f"search in {store.folder}")
    ui.stage("searching", request.trials)

    def evaluate(number: int, point: Mapping[str, Any]) -> Trial:
        pipeline = format_pipeline(space.pipeline_at(steps, axes, point))
        ui.advance("searching", number, pipeline)
        trial = machine.trial(number, pipeline, point)
        store.write(trial)
        ui.note(_line(trial))
        return trial

    search(
        axes, store.study.higher_is_better, list(store.trials), evaluate, trials=request.trials, seed=request.seed
    )  # fmt: skip
    ui.advance("searching", request.trials, "")


def _line(trial: Trial) -> str:
    values = ", ".join(f"{name} {value:.4g}" for name, value in trial.values.items())
    return f"trial {trial.number}: {trial.pipeline}: {values or f'{trial.status}: {trial.reason}'}"


def _spec(machine: Bench, winners: tuple[Trial, ...]) -> Request:
    return machine.as_bench(*(trial.pipeline for trial in winners))


def _finish(machine: Bench, store: StudyStore) -> TuneResult:
    """Write the front and the spec of the winners."""
    up = store.study.higher_is_better
    best = front(store.trials, up)
    winners = spread(best, up, machine.request.winners)
    spec = store.folder / SPEC if winners else None
    if spec is not None:
        write_config(spec, _spec(machine, winners))
    names = {"schema": SCHEMA, "front": [trial.pipeline for trial in best], "winners": [t.pipeline for t in winners]}
    write_whole(store.folder / FRONT, dumps(names, indent=1) + b"\n")
    return TuneResult(store.folder, store.study, tuple(store.trials), best, winners, spec)


__all__ = ["TuneResult", "tune"]
