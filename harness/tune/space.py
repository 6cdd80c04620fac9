"""What is varied: from texts and declared ranges to axes, and from a point back to a pipeline."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from harness.errors import PlanError
from harness.grammar import format_pipeline
from harness.params import Domain, build, domains, suggest
from harness.tune.values import Axis
from harness.types import Step

if TYPE_CHECKING:
    from harness.plugins import Registry

OPEN_END = 0.05  # share of a range that is left out at an end which the range excludes
DIGITS = 3  # significant digits of a searched number: a pipeline that people read and type again
_SHAPE = "write name=low..high, name=low..high:log or name=a,b,c"


def axes(vary: Sequence[str], steps: Sequence[Step], registry: Registry) -> tuple[Axis, ...]:
    """Return what is varied: the texts given, else every free parameter whose declared range has both ends.

    Raises:
        PlanError: A text that does not parse, names no parameter, or leaves the declared range; nothing to vary.
    """
    found = tuple(_given(text, steps, registry) for text in vary) if vary else _declared(steps, registry)
    names = [axis.name for axis in found]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise PlanError(f"parameter {twice!r} is varied twice", hint="give it once")
    if not found:
        raise PlanError(
            f"no parameter of {format_pipeline(steps)!r} declares a range with both ends",
            hint="say what to vary, such as --vary epochs=2..10",
        )
    return found


def pipeline_at(steps: Sequence[Step], found: Sequence[Axis], point: Mapping[str, Any]) -> tuple[Step, ...]:
    """Return the pipeline with the values of a point filled in."""
    filled = list(steps)
    for axis in found:
        step = filled[axis.step]
        filled[axis.step] = replace(step, params={**step.params, axis.param: point[axis.name]})
    return tuple(filled)


def rounded(axis: Axis, value: Any) -> Any:
    """Return a value with few digits that still lies in the axis."""
    if axis.kind != "float":
        return value
    return min(max(float(f"{value:.{DIGITS}g}"), axis.low), axis.high)


def points(found: Sequence[Axis]) -> int | None:
    """Return how many points there are; ``None`` where a float makes them too many to count."""
    total = 1
    for axis in found:
        if axis.kind == "float":
            return None
        total *= len(axis.choices) if axis.kind == "choice" else int(axis.high - axis.low) + 1
    return total


def _name(index: int, steps: Sequence[Step], param: str) -> str:
    names = [step.name for step in steps]
    owner = names[index] if names.count(names[index]) == 1 else str(index + 1)
    return f"{owner}.{param}"


def _declared(steps: Sequence[Step], registry: Registry) -> tuple[Axis, ...]:
    found: list[Axis] = []
    for index, step in enumerate(steps):
        for param, domain in domains(registry.find("method", step.name).spec.params).items():
            axis = _of_domain(index, _name(index, steps, param), param, domain)
            if axis is not None and param not in step.params:
                found.append(axis)
    return tuple(found)


def _of_domain(index: int, name: str, param: str, domain: Domain) -> Axis | None:
    limits = domain.limits
    if limits.choices:
        return Axis(name, index, param, "choice", choices=limits.choices, default=domain.default)
    if bool in domain.kinds:
        return Axis(name, index, param, "choice", choices=(False, True), default=domain.default)
    low, high = (end if end is not None else other for end, other in ((limits.ge, limits.gt), (limits.le, limits.lt)))
    if low is None or high is None or not {int, float} & set(domain.kinds):
        return None
    whole = float not in domain.kinds
    rim = 1 if whole else OPEN_END * (high - low)
    low, high = low + (rim if limits.ge is None else 0), high - (rim if limits.le is None else 0)
    return Axis(name, index, param, "int" if whole else "float", low, high, default=_inside(domain.default, low, high))


def _inside(value: Any, low: float, high: float) -> Any:
    return value if isinstance(value, (int, float)) and low <= value <= high else None


def _given(text: str, steps: Sequence[Step], registry: Registry) -> Axis:
    name, sign, values = text.partition("=")
    if not sign or not name.strip() or not values.strip():
        raise PlanError(f"--vary takes name=low..high; got {text!r}", hint=_SHAPE)
    index, param = _place(name.strip(), steps, registry)
    spec = registry.find("method", steps[index].name).spec
    if param in steps[index].params:
        raise PlanError(f"parameter {param!r} is both fixed in the pipeline and varied", hint="leave one of them out")
    owner = f"method {steps[index].name!r}"

    def read(value: str) -> Any:
        return getattr(build(spec.params, {param: value.strip()}, owner=owner), param)

    ends = re.fullmatch(r"([^.,]*(?:\.[^.,]+)?)\.\.([^:,]+)(:log)?", values.strip())
    label, default = _name(index, steps, param), domains(spec.params)[param].default
    if ends is None:
        choices = tuple(dict.fromkeys(read(value) for value in values.split(",")))
        return Axis(
            label, index, param, "choice", choices=choices, default=default if default in choices else None
        )  # fmt: skip
    low, high = read(ends.group(1)), read(ends.group(2))
    return _range(Axis(label, index, param, "float", log=bool(ends.group(3))), low, high, default, text)


def _range(axis: Axis, low: Any, high: Any, default: Any, text: str) -> Axis:
    numbers = all(isinstance(end, (int, float)) and not isinstance(end, bool) for end in (low, high))
    if not numbers:
        raise PlanError(f"parameter {axis.param!r} is no number, so {text!r} is no range", hint="list its values: a,b")
    if low >= high:
        raise PlanError(f"the range of {text!r} is empty: {low} is not below {high}", hint=_SHAPE)
    if axis.log and low <= 0:
        raise PlanError(f"a logarithmic range begins above 0; got {text!r}")
    whole = isinstance(low, int) and isinstance(high, int)
    return replace(
        axis, kind="int" if whole else "float", low=float(low), high=float(high), default=_inside(default, low, high)
    )


def _place(name: str, steps: Sequence[Step], registry: Registry) -> tuple[int, str]:
    """Return the step that a parameter's name belongs to, and its plain name."""
    owner, _, param = name.rpartition(".")
    known = [set(domains(registry.find("method", step.name).spec.params)) for step in steps]
    here = [
        index
        for index, step in enumerate(steps)
        if param in known[index] and owner in {"", step.name, str(index + 1)}
    ]  # fmt: skip
    if not here:
        every = sorted(set().union(*known))
        raise PlanError(f"no step of the pipeline has the parameter {name!r}", hint=suggest(param, every, "parameter"))
    if len(here) > 1:
        names = " or ".join(_name(index, steps, param) for index in here)
        raise PlanError(f"several steps have the parameter {param!r}", hint=f"write {names}")
    return here[0], param
