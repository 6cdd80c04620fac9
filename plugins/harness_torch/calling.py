"""How a user's module is called: inputs bound by name, and outputs of any shape made a tensor or a tuple of tensors."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from keyword import iskeyword
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

Path = tuple[tuple[str, Any], ...]  # such as (("key", "logits"),): how a tensor is reached in what a module returns


@dataclass(frozen=True)
class Call:
    """A way to call a module and to read its answer.

    Attributes:
        style: "args" gives each input as an argument; "dict" and "list" give all of them as one.
        names: Of the inputs, in call order.
        positional: Index of the input that is given as each positional argument.
        keywords: (parameter, index of the input) of each that is given by name.
        paths: Where the outputs lie in what the module returns, in order; empty where it is a tensor or a tuple.
    """

    style: str
    names: tuple[str, ...]
    positional: tuple[int, ...] = ()
    keywords: tuple[tuple[str, int], ...] = ()
    paths: tuple[Path, ...] = ()

    @property
    def plain(self) -> bool:
        """Whether the module can be called as it is."""
        in_order = self.positional == tuple(range(len(self.names)))
        return self.style == "args" and in_order and not self.keywords and not self.paths

    def given(self, inputs: Sequence[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments for these inputs."""
        if self.style == "dict":
            return (dict(zip(self.names, inputs, strict=True)),), {}
        if self.style == "list":
            return (list(inputs),), {}
        return tuple(inputs[index] for index in self.positional), {name: inputs[i] for name, i in self.keywords}

    def read(self, result: Any) -> Any:
        """Return the outputs: one as it is, several as a tuple."""
        if not self.paths:
            return result
        found = tuple(_follow(result, path) for path in self.paths)
        return found[0] if len(found) == 1 else found


def _follow(value: Any, path: Path) -> Any:
    for kind, step in path:
        value = getattr(value, step) if kind == "attribute" else value[step]
    return value


def leaves(result: Any) -> list[tuple[str, Path]]:
    """Return the name and the place of each tensor in what a module returned; what is no tensor is left out.

    A name is the key or the field; "output0", "output1" … in a tuple or list; nested ones are joined by "_". A lone
    tensor has the empty name.
    """
    return [("_".join(names), path) for names, path in _leaves(result, (), ())]


def _leaves(value: Any, names: tuple[str, ...], path: Path) -> Iterator[tuple[tuple[str, ...], Path]]:
    import torch

    if isinstance(value, torch.Tensor):
        yield names, path
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _leaves(item, (*names, str(key)), (*path, ("key", key)))
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from _leaves(getattr(value, field.name), (*names, field.name), (*path, ("attribute", field.name)))
    elif isinstance(value, (tuple, list)):
        fields = getattr(value, "_fields", None)
        for index, item in enumerate(value):
            name = fields[index] if fields else str(index) if names else f"output{index}"
            yield from _leaves(item, (*names, name), (*path, ("index", index)))


def ways(module: nn.Module, names: Sequence[str]) -> list[Call]:
    """Return the ways in which a module may be meant to be called with inputs of these names, the likeliest first.

    Names that are the forward's own bind, in whatever order they stand; else the inputs are given by position. A
    forward of one parameter may also take all inputs as one dict or list.

    Raises:
        ValueError: The forward's signature takes no such inputs; the message says which are missing or too many.
    """
    names = tuple(names)
    by_position = Call("args", names, positional=tuple(range(len(names))))
    try:
        parameters = list(inspect.signature(module.forward).parameters.values())
    except (TypeError, ValueError):
        return [by_position]
    own = [item for item in parameters if item.kind in {item.POSITIONAL_OR_KEYWORD, item.KEYWORD_ONLY}]
    places = [item for item in parameters if item.kind in {item.POSITIONAL_ONLY, item.POSITIONAL_OR_KEYWORD}]
    any_name = any(item.kind is item.VAR_KEYWORD for item in parameters)
    any_number = any(item.kind is item.VAR_POSITIONAL for item in parameters)
    known = {item.name for item in own}
    needed = [item.name for item in own if item.default is item.empty]
    whole = [Call("dict", names), Call("list", names)] if len(places) == 1 else []
    if all(name in known or any_name for name in names) and (known & set(names) or not places):
        missing = [name for name in needed if name not in names]
        if missing:
            raise ValueError(f"forward needs {missing[0]!r}, for which there is no input")
        in_order = [item.name for item in places][: len(names)] == list(names)
        by_name = Call("args", names, keywords=tuple((name, index) for index, name in enumerate(names)))
        return [by_position if in_order else by_name, *whole]
    clash = [name for i, name in enumerate(names) if name in known and (i >= len(places) or places[i].name != name)]
    if clash and not any_number:
        strange = next(name for name in names if name not in known)
        told = ", ".join(item.name for item in own)
        raise ValueError(f"forward has no parameter {strange!r}; it takes {told}")
    enough = len(names) <= len(places) or any_number
    required = [item for item in places if item.default is item.empty]
    if enough and len(required) <= len(names) and not _keyword_only(own):
        return [by_position, *whole]
    if whole:
        return whole
    told = ", ".join(item.name for item in own) or "nothing"
    raise ValueError(f"forward takes {told}; the inputs are {', '.join(names)}")


def _keyword_only(own: Sequence[inspect.Parameter]) -> bool:
    return any(item.kind is item.KEYWORD_ONLY and item.default is item.empty for item in own)


class Bound:
    """Mixed into a module's class: forward takes the inputs by position and returns a tensor or a tuple.

    So the layers keep their names, and the module stays one of its own class.
    """

    harness_call: Call

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Travel as the user's own class and the names; the mixed class is made anew."""
        kind = type(self)
        return _empty, (kind.__mro__[2], self.harness_call.names), self.__getstate__()

    def answer(self, *inputs: Any) -> Any:
        """Call the module as it wants to be called."""
        given, named = self.harness_call.given(inputs)
        return self.harness_call.read(super().forward(*given, **named))  # type: ignore[misc]


def _empty(kind: Any, names: tuple[str, ...]) -> Any:
    mixed: Any = _mixed(kind, names)
    return mixed.__new__(mixed)


@lru_cache(maxsize=64)
def _mixed(kind: Any, names: tuple[str, ...]) -> type:
    """Return a class whose forward has one parameter for each input: exporters and tracers read its signature."""
    usable = all(name.isidentifier() and not iskeyword(name) and name != "self" for name in names)
    told = ", ".join(names if usable else [f"input{i}" for i in range(len(names))])
    space: dict[str, Any] = {}
    exec(f"def forward(self, {told}):\n    return self.answer({told})", space)  # noqa: S102  the names are identifiers
    return type(kind.__name__, (Bound, kind), {"forward": space["forward"], "__module__": kind.__module__})


def bound(module: nn.Module, call: Call, *, always: bool = False) -> nn.Module:
    """Let a module take its inputs by position and return a tensor or a tuple, in place; ``always`` also where it does.

    Its forward then has a parameter of its own for each input.
    """
    if call.plain and not always:
        return module
    kind: Any = type(module)
    module.__class__ = _mixed(kind, call.names)
    module.harness_call = call
    return module
