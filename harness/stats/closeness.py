"""How far a cell's outputs are from the reference outputs: by output, by item and by slice of each axis."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.shards import Ragged
from harness.stats.fidelity import SQNR_CAP_DB, alike, cosines, decibel
from harness.types import Closeness, Slice

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

BLOCK_ELEMENTS = 1 << 21  # read at once: 16 MiB of float64
HUGE = 1e30  # beyond it a float stands for infinity, as the masks of attention do; squares stay far below overflow
DEAD_DB = 3.0  # half of a slice's power is noise
APART_DB = 10.0  # a slice died where its output as a whole is so much better: else all of it was changed
CARRIED = 1e-4  # of the output's root mean square: a slice below it carries no signal
VARIES = 1e-5  # of the output's largest value: a slice whose range is smaller is constant in the reference
CHOICE = 0.05  # both along the classes: one that is hardly ever chosen may round to nothing
CONSTANT = 1e-6  # of the reference's range: a slice whose range is smaller is constant in the cell
FAINT = 1e-4  # of the mean item's power: errors of a fainter item are told against this
NAMED = 8  # lost slices that a record names


def closeness(
    ours: Array | Ragged,
    reference: Array | Ragged,
    *,
    due_db: float | None = None,
    classes: int | None = None,
    retrained: bool = True,
) -> Closeness:
    """Compare one output with the reference.

    NaN, and infinity of the same sign, at the same place are equal, and stay out of the sums; at different places
    they are an error without bound. SQNR is 10 log10(sum x² / sum (x - x̂)²) dB over all items, ±300 at most.

    Args:
        ours: Array [n, …]; memory-mapped ones are read in blocks. An item that has another shape than the reference's
            is wholly wrong; of items that differ in shape there are no slices.
        reference: The same by the oracle.
        due_db: What an item has to reach, where it has to: the first one below it is told.
        classes: Axis along which the largest value is the declared choice; ``None`` where none is declared.
        retrained: A method may have taught the model other answers: a slice then counts as lost only where its output
            as a whole is so much better. Else every slice below 3 dB does.
    """
    if isinstance(ours, Ragged) or isinstance(reference, Ragged):
        if len(ours) != len(reference):
            what = f"{len(ours)} items where the reference has {len(reference)}"
            return Closeness(-SQNR_CAP_DB, -SQNR_CAP_DB, 0, first_item=0, equal=0.0, differs=what)
        return _by_item(ours, reference).result(due_db)
    if not reference.size and ours.shape == reference.shape:
        return Closeness(SQNR_CAP_DB, SQNR_CAP_DB, 0, equal=1.0)
    if ours.shape != reference.shape:
        what = f"shape {list(ours.shape)} where the reference has {list(reference.shape)}"
        return Closeness(-SQNR_CAP_DB, -SQNR_CAP_DB, 0, first_item=0, equal=0.0, differs=what)
    if _numeric(ours) and _numeric(reference):
        return _Comparison.of(ours, reference, classes, retrained).result(due_db)
    same = np.asarray(ours == reference).reshape(len(reference), -1).mean(axis=1)
    return _by_equality(same)


def _by_item(ours: Array | Ragged, reference: Array | Ragged) -> _Comparison:
    """Compare items that differ in shape: rows of one length, filled up with zeros on both sides."""
    rows = [alike(*pair) for pair in zip(ours, reference, strict=True)]
    width = max(1, *(mine.shape[1] for mine, _theirs in rows))
    filled = [[np.pad(side, ((0, 0), (0, width - side.shape[1]))) for side in row] for row in rows]
    found = _Comparison((len(rows), width), None, not np.issubdtype(reference.dtype, np.floating), {})
    for mine, theirs in filled:
        found.add(_finite(mine), _finite(theirs))
    return found


def _numeric(array: Array) -> bool:
    return bool(np.issubdtype(array.dtype, np.number)) or array.dtype == np.bool_


def _by_equality(same: Array) -> Closeness:
    """Return the closeness of texts from each item's share of equal ones."""
    decibels = np.where(same == 1, SQNR_CAP_DB, -SQNR_CAP_DB)
    worst = int(same.argmin())
    first = int((same < 1).argmax()) if same[worst] < 1 else None
    return Closeness(float(decibels.min()), float(decibels[worst]), worst, first, equal=float(same.mean()))


def _blocks(shape: tuple[int, ...]) -> Iterator[slice]:
    step = max(1, BLOCK_ELEMENTS // max(1, math.prod(shape[1:])))
    return (slice(start, start + step) for start in range(0, shape[0], step))


def _finite(array: Array) -> Array:
    """Return float64 with what stands for infinity as infinity."""
    values = np.asarray(array, dtype=np.float64)
    return np.where(np.abs(values) > HUGE, np.copysign(np.inf, values), values)


@dataclass
class _Axis:
    """Sums over all but one axis.

    Attributes:
        low, high: Least and largest value of each slice: of the reference, and of ours.
    """

    signal: Array
    noise: Array
    low: Array
    high: Array

    @classmethod
    def of(cls, size: int) -> _Axis:
        return cls(np.zeros(size), np.zeros(size), np.full((2, size), np.inf), np.full((2, size), -np.inf))

    def add(self, axis: int, block: _Block) -> None:
        """Add a block whose items were summed up already: its arrays have the axes from 1 on."""
        others = tuple(place for place in range(block.signal.ndim) if place != axis - 1)
        self.signal += block.signal.sum(axis=others)
        self.noise += block.noise.sum(axis=others)
        for which in (0, 1):
            self.low[which] = np.minimum(self.low[which], block.low[which].min(axis=others))
            self.high[which] = np.maximum(self.high[which], block.high[which].max(axis=others))


@dataclass(frozen=True)
class _Block:
    """Sums and bounds over the items of a block, for each element of an item."""

    signal: Array
    noise: Array
    low: tuple[Array, Array]
    high: tuple[Array, Array]

    @classmethod
    def of(cls, mine: Array, theirs: Array, error: Array) -> _Block:
        numbers, shape = _numbers(theirs), theirs.shape[1:]
        (low, high), (our_low, our_high) = _bounds(theirs), _bounds(mine)
        return cls(_powers(numbers).reshape(shape), _powers(error).reshape(shape), (low, our_low), (high, our_high))


def _bounds(array: Array) -> tuple[Array, Array]:
    """Return the least and the largest number over items."""
    known = np.isfinite(array)
    if known.all():
        return array.min(axis=0), array.max(axis=0)
    return np.where(known, array, np.inf).min(axis=0), np.where(known, array, -np.inf).max(axis=0)


def _numbers(array: Array) -> Array:
    """Return an array with zeros for what is no number or not finite."""
    return np.nan_to_num(array, nan=0.0, posinf=0.0, neginf=0.0)


def _powers(array: Array) -> Array:
    """Return the sum of squares over items: shape [elements of an item]."""
    rows = array.reshape(len(array), -1)
    found: Array = np.einsum("ij,ij->j", rows, rows)
    return found


@dataclass
class _Comparison:
    shape: tuple[int, ...]
    classes: int | None
    exact: bool
    axes: dict[int, _Axis]
    retrained: bool = True
    items: list[Array] = field(default_factory=list)
    cosine: list[Array] = field(default_factory=list)
    chosen: list[Array] = field(default_factory=list)
    equal: int = 0
    total_error: float = 0.0
    largest_error: float = 0.0
    not_numbers: int = 0

    @classmethod
    def of(cls, ours: Array, reference: Array, classes: int | None, retrained: bool) -> _Comparison:
        shape = reference.shape
        axes = {axis: _Axis.of(size) for axis, size in enumerate(shape) if axis and size > 1}
        exact = not np.issubdtype(reference.dtype, np.floating)
        found = cls(shape, classes if classes in axes else None, exact, axes, retrained)
        for block in _blocks(shape):
            found.add(_finite(ours[block]), _finite(reference[block]))
        return found

    def add(self, mine: Array, theirs: Array) -> None:
        """Compare a block of items."""
        rows = len(theirs)
        with np.errstate(invalid="ignore"):
            error = np.abs(mine - theirs)
        same = error == 0
        if not np.isfinite(error).all():
            same |= (mine == theirs) | (np.isnan(mine) & np.isnan(theirs))
            error = np.where(same, 0.0, np.where(np.isfinite(error), error, np.inf))
        clean = tuple(
            np.nan_to_num(array, nan=0.0, posinf=0.0, neginf=0.0).reshape(rows, -1) for array in (mine, theirs)
        )
        flat = error.reshape(rows, -1)
        sums = [np.einsum("ij,ij->i", array, array) for array in (clean[1], flat)]
        self.items.append(np.stack(sums, axis=1))
        self.cosine.append(cosines(*clean))
        self.equal += int(same.sum())
        self.not_numbers += int(np.isnan(theirs).sum())
        self.total_error += float(error.sum())
        self.largest_error = max(self.largest_error, float(error.max(initial=0.0)))
        if self.classes is not None:
            first = (np.where(np.isnan(array), -np.inf, array).argmax(axis=self.classes) for array in (mine, theirs))
            self.chosen.append((next(first) == next(first)).reshape(rows, -1).mean(axis=1))
        if self.axes:
            block = _Block.of(mine, theirs, error)
            for axis, found in self.axes.items():
                found.add(axis, block)

    def result(self, due_db: float | None) -> Closeness:
        """Return what the blocks came to."""
        items = np.concatenate(self.items)
        count, faintest = math.prod(self.shape), FAINT * float(items[:, 0].mean())
        decibels = _decibels(np.maximum(items[:, 0], faintest), items[:, 1])
        whole, worst = decibel(*(float(total) for total in items.sum(axis=0))), int(decibels.argmin())
        slices, lost = self._slices(whole, items)
        below = decibels < (-math.inf if due_db is None else due_db)
        return Closeness(
            sqnr_db=whole,
            worst_item_db=float(decibels[worst]),
            worst_item=worst,
            first_item=int(below.argmax()) if below.any() else None,
            max_abs_error=_known(self.largest_error),
            mean_abs_error=_known(self.total_error / count),
            cosine=float(np.concatenate(self.cosine).mean()),
            equal=self.equal / count if self.exact else None,
            agreement=float(np.concatenate(self.chosen).mean()) if self.chosen else None,
            slices=slices,
            lost=tuple(sorted(lost, key=lambda item: item.sqnr_db)[:NAMED]),
            lost_count=len(lost) or int(not self.retrained and not self.exact and whole < DEAD_DB),
            not_numbers=self.not_numbers / count,
        )

    def _slices(self, whole: float, items: Array) -> tuple[tuple[Slice, ...], list[Slice]]:
        """Return the worst slice of each axis, and the slices that died."""
        worst: list[Slice] = []
        lost: list[Slice] = []
        for axis in self.axes:
            index, decibels, dead = self._along(axis, whole, items)
            found = [
                Slice(axis, int(at), float(db), lost=True) for at, db in zip(index[dead], decibels[dead], strict=True)
            ]
            lost += found
            if len(index):
                at = int(decibels.argmin())
                worst.append(Slice(axis, int(index[at]), float(decibels[at]), lost=bool(dead[at])))
        return tuple(worst), lost

    def _along(self, axis: int, whole: float, items: Array) -> tuple[Array, Array, Array]:
        """Return of the slices that carry signal: index, SQNR and whether each died."""
        sums, each = self.axes[axis], math.prod(self.shape) / self.shape[axis]
        carried, varies = (CHOICE, CHOICE) if axis == self.classes else (CARRIED, VARIES)
        with np.errstate(invalid="ignore"):
            ranges = np.where(sums.high >= sums.low, sums.high - sums.low, 0.0)
        bounds = np.concatenate([sums.low[0], sums.high[0]])
        largest = float(np.abs(bounds[np.isfinite(bounds)]).max(initial=0.0))
        constant = (ranges[0] > varies * largest) & (ranges[1] <= CONSTANT * ranges[0])
        least = carried * math.sqrt(float(items[:, 0].sum()) / math.prod(self.shape))
        heard = np.sqrt(sums.signal / each) >= max(least, np.finfo(float).tiny)
        index = np.flatnonzero(constant | heard)
        decibels = _decibels(sums.signal[index], sums.noise[index])
        dead = heard[index] & (decibels < DEAD_DB) & (not self.retrained or whole >= DEAD_DB + APART_DB)
        return index, decibels, constant[index] | dead


def _decibels(signal: Array, noise: Array) -> Array:
    """Return ``decibel`` of each pair."""
    with np.errstate(divide="ignore", invalid="ignore"):
        found: Array = np.minimum(10 * np.log10(signal / noise), SQNR_CAP_DB)
    found = np.where(np.isfinite(noise) & (signal > 0), found, -SQNR_CAP_DB)
    return np.where(noise == 0, SQNR_CAP_DB, found)


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
