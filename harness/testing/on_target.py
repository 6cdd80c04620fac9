"""Run a target on test models: lower in every precision, and live through several sessions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from harness.build.keys import capability_inputs
from harness.build.probe import probe_targets
from harness.plan.resolve import choose
from harness.testing.bench import Bench, each_material, model_for
from harness.testing.lives import judge_lives, judge_placements
from harness.testing.lowering import judge_lowered, judge_refused, judge_state
from harness.testing.material import use_of
from harness.testing.observed import Lowered, Material, Ran
from harness.testing.process import Process
from harness.testing.results import Judge
from harness.testing.running import judge_run
from harness.types import Calibration, Failure, Model, Options, Precision, Step

if TYPE_CHECKING:
    from harness.plugins import Registry

_BATCH = 4
_UNKNOWN = "int3"  # a precision that nothing has


@dataclass
class Target:
    """A target that runs here, with the process that its functions are called in."""

    bench: Bench
    name: str
    use: Any
    spec: Any
    precisions: Mapping[str, str]
    gaps: Mapping[str, str]
    hardware: Mapping[str, Any]
    process: Process

    @classmethod
    def of(cls, bench: Bench, judge: Judge, name: str, given: Mapping[str, Any] | None = None) -> Target | None:
        """Probe a target; ``None`` where it does not run here."""
        chosen = choose(bench.registry, "target", Step(name, dict(given or {})))
        state = probe_targets({name: chosen.resolved}, timeout_s=bench.settings.limit_s)[name]
        able = state.capabilities
        if not judge_state(judge, state.availability, able) or able is None:
            judge.skip("runs", f"not available here: {state.availability.reason}")
            return None
        return cls(
            bench,
            name,
            use_of(bench.registry, "target", name, given),
            chosen.spec,
            able.precisions,
            able.gaps,
            capability_inputs(able),
            Process(chosen.resolved.plugin, limit_s=bench.settings.limit_s),
        )

    def lower(self, material: Material, model: Model, precision: Precision, options: Options) -> Lowered | Failure:
        """Lower a test model."""
        return self.process.see(
            "lower",
            Lowered,
            use=self.use,
            material=material,
            model=model,
            precision=precision,
            options=options,
            out=self.bench.folder(),
            hardware=self.hardware,
        )

    def live(self, material: Material, lowered: Lowered, options: Options, purpose: str) -> Ran | Failure:
        """Run one session of a lowered model."""
        return self.process.see(
            "run",
            Ran,
            use=self.use,
            artifact=lowered.artifact,
            options=options,
            purpose=purpose,
            evaluation=material.data / "test",
            out=self.bench.folder(),
        )


def check_target(bench: Bench, judge: Judge, name: str) -> None:
    """Probe a target, and lower and run every test model on it."""
    target = Target.of(bench, judge, name, bench.settings.params)
    if target is None:
        return
    with target.process:
        for material in each_material(bench, judge, tuple(sorted(target.spec.accepts))):
            model = model_for(judge, material, target.spec.accepts)
            if model is None:
                continue
            if "float32" in target.precisions:
                _float(target, judge, material, model)
            if not bench.settings.quick:
                _precisions(target, judge, material, model)
            _refusals(target, judge, material, model)


def _float(target: Target, judge: Judge, material: Material, model: Model) -> None:
    at, one = material.exercises, Options()
    lowered = target.lower(material, model, Precision(), one)
    works = isinstance(lowered, Lowered) and lowered.raised is None
    if not judge_lowered(
        judge, lowered, target.lower(material, model, Precision(), one) if works else None, Precision(), at
    ):
        return
    target.process.stop()  # a measuring process has not lowered anything
    if not isinstance(lowered, Lowered):
        return
    first = target.live(material, lowered, one, "accuracy")
    if not judge_run(judge, target.spec, first, model, material, at, "float32"):
        return
    lives = {"one": first, "again": target.live(material, lowered, one, "accuracy")}
    for life, options in (("batch", replace(one, batch=_BATCH)), ("two", replace(one, threads=2))):
        made = _for_options(target, material, model, lowered, options)
        if isinstance(made, Lowered) and made.artifact is not None:
            lives[life] = target.live(material, made, options, "accuracy")
    judge_lives(judge, lives, target.spec, at)
    if target.spec.ranked:
        judge_placements(judge, target.live(material, lowered, one, "placement"), material, at)


def _for_options(
    target: Target, material: Material, model: Model, lowered: Lowered, options: Options
) -> Lowered | Failure:
    """Lower anew where the target says that its file depends on the options."""
    reads = target.spec.lower_reads
    changed = ("batch" in reads and options.batch != 1) or ("threads" in reads and options.threads != 1)
    return target.lower(material, model, Precision(), options) if changed else lowered


def _wanted(registry: Registry, name: str) -> Precision:
    """Return the precision of a name as the installed methods ask for it."""
    for offer in registry.methods.values():
        asked = offer.spec.wants(offer.spec.params()) if offer.spec.wants else None
        if asked is not None and asked.name == name and asked.encodings is None:
            return asked
    scheme, _, dtype = name.rpartition("-")
    if scheme == "weight-only":
        return Precision(dtype, "float32", "weight-only")
    if scheme == "dynamic":
        return Precision(dtype, dtype, "dynamic")
    static = dtype.startswith(("int", "uint"))
    return Precision(dtype, dtype, "static" if static else "float", calibration=Calibration() if static else None)


def _precisions(target: Target, judge: Judge, material: Material, model: Model) -> None:
    for name in sorted(set(target.precisions) - {"float32"}):
        at, precision = f"{material.exercises} in {name}", _wanted(target.bench.registry, name)
        if precision.name != name:
            judge.skip("runs", f"no installed method asks for {name}", at)
            continue
        lowered = target.lower(material, model, precision, Options())
        if judge_lowered(judge, lowered, None, precision, at, target.precisions[name]) and isinstance(lowered, Lowered):
            judge_run(
                judge, target.spec, target.live(material, lowered, Options(), "accuracy"), model, material, at, name
            )


def _refusals(target: Target, judge: Judge, material: Material, model: Model) -> None:
    refused = dict(target.gaps) | ({_UNKNOWN: "nothing has this precision"} if target.spec.ranked else {})
    for name, why in sorted(refused.items()):
        precision = _wanted(target.bench.registry, name)
        if precision.name == name:
            judge_refused(
                judge, target.lower(material, model, precision, Options()), why, f"{material.exercises} in {name}"
            )
