"""Run all items through a model and write what it returns, without holding more than a batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.errors import HarnessError
from harness.feeds import as_array, carried, one_by_one, shard_name
from harness.measure.inputs import batch_of, count_items, open_items, take
from harness.shards import Shard
from harness.types import TensorSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]


def write_outputs(
    call: Callable[[Mapping[str, Array]], Mapping[str, Array]],
    specs: Mapping[str, TensorSpec],
    axes: Mapping[str, int | None],
    evaluation: Path,
    folder: Path,
    *,
    batch: int,
    items: int | None,
) -> tuple[dict[str, Path], int]:
    """Run the evaluation items and stream each output into a file, items first (see ``harness.shards``).

    States start anew, and what one call gives is fed to the next.

    Args:
        call: Runs one batch: arrays by input name -> arrays by output name.
        specs: The inputs that it takes, with their roles.
        axes: Output name -> dimension that holds the items of a call; 0 for one that is not named, ``None`` for one
            that belongs to the call: it is one entry of its file.
        evaluation: Folder of the items.
        folder: Where the outputs go.
        batch: Items per call where the inputs take any number; fixed ones keep their own, and it is one where an
            output belongs to the call or a state to the call before. A short last batch is padded by repeating its
            last item, and what comes back is cut.
        items: How many items; ``None`` for all.

    Returns:
        File by output name, and the batch that was used.

    Raises:
        HarnessError: The dimension of an output that should hold the items is not as long as the batch.
    """
    arrays = open_items(evaluation, specs)
    total = count_items(specs, arrays)
    total = total if items is None else min(items, total)
    size = batch_of(specs, 1 if one_by_one(specs, axes) else batch)
    folder.mkdir(parents=True, exist_ok=True)
    run, shards = carried(call, specs), dict[str, Shard]()
    for start in range(0, total, size):
        which = [min(start + step, total - 1) for step in range(size)]
        results = run(take(arrays, specs, which))
        for name, result in results.items():
            if name not in shards:
                entries = total if axes.get(name, 0) is not None else -(-total // size)
                shards[name] = Shard(folder / shard_name(name), entries)
            shards[name].add(_entries(name, as_array(result), axes.get(name, 0), size)[: total - start])
    return {name: shard.close() for name, shard in shards.items()}, size


def _entries(name: str, result: Array, axis: int | None, size: int) -> Array:
    """Return a result with its items first; as one entry where it belongs to the call."""
    if axis is None:
        return result[None]
    if result.ndim <= axis or result.shape[axis] != size:
        which = "first dimension" if not axis else f"dimension {axis}"
        raise HarnessError(f"output {name!r} has shape {list(result.shape)}; its {which} is not the batch of {size}")
    return np.moveaxis(result, axis, 0)
