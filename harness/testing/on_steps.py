"""Run methods, exporters and workloads on test models."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from harness import params
from harness.build.cache import Cache, default_root
from harness.build.tasks import Use
from harness.plan.resolve import choose
from harness.testing.bench import Bench, each_material, model_for
from harness.testing.common import arrays, error_of
from harness.testing.jobs import hardware_fields
from harness.testing.material import Order, prepare, use_of
from harness.testing.methods import judge_method
from harness.testing.observed import Answered, Lowered, Material, Ran, Splits, Stepped
from harness.testing.on_target import Target
from harness.testing.others import judge_answers, judge_export, judge_fit, judge_score, judge_splits
from harness.testing.process import Process
from harness.testing.results import Judge
from harness.testing.running import FLOAT_TOLERANCE
from harness.types import Failure, Model, Options, Precision, Step

if TYPE_CHECKING:
    from harness.plugins import Registry


def check_method(bench: Bench, judge: Judge, name: str) -> None:
    """Run a method twice on each test model that it takes."""
    spec = bench.registry.methods[name].spec
    use = use_of(bench.registry, "method", name, bench.settings.params)
    built = params.build(spec.params, use.params, owner=judge.subject)
    hardware = hardware_fields(spec.reads)
    with Process(use.plugin, limit_s=bench.settings.limit_s) as process:
        for material in each_material(bench, judge, tuple(sorted(spec.consumes))):
            model = model_for(judge, material, spec.consumes)
            if model is None:
                continue

            def run(material: Material = material, model: Model = model) -> Stepped | Failure:
                return process.see(
                    "step",
                    Stepped,
                    step="compress",
                    use=use,
                    material=material,
                    model=model,
                    out=bench.folder(),
                    seed=0,
                    hardware=hardware,
                )

            first = run()
            again = isinstance(first, Stepped) and first.raised is None
            judge_method(judge, spec, built, material, model, first, run() if again else first)


def check_exporter(bench: Bench, judge: Judge, name: str) -> None:
    """Run an exporter twice on each test model, and its result on a target."""
    spec = bench.registry.exporters[name].spec
    use = use_of_exporter(bench.registry, name)
    with Process(use.plugin, limit_s=bench.settings.limit_s) as process:
        for material in each_material(bench, judge, (spec.consumes,)):
            model = model_for(judge, material, frozenset({spec.consumes}))
            if model is None:
                continue
            first, second = (
                process.see(
                    "step", Stepped, step="export", use=use, material=material, model=model, out=bench.folder(), seed=0
                )
                for _turn in range(2)
            )
            exported = judge_export(judge, spec, model, first, second, material.exercises)
            if exported is not None:
                _exported_outputs(bench, judge, exported, material)


def use_of_exporter(registry: Registry, name: str) -> Use:
    """Return an exporter as the kit's process takes it; exporters have no parameters."""
    return Use(registry.find("exporter", name).plugin, name)


def check_oracle(bench: Bench, judge: Judge, name: str) -> None:
    """Ask an oracle for what each test model answers, and compare with the trained model."""
    offer = bench.registry.oracles[name]
    with Process(offer.plugin, limit_s=bench.settings.limit_s) as process:
        for material in each_material(bench, judge, (offer.spec.consumes,)):
            model = model_for(judge, material, frozenset({offer.spec.consumes}))
            if model is not None:
                seen = process.see(
                    "oracle", Answered, use=Use(offer.plugin, name), material=material, model=model, out=bench.folder()
                )
                judge_answers(judge, seen, material)


def _exported_outputs(bench: Bench, judge: Judge, model: Model, material: Material) -> None:
    """Run an exported model on the first target that takes it."""
    at, whys = material.exercises, []
    for name, offer in bench.registry.targets.items():
        if not offer.spec.ranked or model.format not in offer.spec.accepts:
            continue
        runner = Target.of(bench, Judge(f"target {name!r}"), name)
        if runner is None or "float32" not in runner.precisions:
            continue
        with runner.process:
            lowered = runner.lower(material, model, Precision(), Options())
            if not isinstance(lowered, Lowered) or lowered.artifact is None:
                whys.append(f"{name} cannot lower it ({_why(lowered)})")
                continue
            runner.process.stop()  # a measuring process has not lowered anything
            seen = runner.live(material, lowered, Options(), "accuracy")
        if isinstance(seen, Ran) and seen.raised is None:
            pairs = zip(arrays(seen.outputs), arrays(material.reference), strict=False)
            worst = max((error_of(got, wanted) for got, wanted in pairs), default=float("inf"))
            judge.expect(
                "outputs",
                worst <= FLOAT_TOLERANCE,
                seen=f"{worst:.2g} of it, on {name}",
                sample=at,
                expected=f"the trained model's outputs within {FLOAT_TOLERANCE:g} of their largest value",
                fix="compare layer by layer with the model before the export",
            )
            return
        whys.append(f"{name} cannot run it ({_why(seen)})")
    why = "; ".join(whys) or f"no installed target runs {model.format} models in float32 here"
    judge.skip("outputs", why, at)


def _why(seen: Lowered | Ran | Failure) -> str:
    return seen.reason if isinstance(seen, Failure) else str(seen.raised)


def check_workload(bench: Bench, judge: Judge, name: str) -> None:
    """Draw a workload's data twice, train it twice, score it."""
    spec = bench.registry.workloads[name].spec
    given = dict(bench.settings.params) or _short(spec.params)
    use = use_of(bench.registry, "workload", name, given)
    with Process(use.plugin, limit_s=bench.settings.limit_s) as process:
        if not judge_splits(judge, process.see("splits", Splits, use=use, out=bench.folder())):
            return
        materials, lost = prepare(
            bench.registry, [Order(name, (), given)], Cache(bench.settings.cache or default_root()), bench.folder()
        )
        if not materials:
            why = lost.get(name)
            if why is not None and why.status in {"unavailable", "not-applicable"}:  # a package that is not here
                judge.skip("runs", why.reason)
                return
            judge.expect(
                "runs",
                False,
                expected="fit gives a model",
                seen=why.reason if why else "nothing",
                fix="run harness bench with it and read the log that it names",
            )
            return
        material = materials[0]
        first, second = (
            process.see("step", Stepped, step="fit", use=use, material=material, out=bench.folder(), seed=0)
            for _turn in range(2)
        )
        produces = choose(bench.registry, "workload", Step(name, given)).ask("produces")
        fitted = judge_fit(judge, produces, first, second)
        if fitted and spec.sample is not None:
            judge_score(judge, spec, process.see("score", Splits, use=use, material=material, out=bench.folder()))


def _short(kind: type) -> dict[str, Any]:
    """Train for one pass where the workload lets that be said."""
    return {item.name: 1 for item in dataclasses.fields(kind) if item.name == "epochs"}
