"""Texts of the grammar to specs with checked parameters."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from harness import grammar, params
from harness.errors import HarnessError, PlanError
from harness.feeds import fixed_batch
from harness.plan.checks import check_pipeline
from harness.plan.chosen import Chosen
from harness.plan.values import Request, Resolved
from harness.profiles import profile_named
from harness.types import Options, Step

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from harness.plugins import Registry

T = TypeVar("T")


def choose(registry: Registry, kind: str, step: Step) -> Chosen:
    """Find what a step names and build its parameters.

    Raises:
        PlanError: No such name, or a bad parameter.
        PluginError: The plugin that offers it is broken or blocked.
    """
    offer = registry.find(kind, step.name)
    built = params.build(offer.spec.params, step.params, owner=f"{kind} {step.name!r}")
    resolved = Resolved(Step(step.name, params.given(built)), step.name, dataclasses.asdict(built), offer.plugin)
    chosen = Chosen(offer.spec, built, resolved)
    wrong = chosen.ask("check") if hasattr(offer.spec, "check") else None  # methods alone have one
    if wrong:
        raise PlanError(f"{kind} {step.name!r}: {wrong}")
    return chosen


def by_chance(chosen: Chosen) -> Step:
    """Return a method's step with the parameters of its control."""
    if not chosen.spec.control:
        return chosen.resolved.step
    changed: Mapping[str, object] = {**chosen.resolved.params, **chosen.spec.control}
    return Step(chosen.name, params.given(params.build(chosen.spec.params, changed, owner=f"method {chosen.name!r}")))


def _unique(items: Iterable[T], key: Callable[[T], str]) -> tuple[T, ...]:
    return tuple({key(item): item for item in reversed(list(items))}.values())[::-1]


def workloads(request: Request, registry: Registry) -> tuple[Chosen, ...]:
    """Return the workloads asked for, or the default ones.

    Raises:
        PlanError: None is asked for and none is a default, or one is not known.
    """
    if not request.workloads:
        registry.settled("workload", lambda spec: spec.default)
    texts = request.workloads or tuple(name for name, offer in registry.workloads.items() if offer.spec.default)
    if not texts:
        raise PlanError(
            "no workload is named and no installed one is a default", hint="name one: harness workloads lists them"
        )
    steps = [step for text in texts for step in grammar.expand_steps(text)]
    return _unique((choose(registry, "workload", step) for step in steps), lambda chosen: chosen.text)


def targets(request: Request, registry: Registry) -> tuple[Chosen, ...]:
    """Return the targets asked for; "all" is every installed target that is a default.

    Raises:
        PlanError: One is not known, or an interpreter is given for a target that is not.
    """
    if "all" in request.targets:
        registry.settled("target", lambda spec: spec.default)
    default = [name for name, offer in registry.targets.items() if offer.spec.default]
    texts = [name for text in request.targets for name in (default if text == "all" else [text])]
    if not texts:
        raise PlanError("no target is named", hint="harness targets lists them")
    steps = [step for text in texts for step in grammar.expand_steps(text)]
    for name in request.python:
        registry.find("target", name)
    return _unique((choose(registry, "target", step) for step in steps), lambda chosen: chosen.text)


def resolve_targets(request: Request, registry: Registry) -> Mapping[str, Resolved]:
    """Return the targets of a request by their text: what ``probe_targets`` takes and ``make_plan`` wants states of."""
    return {chosen.text: chosen.resolved for chosen in targets(request, registry)}


def default_pipelines(registry: Registry) -> tuple[str, ...]:
    """Return what a run without methods measures: each method's defaults, where all that they name is installed.

    Raises:
        PluginError: Several plugins offer a method by the same name, and it would be measured.
    """
    registry.settled("method", lambda spec: spec.defaults != ())
    texts = (
        text
        for name, offer in registry.methods.items()
        for text in (offer.spec.defaults or ((name,) if offer.spec.defaults is None else ()))
    )
    return tuple(
        dict.fromkeys(text for text in texts if all(_installed(registry, step) for step in grammar.expand(text)[0]))
    )


def _installed(registry: Registry, step: Step) -> bool:
    registry.settled("method", lambda spec: spec.name == step.name)
    return step.name in registry.methods


@dataclass(frozen=True)
class Pipeline:
    """A chain of methods, checked for order and conflicts."""

    steps: tuple[Chosen, ...]

    @property
    def text(self) -> str:
        """Canonical form."""
        return grammar.format_pipeline([chosen.resolved.step for chosen in self.steps])

    def prefixes(self) -> tuple[Pipeline, ...]:
        """Return the pipelines of the first step, the first two steps …, and of all."""
        return tuple(Pipeline(self.steps[: count + 1]) for count in range(len(self.steps)))


def pipeline(registry: Registry, steps: Iterable[Step]) -> Pipeline:
    """Resolve a chain of methods.

    Raises:
        PlanError: An unknown name, a bad parameter, or an order that a method rules out.
    """
    chosen = tuple(choose(registry, "method", step) for step in steps)
    check_pipeline(chosen)
    return Pipeline(chosen)


def pipelines(request: Request, registry: Registry) -> tuple[Pipeline, ...]:
    """Return the pipelines asked for, sweeps expanded, or the default ones."""
    texts = request.methods or default_pipelines(registry)
    found = [pipeline(registry, steps) for text in texts for steps in grammar.expand(text)]
    return _unique(found, lambda item: item.text)


def _threads(text: str, cores: int) -> int:
    if text == "all":
        return cores
    if not text.isdecimal() or int(text) < 1:
        raise PlanError(f"threads takes a count of at least 1 or 'all'; got {text!r}")
    if int(text) > cores:
        raise PlanError(f"threads={text} is more than the {cores} cores that this process may use", hint="use 'all'")
    return int(text)


def options_of(workload: Chosen, request: Request, cores: int) -> tuple[Options, ...]:
    """Return the combinations for one workload: a model that is fixed to a batch is measured at that.

    Raises:
        PlanError: Another batch is asked for.
    """
    found = options(request, cores)
    fixed = _fixed_batch(workload)
    wrong = next((item.batch for item in found if fixed is not None and item.batch != fixed), None)
    if fixed is None or wrong is None:
        return found
    if request.batches != Request().batches:
        raise PlanError(
            f"the model of {workload.text} takes {fixed} item{'s' if fixed > 1 else ''} in a call, not {wrong}",
            hint=f"--batch {fixed}, or a model that leaves its batch free",
        )
    return tuple(dict.fromkeys(dataclasses.replace(item, batch=fixed) for item in found))


def _fixed_batch(workload: Chosen) -> int | None:
    """Return the batch that the user's own model is fixed to."""
    if workload.spec.modality != "file":
        return None
    try:
        inputs = workload.ask("inputs")
    except HarnessError:  # told where the files are read
        return None
    return fixed_batch(inputs or {})


def options(request: Request, cores: int) -> tuple[Options, ...]:
    """Return every combination of threads and batch.

    Raises:
        PlanError: A count is below 1, or more threads than cores are asked for.
    """
    profile_named(request.profile)
    if not request.threads or not request.batches:
        raise PlanError("threads and batches each take at least one count")
    low = next((batch for batch in request.batches if batch < 1), None)
    if low is not None:
        raise PlanError(f"batch takes a count of at least 1; got {low}")
    counts = dict.fromkeys(_threads(text, cores) for text in request.threads)
    return tuple(
        Options(threads, batch, seed=request.seed) for threads in counts for batch in dict.fromkeys(request.batches)
    )
