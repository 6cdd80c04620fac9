"""What each input and output of a user's model is: items on some axis, a constant, a state, or a whole.

The item axis is found from the names of free dimensions, from the user's arrays, or said by the user; nothing of the
model is run here.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NoReturn

from harness.api import BadModel, Role, TensorSpec, fixed_batch

Dims = tuple[int | str, ...]  # a size, or the name of a free dimension
Shapes = Mapping[str, tuple[int, ...]]

_BATCH = re.compile(
    r"(n|b|bs|bsz|nb|bn|batch\w*|\w*batch|batch[ _.-]?size.*|num_?(samples|items|examples))", re.IGNORECASE
)
_HINT_AXIS = "say it with --axis NAME=1, or --axis NAME=none where one array serves all items"
PIXELS, STEPS = 224, 64  # sizes of free dimensions without data: of images, and of all else


@dataclass(frozen=True)
class Port:
    """An input or output as its file declares it.

    Attributes:
        dtype: Of numpy, by name.
        dims: ``None`` where the file does not tell.
    """

    dtype: str
    dims: Dims | None


@dataclass(frozen=True)
class Said:
    """What the user says of a model.

    Attributes:
        axes: Input -> its item axis; ``None`` where it has none.
        states: Input -> the output that is fed back into it.
    """

    axes: Mapping[str, int | None] = field(default_factory=dict)
    states: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Interface:
    """A model's inputs and outputs with their roles.

    Attributes:
        inputs: In call order; the only free dimension of each is the batch.
        axes: Output -> its item axis, ``None`` where it belongs to the call.
        sized: Name of a free dimension -> the size that the data give it.
        stacked: Inputs whose arrays have the items on a dimension of their own, in front.
        unsure: Outputs whose item axis the file does not tell.
    """

    inputs: Mapping[str, TensorSpec]
    axes: Mapping[str, int | None]
    sized: Mapping[str, int] = field(default_factory=dict)
    stacked: frozenset[str] = frozenset()
    unsure: frozenset[str] = frozenset()

    @property
    def batch(self) -> int | None:
        """The batch that the model is fixed to; ``None`` where it takes any."""
        return fixed_batch(self.inputs)


def single(known: Interface) -> Interface:
    """Return the interface of a model that takes one item in a call, whatever its file says."""
    shapes = {name: tuple(1 if size is None else size for size in spec.shape) for name, spec in known.inputs.items()}
    inputs = {name: dataclasses.replace(spec, shape=shapes[name]) for name, spec in known.inputs.items()}
    return dataclasses.replace(known, inputs=inputs)


def pairs(text: str, option: str) -> dict[str, str]:
    """Read ``a=b;c=d``; a name may hold anything but a semicolon.

    Raises:
        BadModel: A part has no ``=``.
    """
    found = {}
    for part in filter(None, text.split(";")):
        name, equals, value = part.rpartition("=")
        if not equals or not name:
            raise BadModel(f"{option} takes NAME=VALUE; got {part!r}")
        found[name] = value
    return found


def said(axes: str, states: str) -> Said:
    """Read the options: ``x=1;sr=none`` and ``h=hn``.

    Raises:
        BadModel: An axis is no number.
    """
    read: dict[str, int | None] = {}
    for name, value in pairs(axes, "--axis").items():
        if value.lower() != "none" and not value.isdecimal():
            raise BadModel(f"--axis {name}={value}: an axis is a number from 0, or none")
        read[name] = None if value.lower() == "none" else int(value)
    return Said(read, pairs(states, "--state"))


def resolve(
    where: str,
    inputs: Mapping[str, Port],
    outputs: Mapping[str, Port],
    shapes: Shapes | None = None,
    told: Said = Said(),
    data: str = "",
) -> Interface:
    """Find the role and the item axis of each input and output.

    Args:
        where: The model's file, for messages.
        inputs: As declared, in call order.
        outputs: The same.
        shapes: Of the user's arrays, by input; ``None`` where there are no data.
        told: What the user says.
        data: The file of the arrays, for messages.

    Raises:
        BadModel: What the user says, or the data, do not fit the model; one sentence says how.
    """
    return _Resolver(where, inputs, outputs, shapes, told, data).found()


@dataclass
class _Resolver:
    where: str
    inputs: Mapping[str, Port]
    outputs: Mapping[str, Port]
    shapes: Shapes | None
    told: Said
    data: str

    def found(self) -> Interface:
        self._check_told()
        self.states = {**self._detected_states(), **self.told.states}
        self.symbol = self._batch_symbol()
        kinds = {name: self._kind(name) for name in self.inputs}
        kinds = self._settled(kinds)
        batch = self._batch(kinds)
        sized = self._sized(kinds)
        specs = {name: self._spec(name, kinds[name], sized, batch) for name in self.inputs}
        if not any(spec.role == "item" for spec in specs.values()):
            self._fail("no input of {where} differs from item to item", _HINT_AXIS)
        axes, unsure = self._output_axes(kinds, batch)
        stacked = frozenset(name for name, kind in kinds.items() if kind.stacked)
        return Interface(specs, axes, sized, stacked, unsure)

    def _fail(self, text: str, hint: str = "") -> NoReturn:
        raise BadModel(text.replace("{where}", self.where), hint=hint or None)

    def _check_told(self) -> None:
        known = ", ".join(map(repr, self.inputs))
        for name in [*self.told.axes, *self.told.states]:
            if name not in self.inputs:
                self._fail(f"{{where}} has no input {name!r}", f"its inputs are {known}")
        for name, axis in self.told.axes.items():
            rank = len(self._dims(name))
            if axis is not None and axis >= rank:
                self._fail(f"--axis {name}={axis}: input {name!r} of {{where}} has {rank} dimensions, counted from 0")
            if name in self.told.states:
                self._fail(f"input {name!r} of {{where}} is named by --axis and --state; it is one or the other")
        for name, source in self.told.states.items():
            if source not in self.outputs:
                self._fail(
                    f"--state {name}={source}: {{where}} has no output {source!r}",
                    f"its outputs are {', '.join(map(repr, self.outputs))}",
                )

    def _dims(self, name: str) -> Dims:
        dims = self.inputs[name].dims
        if dims is None:
            self._fail(f"input {name!r} of {{where}} declares no shape")
        return dims

    def _given(self, name: str) -> tuple[int, ...] | None:
        return None if self.shapes is None else self.shapes.get(name)

    def _detected_states(self) -> dict[str, str]:
        """Return inputs that bring no items and have an output of their shape whose name makes it plain."""
        left = {name: port for name, port in self.outputs.items() if name not in self.told.states.values()}
        found: dict[str, str] = {}
        for name, port in self.inputs.items():
            if name in self.told.axes or name in self.told.states or self._has_items(name):
                continue
            source = next((out for out, other in left.items() if _is_next(name, out) and _same_shape(port, other)), "")
            if source:
                found[name] = source
                del left[source]
        rest = [name for name in self.inputs if name not in found and name not in self.told.states and self._dims(name)]
        return found if rest else {}

    def _has_items(self, name: str) -> bool:
        """Tell whether the user's array of an input is more than one first value."""
        given, dims = self._given(name), self._dims(name)
        if given is None:
            return False
        counts = [max(shape, default=1) for other, shape in (self.shapes or {}).items() if other != name]
        if len(given) != len(dims):
            return True
        free = [size for size, dim in zip(given, dims, strict=True) if not isinstance(dim, int)]
        return any(size > 1 and size in counts for size in free)

    def _batch_symbol(self) -> str | None:
        """Return the name of the free dimension that the items lie on."""
        mine = {name: self._dims(name) for name in self.inputs if name not in self.told.axes}
        said = (self._dims(name)[axis] for name, axis in self.told.axes.items() if axis is not None)
        free = [dim for dims in mine.values() for dim in dims if isinstance(dim, str)]
        firsts = [dims[0] for name, dims in mine.items() if dims and name not in self.states]
        out = [port.dims[0] for port in self.outputs.values() if port.dims]
        choices = (
            (dim for dim in said if isinstance(dim, str)),
            (dim for dim in free if _BATCH.fullmatch(dim)),
            (dim for dim in firsts if isinstance(dim, str)),
            (dim for dim in free if dim in out),
        )
        return next((dim for choice in choices for dim in choice), None)

    def _kind(self, name: str) -> _Kind:
        dims, given = self._dims(name), self._given(name)
        if name in self.states:
            return _Kind("state", self._axis_of(dims))
        if name in self.told.axes:
            return self._kind_told(name, dims, given, self.told.axes[name])
        if given is None:
            if self.shapes is not None:
                self._missing(name)
            return _Kind("item", self._guess(dims)) if dims else _Kind("constant", None)
        if not dims and given == (1,):
            return _Kind("constant", None)
        if len(given) == len(dims) + 1:
            if not _fit(dims, given[1:], None):
                self._misfit(name, dims, given, self._guess(dims))
            return _Kind("item", None, stacked=True)
        if not dims and given == ():
            return _Kind("constant", None)
        if len(given) != len(dims):
            self._misfit(name, dims, given, self._guess(dims))
        axis = self._guess(dims)
        self._fits(name, dims, given, axis)
        return _Kind("constant" if axis is None else "item", axis)

    def _kind_told(self, name: str, dims: Dims, given: tuple[int, ...] | None, axis: int | None) -> _Kind:
        stacked = given is not None and len(given) == len(dims) + 1
        if given is None and self.shapes is not None:
            self._missing(name)
        if stacked and axis is not None:
            text = (
                f"--axis {name}={axis}, but its array has {len(given or ())} dimensions where the input has {len(dims)}"
            )
            self._fail(text, "items on an axis of the input need an array of its rank")
        if given is not None:
            self._fits(name, dims, given[1:] if stacked else given, axis)
        return _Kind("item" if stacked or axis is not None else "constant", axis, stacked=stacked)

    def _missing(self, name: str) -> NoReturn:
        told = ", ".join(map(repr, self.inputs))
        found = ", ".join(map(repr, sorted(self.shapes or {}))) or "nothing"
        self._fail(
            f"data file {self.data} has no array {name!r}; it holds {found}",
            f"the model's inputs are {told}; labels are 'y', calibration items 'calib_<input>'; "
            "an input that an output is fed back into is named by --state NAME=OUTPUT",
        )

    def _axis_of(self, dims: Dims) -> int | None:
        """Return the batch axis of a state."""
        if self.symbol in dims:
            return dims.index(self.symbol)
        return next((at for at, dim in enumerate(dims) if isinstance(dim, str)), None)

    def _guess(self, dims: Dims) -> int | None:
        """Return the axis that items lie on by what the file tells."""
        if self.symbol is not None and self.symbol in dims:
            return dims.index(self.symbol)
        if not dims:
            return None
        if isinstance(dims[0], str) or dims[0] == 1:
            return 0
        free = [at for at, dim in enumerate(dims) if isinstance(dim, str)]
        if free:
            return free[0] if len(free) == 1 and self.symbol is None else None
        kept = {port.dims[0] for port in self.outputs.values() if port.dims}
        return 0 if len(dims) > 1 and dims[0] in kept else None

    def _fits(self, name: str, dims: Dims, given: Sequence[int], axis: int | None) -> None:
        if not _fit(dims, given, axis):
            self._misfit(name, dims, tuple(given), axis)

    def _misfit(self, name: str, dims: Dims, given: tuple[int, ...], axis: int | None) -> NoReturn:
        due = ["n" if at == axis else str(dim) if isinstance(dim, int) else "any" for at, dim in enumerate(dims)]
        due = due if axis is not None else ["n", *due]
        told = ", ".join(due)
        self._fail(f"array {name!r} in {self.data} has shape {list(given)}; the model takes [{told}]", _HINT_AXIS)

    def _settled(self, kinds: Mapping[str, _Kind]) -> dict[str, _Kind]:
        """Make constants of arrays that exactly fill an input without a batch, beside others that hold items."""
        if self.shapes is None:
            return dict(kinds)
        counts = {name: self._count(name, kind) for name, kind in kinds.items() if kind.role == "item"}
        most = max(counts.values(), default=0)
        found = dict(kinds)
        for name, count in counts.items():
            dims = self._dims(name)
            fills = all(dim == size for dim, size in zip(dims, self.shapes[name], strict=False))
            dim = dims[kinds[name].axis or 0] if dims else 0
            named = isinstance(dim, str) and not dim.startswith(UNNAMED)
            plain = fills or (named and dim != self.symbol)
            if count != most and plain and name not in self.told.axes and not kinds[name].stacked:
                found[name] = _Kind("constant", None)
        return found

    def _count(self, name: str, kind: _Kind) -> int:
        shape = (self.shapes or {})[name]
        return shape[0] if kind.stacked else shape[kind.axis or 0]

    def _batch(self, kinds: Mapping[str, _Kind]) -> int | None:
        """Return the batch that the file is fixed to; ``None`` for any."""
        items = [(self._dims(name), kind.axis) for name, kind in kinds.items() if kind.role == "item"]
        if any(axis is None for _dims, axis in items):
            return 1
        fixed = {dims[axis]: 0 for dims, axis in items if axis is not None and isinstance(dims[axis], int)}
        if len(fixed) > 1:
            self._fail(f"the inputs of {{where}} are fixed to different batches, {sorted(map(int, fixed))}", _HINT_AXIS)
        return int(next(iter(fixed))) if fixed else None

    def _sized(self, kinds: Mapping[str, _Kind]) -> dict[str, int]:
        """Return the sizes that the data give to free dimensions beside the batch."""
        sized: dict[str, int] = {}
        for name, kind in kinds.items():
            given, dims = self._given(name), self._dims(name)
            own = given[1:] if given is not None and kind.stacked else given
            for at, dim in enumerate(dims):
                if isinstance(dim, str) and at != kind.axis:
                    size = own[at] if own is not None and len(own) == len(dims) else _guessed(kind, dims)
                    if given is not None or dim not in sized:
                        sized[dim] = size
        return sized

    def _spec(self, name: str, kind: _Kind, sized: Mapping[str, int], batch: int | None) -> TensorSpec:
        shape: list[int | None] = []
        for at, dim in enumerate(self._dims(name)):
            if isinstance(dim, int):
                shape.append(dim)
            else:
                shape.append(batch if at == kind.axis else sized.get(dim, 1))
        return TensorSpec(self.inputs[name].dtype, tuple(shape), kind.role, kind.axis, self.states.get(name, ""))

    def _output_axes(
        self, kinds: Mapping[str, _Kind], batch: int | None
    ) -> tuple[dict[str, int | None], frozenset[str]]:
        symbols = {
            self._dims(name)[kind.axis]
            for name, kind in kinds.items()
            if kind.role == "item" and kind.axis is not None and isinstance(self._dims(name)[kind.axis], str)
        }
        singles = any(kind.role == "item" and kind.axis is None for kind in kinds.values())
        axes: dict[str, int | None] = {}
        unsure = set()
        for name, port in self.outputs.items():
            axes[name], sure = (None, True) if singles else _axis_in(port.dims, symbols, batch)
            if not sure:
                unsure.add(name)
        return axes, frozenset(unsure)


def _fit(dims: Dims, given: Sequence[int], axis: int | None) -> bool:
    pairs = enumerate(zip(dims, given, strict=True))
    return all(isinstance(dim, str) or at == axis or dim == size for at, (dim, size) in pairs)


UNNAMED = "\0"  # starts the names that we give to free dimensions without one


@dataclass(frozen=True)
class _Kind:
    role: Role
    axis: int | None
    stacked: bool = False


def _guessed(kind: _Kind, dims: Dims) -> int:
    """Return the size of a free dimension that no data tell."""
    if kind.role == "state":
        return 1
    return PIXELS if len(dims) > 3 else STEPS


def _axis_in(dims: Dims | None, symbols: Iterable[int | str], batch: int | None) -> tuple[int | None, bool]:
    """Return the item axis of an output and whether the file tells it."""
    if dims is None:
        return 0, False
    known = set(symbols)
    found = [at for at, dim in enumerate(dims) if dim in known]
    if found:
        return found[0], True
    if batch is not None:
        same = [at for at, dim in enumerate(dims) if dim == batch]
        return (same[0] if same and (same[0] == 0 or len(same) == 1) else None), True
    open_ones = [dim for dim in dims if isinstance(dim, str)]
    return (0 if dims and isinstance(dims[0], str) else None), not open_ones


def _same_shape(one: Port, other: Port) -> bool:
    if one.dtype != other.dtype or one.dims is None:
        return False
    if other.dims is None:
        return True
    if len(one.dims) != len(other.dims):
        return False
    return all(mine == theirs or isinstance(theirs, str) for mine, theirs in zip(one.dims, other.dims, strict=True))


_AFTER = (
    "n",
    "_n",
    "out",
    "_out",
    "new",
    "_new",
    "next",
    "_next",
    "o",
    "_o",
    "1",
    "_1",
    "t",
    "_t",
    "'",
    ".1",
    "_output",
)
_BEFORE = ("new_", "next_", "new", "next", "updated_", "out_", "output_")
_TURNS = (
    ("past", "present"), ("in", "out"), ("input", "output"), ("prev", "next"), ("prev", "new"), ("prev", ""),
    ("last", "new"), ("last", "next"), ("old", "new"), ("cur", "next"), ("current", "next"), ("0", "n"), ("0", "1"),
    ("init", "final"), ("initial", "final"), ("tm1", "t"),
)  # fmt: skip


def _is_next(name: str, output: str) -> bool:
    """Tell whether an output's name says that it is the next value of an input's: h -> hn, past_0 -> present_0."""
    mine, other = name.lower(), output.lower()
    if other in {mine + after for after in _AFTER} or other in {before + mine for before in _BEFORE}:
        return len(mine) > 1 or other[len(mine) :] in {"n", "_n", "_out", "_new", "_next", "out", "1", "t", "'"}
    parts, others = (re.split(r"(?<=[a-z])(?=\d)|[^a-z0-9]+", text) for text in (mine, other))
    if len(mine) == len(other) and mine[:-1] == other[:-1] and (mine[-1], other[-1]) == ("0", "n"):
        return True
    for before, after in _TURNS:
        for at, part in enumerate(parts):
            turned = [*parts[:at], *([after] if after else []), *parts[at + 1 :]]
            if part == before and len([item for item in parts if item]) > 1 and turned == others:
                return True
            if part == before + "s" and [*parts[:at], after + "s", *parts[at + 1 :]] == others and len(parts) > 1:
                return True
            cached = parts[at : at + 3] == ["past", "key", "values"]  # past_key_values.0.key -> present.0.key
            if cached and [*parts[:at], "present", *parts[at + 3 :]] == others:
                return True
    return False
