"""Parameters of an offer: declared as a frozen dataclass, described, parsed and checked from it."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from harness.errors import PlanError

P = TypeVar("P")
_META = "harness"


@dataclass(frozen=True)
class Range:
    """What values a parameter takes."""

    help: str = ""
    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    lt: float | None = None
    choices: tuple[Any, ...] = ()

    def text(self) -> str:
        """Return the range in words, such as ``0 < x < 1``; empty where any value goes."""
        if self.choices:
            return "one of " + ", ".join(str(choice) for choice in self.choices)
        low = f"{self.gt} < " if self.gt is not None else f"{self.ge} <= " if self.ge is not None else ""
        high = f" < {self.lt}" if self.lt is not None else f" <= {self.le}" if self.le is not None else ""
        return f"{low}x{high}" if low or high else ""

    def holds(self, value: Any) -> bool:
        """Tell whether a value of the right type lies in the range."""
        if self.choices:
            return value in self.choices
        if not isinstance(value, (int, float)):
            return True
        return (
            (self.ge is None or value >= self.ge)
            and (self.gt is None or value > self.gt)
            and (self.le is None or value <= self.le)
            and (self.lt is None or value < self.lt)
        )


def param(
    default: Any,
    help: str = "",  # noqa: A002  the field's own word, as in click and argparse
    *,
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    lt: float | None = None,
    choices: tuple[Any, ...] = (),
) -> Any:
    """Declare a field of a params dataclass: its default, one line of help, and the range it takes.

    The type comes from the annotation: bool, int, float, str, or one of these with ``| None``.
    """
    limits = Range(help=help, ge=ge, gt=gt, le=le, lt=lt, choices=choices)
    return dataclasses.field(default=default, metadata={_META: limits})


@dataclass(frozen=True)
class ParamInfo:
    """One parameter, for listings, docs and error messages."""

    name: str
    type: str
    default: Any
    range: str
    help: str


def _kinds(annotation: Any) -> tuple[type, ...]:
    if typing.get_origin(annotation) in {typing.Union, types.UnionType}:
        return tuple(typing.get_args(annotation))
    if typing.get_origin(annotation) is typing.Literal:
        return (type(typing.get_args(annotation)[0]),)
    return (annotation,)


def _range(field: dataclasses.Field[Any], annotation: Any) -> Range:
    limits: Range = field.metadata.get(_META, Range())
    if typing.get_origin(annotation) is typing.Literal and not limits.choices:
        return dataclasses.replace(limits, choices=typing.get_args(annotation))
    return limits


def _fields(kind: type) -> list[tuple[dataclasses.Field[Any], Any, Range]]:
    hints = typing.get_type_hints(kind)
    return [(item, hints[item.name], _range(item, hints[item.name])) for item in dataclasses.fields(kind)]


def _type_name(annotation: Any) -> str:
    return " | ".join("none" if kind is type(None) else kind.__name__ for kind in _kinds(annotation))


def describe(kind: type) -> tuple[ParamInfo, ...]:
    """List the parameters that a params dataclass declares."""
    return tuple(
        ParamInfo(item.name, _type_name(hint), item.default, limits.text(), limits.help)
        for item, hint, limits in _fields(kind)
    )


@dataclass(frozen=True)
class Domain:
    """What a search may vary about one parameter.

    Attributes:
        kinds: Types that it takes.
        limits: Its declared range.
    """

    default: Any
    kinds: tuple[type, ...]
    limits: Range


def domains(kind: type) -> dict[str, Domain]:
    """Return the types and ranges that a params dataclass declares, by parameter."""
    return {item.name: Domain(item.default, _kinds(hint), limits) for item, hint, limits in _fields(kind)}


def problem(kind: type) -> str | None:
    """Say why ``kind`` is no params dataclass, or return None."""
    if not dataclasses.is_dataclass(kind):
        return f"params {kind!r} is not a dataclass"
    if not kind.__dataclass_params__.frozen:  # type: ignore[attr-defined]  # set by the decorator
        return f"params {kind.__name__} is not frozen"
    allowed = {bool, int, float, str, type(None)}
    for item, hint, _limits in _fields(kind):
        if not set(_kinds(hint)) <= allowed:
            return f"params {kind.__name__}.{item.name} has type {hint}; bool, int, float, str and None are allowed"
        if item.default is dataclasses.MISSING:
            return f"params {kind.__name__}.{item.name} has no default"
    return None


def _parse(text: str, kinds: tuple[type, ...]) -> Any:
    if type(None) in kinds and text.lower() in {"none", "null", ""}:
        return None
    if bool in kinds and text.lower() in {"true", "yes", "on", "false", "no", "off"}:
        return text.lower() in {"true", "yes", "on"}
    for kind in (int, float):
        if kind in kinds:
            try:
                return kind(text)
            except ValueError:
                continue
    if str in kinds:
        return text
    raise ValueError(text)


def _convert(value: Any, kinds: tuple[type, ...]) -> Any:
    if isinstance(value, str):
        return _parse(value, kinds)
    if type(value) in kinds:
        return value
    if type(value) is int and float in kinds:
        return float(value)
    raise ValueError(value)


def build(kind: type[P], given: Mapping[str, Any], *, owner: str) -> P:
    """Check what was given, as text or JSON values, and build the params.

    Args:
        kind: The params dataclass.
        given: Parameter name -> value or its text.
        owner: What the message names, such as "method 'int8'".

    Raises:
        PlanError: An unknown name (the nearest is suggested), a wrong type, or a value out of range.
    """
    known = {item.name: (hint, limits) for item, hint, limits in _fields(kind)}
    values: dict[str, Any] = {}
    for name, value in given.items():
        if name not in known:
            raise PlanError(f"{owner} has no parameter {name!r}", hint=suggest(name, known, "parameter"))
        hint, limits = known[name]
        wanted = f"{_type_name(hint)}{', ' + limits.text() if limits.text() else ''}"
        try:
            values[name] = _convert(value, _kinds(hint))
        except ValueError:
            raise PlanError(f"parameter {name!r} of {owner} takes {wanted}; got {value!r}") from None
        if values[name] is not None and (values[name] != values[name] or not limits.holds(values[name])):
            raise PlanError(f"parameter {name!r} of {owner} takes {wanted}; got {value!r}")
    return kind(**values)


def given(params: Any) -> dict[str, Any]:
    """Return the values of a params instance that differ from the defaults: what a cell's hash holds."""
    return {
        item.name: getattr(params, item.name)
        for item in dataclasses.fields(params)
        if getattr(params, item.name) != item.default
    }


def suggest(name: str, known: typing.Iterable[str], what: str) -> str:
    """Return the hint for an unknown name: the nearest known one, or the list."""
    import difflib  # only on the way to an error message

    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    if near:
        return f"did you mean {near[0]!r}?"
    return f"known: {', '.join(names)}" if names else f"there is no {what}"
