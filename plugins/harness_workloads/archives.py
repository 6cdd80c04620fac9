"""A user's arrays in an .npz file: checked against the model's inputs, and divided into splits."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

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
        inputs: Items by input name.
        labels: Class of each item, or values for a regression.
        calibration: Items for calibration alone, where they were given apart.
    """

    inputs: Mapping[str, Array]
    labels: Array | None = None
    calibration: Mapping[str, Array] | None = None

    @property
    def items(self) -> int:
        """Number of items."""
        return len(next(iter(self.inputs.values())))


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


def read(path: Path, inputs: Mapping[str, TensorSpec]) -> Arrays:
    """Read an .npz file and check it against the model's inputs.

    Raises:
        BadModel: A name, shape, dtype or count that does not fit, or pickled objects; one sentence says which.
    """
    held = names(path)
    labelled = LABELS in held and LABELS not in inputs
    calibrated = any(f"{CALIBRATION}{name}" in held for name in inputs)
    expected = [*inputs, *([LABELS] if labelled else []), *(f"{CALIBRATION}{n}" for n in inputs if calibrated)]
    _same_names(path, held, expected, inputs)
    loaded = _load(path, expected)
    values = {name: _fits(path, name, loaded[name], spec) for name, spec in inputs.items()}
    _same_counts(path, values)
    calibration = None
    if calibrated:
        keys = {name: f"{CALIBRATION}{name}" for name in inputs}
        calibration = {name: _fits(path, keys[name], loaded[keys[name]], spec) for name, spec in inputs.items()}
        _same_counts(path, calibration)
    labels = class_labels(loaded[LABELS], f"{LABELS!r} in {path}") if labelled else None
    arrays = Arrays(values, labels, calibration)
    if labels is not None and len(labels) != arrays.items:
        raise BadModel(f"data file {path} holds {arrays.items} items but {len(labels)} labels in {LABELS!r}")
    return arrays


def _same_names(path: Path, held: frozenset[str], expected: list[str], inputs: Mapping[str, TensorSpec]) -> None:
    told = ", ".join(map(repr, inputs))
    hint = f"the model's inputs are {told}; labels are {LABELS!r}, calibration items 'calib_<input>'"
    missing = [name for name in expected if name not in held]
    if missing:
        found = ", ".join(map(repr, sorted(held))) or "nothing"
        raise BadModel(f"data file {path} has no array {missing[0]!r}; it holds {found}", hint=hint)
    unknown = sorted(held - set(expected))
    if unknown:
        raise BadModel(f"data file {path} holds an array {unknown[0]!r} that the model has no input for", hint=hint)


def _load(path: Path, wanted: list[str]) -> dict[str, Array]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in wanted}
    except ValueError as error:
        if "allow_pickle" in str(error):
            raise BadModel(
                f"data file {path} holds pickled objects, which are refused: they can run any code when read",
                hint="save plain numeric arrays",
            ) from error
        raise BadModel(f"data file {path} cannot be read: {error}") from error


def _fits(path: Path, name: str, value: Array, spec: TensorSpec) -> Array:
    wanted = "[" + ", ".join("n" if i == 0 else "any" if d is None else str(d) for i, d in enumerate(spec.shape)) + "]"
    if value.ndim != len(spec.shape) or any(
        size not in {None, got} for size, got in zip(spec.shape[1:], value.shape[1:], strict=True)
    ):
        raise BadModel(f"array {name!r} in {path} has shape {list(value.shape)}; the model takes {wanted}")
    if str(value.dtype) != spec.dtype:
        raise BadModel(
            f"array {name!r} in {path} has dtype {value.dtype}; the model takes {spec.dtype}",
            hint=f"save array.astype('{spec.dtype}')",
        )
    if value.dtype.kind == "f" and not np.isfinite(value).all():
        raise BadModel(f"array {name!r} in {path} holds values that are not finite")
    return np.ascontiguousarray(value)


def _same_counts(path: Path, values: Mapping[str, Array]) -> None:
    counts = {name: len(value) for name, value in values.items()}
    if len(set(counts.values())) > 1:
        told = ", ".join(f"{name!r} {count}" for name, count in counts.items())
        raise BadModel(f"the inputs in {path} have different numbers of items: {told}")


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
        counts["calibration"] = len(next(iter(arrays.calibration.values())))
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
    home = place[_first_equal(arrays.inputs)]
    index = np.flatnonzero((home >= start) & (home < start + counts[name]))
    labels = None if arrays.labels is None else arrays.labels[index]
    return Split({key: value[index] for key, value in arrays.inputs.items()}, labels)
