"""The workload's data in the cache: one entry holds every split as .npy files, checked and hashed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

from harness import codec
from harness.errors import PluginError, Unsupported
from harness.feeds import items_in, shard_name
from harness.specs import Split
from harness.types import SplitName, TensorSpec

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

SPLITS: tuple[SplitName, ...] = get_args(SplitName)
LABELS = "labels.npy"


@dataclass(frozen=True)
class SplitInfo:
    """One stored split.

    Attributes:
        files: File name in the split's folder -> hex SHA-256.
        absent: Why the workload has no such split; empty where it has.
    """

    items: int
    labelled: bool
    files: Mapping[str, str]
    absent: str = ""


@dataclass(frozen=True)
class DataInfo:
    """All splits of one workload."""

    inputs: Mapping[str, TensorSpec]
    splits: Mapping[str, SplitInfo]

    def sha256(self, *names: str) -> str:
        """Hash the content of these splits."""
        return codec.sha256({name: self.splits[name].files for name in names if name in self.splits})


def write_data(
    folder: Path,
    split: Callable[[SplitName], Split],
    inputs: Mapping[str, TensorSpec],
    *,
    labelled: bool,
    progress: Callable[[float, str], None],
) -> DataInfo:
    """Ask for each split, check it and write it.

    Args:
        folder: Gets a folder of .npy files for each split.
        split: The workload's split function.
        inputs: Array by name as the workload declares it.
        labelled: Whether the test split must have labels.
        progress: Hears which split is at hand.

    Raises:
        PluginError: An array is not as declared, two splits share an item, or the test split is empty.
    """
    infos: dict[str, SplitInfo] = {}
    seen: dict[bytes, str] = {}
    for index, name in enumerate(SPLITS):
        progress(index / len(SPLITS), name)
        try:
            items = split(name)
        except Unsupported as error:
            infos[name] = SplitInfo(0, False, {}, error.message)
            continue
        count = _check(name, items, inputs)
        _disjoint(name, items, inputs, seen)
        infos[name] = _write(folder / name, items, count)
    _check_test(infos["test"], labelled=labelled)
    return DataInfo(dict(inputs), infos)


def _check_test(info: SplitInfo, *, labelled: bool) -> None:
    if info.items == 0:
        raise PluginError(f"the test split has no items{': ' + info.absent if info.absent else ''}")
    if labelled and not info.labelled:
        raise PluginError("the test split has no labels; declare labelled=False where there are none")


def _check(name: str, items: object, inputs: Mapping[str, TensorSpec]) -> int:
    """Check one split against what is declared; return the number of items."""
    if not isinstance(items, Split):
        raise PluginError(f"split {name!r} is {type(items).__name__} where Split is due")
    if set(items.inputs) != set(inputs):
        raise PluginError(f"split {name!r} has inputs {sorted(items.inputs)}, declared are {sorted(inputs)}")
    counts = items_in(inputs, items.inputs)
    if not counts:
        raise PluginError(f"split {name!r} has no input that differs from item to item")
    if items.labels is not None:
        counts["labels"] = len(items.labels)
    if len(set(counts.values())) != 1:
        raise PluginError(f"split {name!r} has unequal numbers of items: {counts}")
    for key, spec in inputs.items():
        _check_array(name, key, items.inputs[key], spec)
    return next(iter(counts.values()))


def _check_array(split: str, name: str, array: NDArray[Any], spec: TensorSpec) -> None:
    if str(array.dtype) != spec.dtype:
        raise PluginError(f"split {split!r}, input {name!r} is {array.dtype}, declared is {spec.dtype}")
    due = stored_shape(spec)
    fits = len(array.shape) == len(due) and all(
        wanted is None or actual == wanted for actual, wanted in zip(array.shape, due, strict=True)
    )
    if not fits:
        raise PluginError(f"split {split!r}, input {name!r} has shape {array.shape}, declared is {spec.shape}")


def stored_shape(spec: TensorSpec) -> tuple[int | None, ...]:
    """Return the shape that an input's data have: items first; of constants and first states that of a call of one."""
    if spec.role == "item":
        return (None, *(size for axis, size in enumerate(spec.shape) if axis != spec.axis))
    return tuple(None if axis == spec.axis else size for axis, size in enumerate(spec.shape))


def _disjoint(name: str, items: Split, inputs: Mapping[str, TensorSpec], seen: dict[bytes, str]) -> None:
    import numpy as np

    arrays = [np.ascontiguousarray(items.inputs[key]) for key in sorted(items_in(inputs, items.inputs))]
    for index in range(len(arrays[0])):
        digest = hashlib.blake2b(digest_size=16)
        for array in arrays:
            digest.update(array[index].tobytes())
        owner = seen.setdefault(digest.digest(), name)
        if owner != name:
            raise PluginError(f"splits {owner!r} and {name!r} share an item (item {index} of {name!r})")


def _write(folder: Path, items: Split, count: int) -> SplitInfo:
    import numpy as np

    folder.mkdir()
    arrays = {shard_name(key): array for key, array in items.inputs.items()}
    if items.labels is not None:
        arrays[LABELS] = items.labels
    for name, array in arrays.items():
        if array.dtype.hasobject:
            raise PluginError(f"{name} holds Python objects; numbers are due")
        np.save(folder / name, np.asarray(array, order="C"), allow_pickle=False)
    files = {name: codec.file_sha256(folder / name) for name in sorted(arrays)}
    return SplitInfo(count, items.labels is not None, files)


def read_split(folder: Path, info: SplitInfo, inputs: Mapping[str, TensorSpec]) -> Split:
    """Return a stored split, memory-mapped and read-only."""
    import numpy as np

    def read(name: str) -> NDArray[Any]:
        array: NDArray[Any] = np.load(folder / name, mmap_mode="r" if info.items else None, allow_pickle=False)
        return array

    labels = read(LABELS) if info.labelled else None
    return Split({name: read(shard_name(name)) for name in inputs}, labels)


class GuardedData:
    """The splits that a build step may see: all but the test split."""

    def __init__(self, folder: Path, info: DataInfo) -> None:
        self._folder = folder
        self._info = info

    def split(self, name: SplitName) -> Split:
        """Return a split, memory-mapped and read-only.

        Raises:
            PluginError: The test split was asked for, or there is no split of this name.
            Unsupported: The workload has no such split.
        """
        if name == "test":
            raise PluginError("a build step asked for the test split; only measuring may see it")
        info = self._info.splits.get(name)
        if info is None:
            raise PluginError(f"there is no split {name!r} here; there are {', '.join(self._info.splits)}")
        if info.absent:
            raise Unsupported(info.absent)
        return read_split(self._folder / name, info, self._info.inputs)


class NoData:
    """For the step that makes the data."""

    def split(self, name: SplitName) -> Split:
        """Raise ``PluginError``: there is nothing yet."""
        raise PluginError(f"split {name!r} was asked for before there is data")
