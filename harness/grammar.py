r"""The grammar of steps, pipelines and sweeps, and its inverse.

A step is ``name[:key=value[:key=value …]]``. ``+`` only chains steps into a pipeline. ``,`` only sweeps, inside a
value: ``magnitude-pruning:ratio=0.3,0.5+int8`` is two pipelines. A value that holds ``:``, ``+``, ``,``, ``=``, a quote
or a space is written in double quotes, with ``\"`` and ``\\`` inside: ``file:path="a,b.onnx"``.

A list of items (``--methods``) is separated by spaces or commas. A comma sweeps when the item before it ends in a
``key=value`` and the text after it is not a known name; else it starts a new item: ``baseline,int8`` is two items,
``magnitude-pruning:ratio=0.3,0.5,int8`` is a sweep and ``int8``. Quotes make a value of a name.
"""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING, Any, NoReturn

from harness.errors import PlanError
from harness.types import Step

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

_NAME = re.compile(r"[\w.-]+")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_BARE = re.compile(r'[^:+,="\s]+')
_SEPARATOR = re.compile(r"\s*,\s*|\s+")
_SHAPE = "a step is name[:key=value[:key=value …]]; '+' chains steps, ',' sweeps, quote a value that holds either"


class _Scanner:
    """Walk over one pipeline's text and name the place where it breaks the grammar."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def fail(self, due: str) -> NoReturn:
        found = repr(self.text[self.at]) if self.at < len(self.text) else "the end"
        raise PlanError(f"{due} is due at character {self.at + 1} of {self.text!r}, found {found}", hint=_SHAPE)

    def accept(self, char: str) -> bool:
        if self.text.startswith(char, self.at):
            self.at += len(char)
            return True
        return False

    def name(self, due: str) -> str:
        match = _NAME.match(self.text, self.at)
        if match is None:
            self.fail(due)
        self.at = match.end()
        return match.group()

    def value(self, key: str) -> str:
        quoted = _QUOTED.match(self.text, self.at)
        if quoted is not None:
            self.at = quoted.end()
            return re.sub(r"\\(.)", r"\1", quoted.group(1), flags=re.DOTALL)
        if self.text.startswith('"', self.at):
            raise PlanError(f"the quote at character {self.at + 1} of {self.text!r} is never closed", hint=_SHAPE)
        bare = _BARE.match(self.text, self.at)
        if bare is None:
            self.fail(f"a value for {key!r}")
        self.at = bare.end()
        return bare.group()

    def values(self, key: str) -> tuple[str, ...]:
        found = [self.value(key)]
        while self.accept(","):
            found.append(self.value(key))
        return tuple(found)

    def step(self) -> tuple[str, dict[str, tuple[str, ...]]]:
        name = self.name("a name")
        params: dict[str, tuple[str, ...]] = {}
        while self.accept(":"):
            key = self.name(f"a parameter of {name!r}")
            if not self.accept("="):
                self.fail(f"'=' after parameter {key!r}")
            if key in params:
                raise PlanError(f"parameter {key!r} is given twice in {self.text!r}", hint=f"sweep with {key}=a,b")
            params[key] = self.values(key)
        return name, params

    def pipeline(self) -> list[tuple[str, dict[str, tuple[str, ...]]]]:
        steps = [self.step()]
        while self.accept("+"):
            steps.append(self.step())
        if self.at < len(self.text):
            self.fail("':', '+' or the end")
        return steps


def expand(text: str) -> tuple[tuple[Step, ...], ...]:
    """Parse a pipeline with sweeps into every pipeline that it stands for, in the order written.

    Raises:
        PlanError: The text breaks the grammar; the message names the place.
    """
    raw = _Scanner(text.strip()).pipeline()
    axes = [values for _name, params in raw for values in params.values()]
    found: list[tuple[Step, ...]] = []
    for point in itertools.product(*axes):
        values = iter(point)
        found.append(tuple(Step(name, {key: next(values) for key in params}) for name, params in raw))
    return tuple(found)


def parse_pipeline(text: str) -> tuple[Step, ...]:
    """Parse one pipeline; parameter values stay text.

    Raises:
        PlanError: The text breaks the grammar, or sweeps.
    """
    first, *others = expand(text)
    if others:
        raise PlanError(f"{text!r} sweeps where one value is due", hint='write a value that holds a comma as "a,b"')
    return first


def parse_step(text: str) -> Step:
    """Parse one step; parameter values stay text.

    Raises:
        PlanError: The text breaks the grammar, sweeps, or chains.
    """
    first, *others = parse_pipeline(text)
    if others:
        raise PlanError(f"{text!r} chains steps where one is due", hint='write a value that holds a plus as "a+b"')
    return first


def expand_steps(text: str) -> tuple[Step, ...]:
    """Parse one step with sweeps, such as a workload or a target, into every step that it stands for.

    Raises:
        PlanError: The text breaks the grammar, or chains.
    """
    pipelines = expand(text)
    if len(pipelines[0]) > 1:
        raise PlanError(f"{text!r} chains steps; only methods chain", hint="give them as two items")
    return tuple(pipeline[0] for pipeline in pipelines)


def _format_value(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return str(value).lower()
    text = value if isinstance(value, str) else repr(value)
    if _BARE.fullmatch(text):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def format_step(step: Step) -> str:
    """Write a step in its canonical form: parameters sorted, quotes only where they are due."""
    return ":".join([step.name, *(f"{key}={_format_value(step.params[key])}" for key in sorted(step.params))])


def format_pipeline(steps: Sequence[Step]) -> str:
    """Write a pipeline in its canonical form; ``parse_pipeline`` undoes it."""
    return "+".join(format_step(step) for step in steps)


def _masked(text: str) -> str:
    """Return text of the same length in which quoted parts hold no separator."""
    return _QUOTED.sub(lambda match: '"' * len(match.group()), text)


def split_list(text: str, known: Collection[str] | Mapping[str, Any] = ()) -> tuple[str, ...]:
    """Split a list of items at spaces and at commas that do not sweep (the rule is in the module's text).

    Args:
        text: What was given to one option.
        known: Names that start a new item even where a value could stand.

    Raises:
        PlanError: An item is empty, or a comma stands where ``:`` is meant.
    """
    text = text.strip()
    masked = _masked(text)
    items: list[str] = []
    start, comma = 0, False
    for match in [*_SEPARATOR.finditer(masked), None]:
        end = match.start() if match else len(text)
        segment, shadow = text[start:end], masked[start:end]
        if not segment:
            raise PlanError(
                f"an item is due at character {start + 1} of {text!r}", hint="separate items by one comma or spaces"
            )
        if comma and _sweeps(items[-1], shadow, segment, known):
            items[-1] += f",{segment}"
        else:
            items.append(segment)
        if match:
            start, comma = match.end(), "," in match.group()
    return tuple(items)


def _sweeps(before: str, shadow: str, segment: str, known: Collection[str] | Mapping[str, Any]) -> bool:
    if "=" not in re.split(r"[:+]", _masked(before))[-1]:
        return False
    head = segment[: len(re.split(r"[:+]", shadow)[0])]
    if "=" in _masked(head):
        raise PlanError(f"',' sweeps values, so {segment!r} cannot follow {before!r}", hint=f"write {before}:{segment}")
    return head not in known


__all__ = [
    "expand",
    "expand_steps",
    "format_pipeline",
    "format_step",
    "parse_pipeline",
    "parse_step",
    "split_list",
]
