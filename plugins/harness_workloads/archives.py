"""A user's arrays in an .npz file: checked against the model's inputs, and divided into splits."""

from __future__ import annotations

import dataclasses
import hashlib
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib import format as npy

from harness.api import BadModel, Split, SplitName, TensorSpec, Unsupported

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

LABELS, CALIBRATION = "y", "calib_"
LEAST = 8  # items, so that no split is empty
# share of the items and most items of each split; the rest is the test split
SHARES: Mapping[SplitName, tuple[float, int]] = {
    "calibration": (0.2, 512),
    "selection": (0.1, 2000),
    "train": (0.5, 1_000_000),
}


@dataclass(frozen=True)
class Arrays:
    """What was read.

    Attributes:
        inputs: By input name: items first, shape [n, …]; constants and first states as they are fed.
        labels: Class of each item, or values for a regression.
        calibration: Items for calibration alone, where they were given apart.
        kept: Inputs that are constants or states.
    """

    inputs: Mapping[str, Array]
    labels: Array | None = None
    calibration: Mapping[str, Array] | None = None
    kept: frozenset[str] = frozenset()

    @property
    def items(self) -> int:
        """Number of items."""
        return len(next(iter(self.by_item(self.inputs).values())))

    def by_item(self, arrays: Mapping[str, Array]) -> dict[str, Array]:
        """Return those of some arrays that hold items."""
        return {name: array for name, array in arrays.items() if name not in self.kept}


def names(path: Path) -> frozenset[str]:
    """Return the names of the arrays in an .npz file without reading them.

    Raises:
        BadModel: It is no such file.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return frozenset(name.removesuffix(".npy") for name in archive.namelist())
    except OSError as error:
        raise BadModel(f"data file {path} cannot be read: {error.strerror or error}") from error
    except zipfile.BadZipFile as error:
        hint = "write it with numpy.savez(path, input=array)"
        raise BadModel(f"data file {path} is no .npz archive", hint=hint) from error


def shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the arrays in an .npz file without reading them.

    Raises:
        BadModel: It is no such file.
    """
    names(path)
    found: dict[str, tuple[int, ...]] = {}
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            with archive.open(name) as stream:
                try:
                    major, _minor = npy.read_magic(stream)
                    header = npy.read_array_header_1_0 if major == 1 else npy.read_array_header_2_0
                    shape, _order, dtype = header(stream)
                except ValueError as error:
                    raise BadModel(f"data file {path} cannot be read: {name} is no array ({error})") from error
            if dtype.hasobject:
                raise _pickled(path)
            found[name.removesuffix(".npy")] = shape
    return found


def label_name(inputs: Mapping[str, Any]) -> str:
    """Return the name of the array of labels: another one where an input has it."""
    return LABELS if LABELS not in inputs else "labels"


def read(
    path: Path,
    inputs: Mapping[str, TensorSpec],
    *,
    stacked: frozenset[str] = frozenset(),
    as_labels: Callable[[Array, str], Array] | None = None,
) -> Arrays:
    """Read an .npz file and check it against the model's inputs.

    Args:
        path: Of the file.
        inputs: With their roles; states that the file has no array for start at zero.
        stacked: Inputs whose arrays have the items on a dimension of their own, in front.
        as_labels: Array and where it stands -> labels; class indices [n] where not given.

    Raises:
        BadModel: A name, shape, dtype or count that does not fit, or pickled objects; one sentence says which.
    """
    held, label = names(path), label_name(inputs)
    labelled = label in held and label not in inputs
    due = [name for name, spec in inputs.items() if spec.role != "state" or name in held]
    moving = [name for name, spec in inputs.items() if spec.role == "item"]
    apart = {name: f"{CALIBRATION}{name}" for name in moving}
    calibrated = any(key in held and key not in inputs for key in apart.values())
    expected = [*due, *([label] if labelled else []), *(apart.values() if calibrated else ())]
    _same_names(path, held, expected, inputs)
    loaded = _load(path, expected)

    def fits(key: str, name: str) -> Array:
        return _fits(path, key, loaded[key], inputs[name], stacked=name in stacked)

    values = {name: fits(name, name) if name in loaded else _zeros(spec) for name, spec in inputs.items()}
    _same_counts(path, {name: values[name] for name in moving})
    kept = {name: values[name] for name in inputs if name not in moving}
    calibration = None
    if calibrated:
        found = {name: fits(apart[name], name) for name in moving}
        _same_counts(path, found)
        calibration = {name: found.get(name, values[name]) for name in inputs}
    arrays = Arrays(values, None, calibration, frozenset(kept))
    if not labelled:
        return arrays
    count = len(loaded[label]) if loaded[label].ndim else 1
    if count != arrays.items:
        raise BadModel(f"data file {path} holds {arrays.items} items but {count} labels in {label!r}")
    return dataclasses.replace(arrays, labels=(as_labels or class_labels)(loaded[label], f"{label!r} in {path}"))


def _zeros(spec: TensorSpec) -> Array:
    return np.zeros([1 if size is None else size for size in spec.shape], spec.dtype)


def _same_names(path: Path, held: frozenset[str], expected: list[str], inputs: Mapping[str, TensorSpec]) -> None:
    told = ", ".join(map(repr, inputs))
    hint = f"the model's inputs are {told}; labels are {label_name(inputs)!r}, calibration items 'calib_<input>'"
    missing = [name for name in expected if name not in held]
    if missing:
        found = ", ".join(map(repr, sorted(held))) or "nothing"
        raise BadModel(f"data file {path} has no array {missing[0]!r}; it holds {found}", hint=hint)
    unknown = sorted(held - set(expected))
    if unknown:
        raise BadModel(f"data file {path} holds an array {unknown[0]!r} that the model has no input for", hint=hint)


def _pickled(path: Path) -> BadModel:
    told = f"data file {path} holds pickled objects, which are refused: they can run any code when read"
    return BadModel(told, hint="save plain numeric arrays")


def _load(path: Path, wanted: list[str]) -> dict[str, Array]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in wanted}
    except ValueError as error:
        if "allow_pickle" in str(error):
            raise _pickled(path) from error
        raise BadModel(f"data file {path} cannot be read: {error}") from error


def _fits(path: Path, name: str, value: Array, spec: TensorSpec, *, stacked: bool) -> Array:
    """Return an array as it is stored: items first, constants and states as they are fed."""
    if spec.role != "item":
        value = value.reshape(()) if not spec.shape and value.shape == (1,) else value
        due: tuple[int | None, ...] = tuple(None if at == spec.axis else size for at, size in enumerate(spec.shape))
    elif spec.axis is None or stacked:
        due = (None, *spec.shape)
    else:
        due = tuple(None if at == spec.axis else size for at, size in enumerate(spec.shape))
    if value.ndim != len(due) or any(size not in {None, got} for size, got in zip(due, value.shape, strict=True)):
        free = 0 if stacked or spec.axis is None else spec.axis
        told = ", ".join("n" if at == free else "any" if size is None else str(size) for at, size in enumerate(due))
        raise BadModel(f"array {name!r} in {path} has shape {list(value.shape)}; the model takes [{told}]")
    value = _in_dtype(path, name, value, spec.dtype)
    if value.dtype.kind == "f" and not np.isfinite(value).all():
        raise BadModel(f"array {name!r} in {path} holds values that are not finite")
    if spec.role == "item" and spec.axis and not stacked:
        value = np.moveaxis(value, spec.axis, 0)
    return np.asarray(value, order="C")


def _in_dtype(path: Path, name: str, value: Array, wanted: str) -> Array:
    """Return an array in the dtype that the model takes: integers, and single numbers, where none of them changes."""
    if str(value.dtype) == wanted:
        return value
    other = value.astype(wanted) if value.dtype.kind in "biuf" else value
    both = value.dtype.kind in "iu" and np.dtype(wanted).kind in "iu"
    if other is not value and (both or value.ndim == 0) and np.array_equal(other, value):
        return other
    raise BadModel(
        f"array {name!r} in {path} has dtype {value.dtype}; the model takes {wanted}",
        hint=f"save array.astype('{wanted}')",
    )


def _same_counts(path: Path, values: Mapping[str, Array]) -> None:
    counts = {name: len(value) for name, value in values.items()}
    if len(set(counts.values())) > 1:
        told = ", ".join(f"{name!r} {count}" for name, count in counts.items())
        hint = "of an input that one array serves for all items, say --axis NAME=none"
        raise BadModel(f"the inputs in {path} have different numbers of items: {told}", hint=hint)


def class_labels(labels: Array, where: str) -> Array:
    """Return class indices as int64 [n].

    Raises:
        BadModel: They are no class indices.
    """
    flat = labels.reshape(-1) if labels.ndim == 2 and labels.shape[1] == 1 else labels
    if flat.ndim != 1 or flat.dtype.kind not in "iu" or (len(flat) and flat.min() < 0):
        got = f"dtype {labels.dtype} and shape {list(labels.shape)}"
        raise BadModel(f"labels {where} have {got}; class indices of shape [n] are due")
    return flat.astype(np.int64)


def sizes(arrays: Arrays, *, train: bool) -> dict[SplitName, int]:
    """Return how many items each split gets.

    Raises:
        BadModel: There are too few items to divide.
    """
    if arrays.items < LEAST:
        raise BadModel(f"the data holds {arrays.items} items; at least {LEAST} are needed for disjoint splits")
    counts: dict[SplitName, int] = {}
    for name, (share, most) in SHARES.items():
        wanted = name != "train" or train
        given = name == "calibration" and arrays.calibration is not None
        counts[name] = min(most, max(1, int(arrays.items * share))) if wanted and not given else 0
    counts["test"] = arrays.items - sum(counts.values())
    if arrays.calibration is not None:
        counts["calibration"] = len(next(iter(arrays.by_item(arrays.calibration).values())))
    return counts


def _first_equal(inputs: Mapping[str, Array]) -> Array:
    """Return for each item the index of the first one that is equal to it."""
    first: dict[bytes, int] = {}
    found = []
    for i in range(len(next(iter(inputs.values())))):
        digest = hashlib.sha256(b"".join(np.ascontiguousarray(value[i]).tobytes() for value in inputs.values()))
        found.append(first.setdefault(digest.digest(), i))
    return np.array(found)


def divide(arrays: Arrays, name: SplitName, *, train: bool) -> Split:
    """Return a split: disjoint parts of one seeded order; calibration items that came apart stay apart.

    Equal items stay together, so a split may be a few items off its size.

    Raises:
        Unsupported: There is no such split.
    """
    counts = sizes(arrays, train=train)
    if name == "calibration" and counts[name] == 0:
        raise Unsupported(f"the arrays {CALIBRATION}* of the data file hold no items")
    if counts[name] == 0:
        raise Unsupported(f"data for a model that is not trained has no {name} split")
    if name == "calibration" and arrays.calibration is not None:
        return Split(arrays.calibration)
    if arrays.calibration is not None:
        counts["calibration"] = 0
    order = np.random.default_rng(0).permutation(arrays.items)
    place = np.empty(arrays.items, np.int64)
    place[order] = np.arange(arrays.items)
    start = sum(counts[other] for other in list(counts)[: list(counts).index(name)])
    home = place[_first_equal(arrays.by_item(arrays.inputs))]
    index = np.flatnonzero((home >= start) & (home < start + counts[name]))
    labels = None if arrays.labels is None else arrays.labels[index]
    inputs = {key: value if key in arrays.kept else value[index] for key, value in arrays.inputs.items()}
    return Split(inputs, labels)
