"""Run a module on arrays: in batches, without gradients, outputs by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from harness.api import Job, SplitName, TensorSpec, Unsupported, feed, fixed_batch, items_in

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor, nn

    Arrays = Mapping[str, NDArray[Any]] | Sequence[NDArray[Any]]


def tensors(
    arrays: Arrays, index: Any = slice(None), specs: Mapping[str, TensorSpec] | None = None
) -> tuple[Tensor, ...]:
    """Return the items ``index`` of each array as tensors of their own (the arrays may be read-only maps).

    Args:
        arrays: By name in call order, or in call order.
        index: Of the items.
        specs: The inputs with their roles, where not all of them hold items on their first dimension: then the tensors
            are what a call takes.
    """
    import numpy as np
    import torch

    if specs is not None and isinstance(arrays, Mapping) and not _plain(specs):
        whole = np.arange(next(iter(items_in(specs, arrays).values())))
        return tuple(torch.from_numpy(value) for value in feed(specs, arrays, whole[index].tolist()).values())
    values = list(arrays.values()) if isinstance(arrays, Mapping) else list(arrays)
    return tuple(torch.from_numpy(np.array(value[index])) for value in values)


def _plain(specs: Mapping[str, TensorSpec]) -> bool:
    return all(spec.role == "item" and spec.axis == 0 for spec in specs.values())


def call(
    module: nn.Module,
    inputs: Arrays,
    *,
    outputs: Sequence[str] | None = None,
    batch_size: int = 64,
    specs: Mapping[str, TensorSpec] | None = None,
    axes: Mapping[str, int | None] | None = None,
) -> dict[str, NDArray[Any]]:
    """Return a module's outputs over all items, in evaluation mode and with the mode put back.

    Args:
        module: Takes its inputs by position; returns a tensor or a tuple of tensors.
        inputs: Arrays [n, …] by name in call order, or in call order.
        outputs: Names of the outputs in order, as in ``Model.outputs``; "output0", "output1" … where not given.
        batch_size: Items per call.
        specs: The inputs with their roles, by name; states stay at their first values.
        axes: Item axis of outputs, by name, where it is not the first; outputs are returned items first.
    """
    import numpy as np
    import torch

    named = inputs if isinstance(inputs, Mapping) else {str(place): array for place, array in enumerate(inputs)}
    known = specs if specs is not None and not _plain(specs) else None
    count = len(next(iter(named.values()))) if known is None else next(iter(items_in(known, named).values()))
    size = batch_size if known is None else fixed_batch(known) or batch_size
    training, parts = module.training, []
    module.eval()
    try:
        with torch.inference_mode():
            for start in range(0, count, size):
                whole = known is not None and fixed_batch(known) is not None
                chosen = np.arange(start, start + size) % count if whole else slice(start, start + size)
                result = module(*tensors(named, chosen, known))
                parts.append(result if isinstance(result, (tuple, list)) else (result,))
    finally:
        module.train(training)
    names = outputs if outputs is not None else [f"output{i}" for i in range(len(parts[0]))]
    places = {name: (axes or {}).get(name, 0) for name in names}
    return {name: _joined([part[i] for part in parts], places[name], count) for i, name in enumerate(names)}


def _joined(parts: Sequence[Tensor], axis: int | None, count: int) -> NDArray[Any]:
    """Return the results of calls, items first; of one that belongs to its call, one entry for each."""
    import torch

    if axis is None:
        return torch.stack(list(parts)).numpy()
    return torch.cat([part.movedim(axis, 0) for part in parts])[:count].numpy()


def evaluate(module: nn.Module, job: Job, split: SplitName = "selection") -> float:
    """Return the workload's metric on a split.

    Raises:
        Unsupported: The split is empty or has no labels.
    """
    items = job.data.split(split)
    specs = job.workload.inputs
    if not next(iter(items_in(specs, items.inputs).values())):
        raise Unsupported(f"the {split} split of workload {job.workload.name!r} is empty")
    if items.labels is None:
        raise Unsupported(f"the {split} split of workload {job.workload.name!r} has no labels to score against")
    outputs = call(module, items.inputs, outputs=job.workload.outputs, specs=specs)
    return float(job.workload.aggregate(job.workload.score(outputs, items.labels)))


def example_inputs(source: Job | Mapping[str, TensorSpec], batch: int = 1) -> tuple[Tensor, ...]:
    """Return inputs of the declared shapes: seeded normal floats, zeros for integers (valid as any index).

    Args:
        source: A job, or inputs by name as in ``Model.inputs``.
        batch: Stands in for the free dimension that the items lie on; other free dimensions become 1.
    """
    import torch

    specs = source.workload.inputs if isinstance(source, Job) else source
    generator = torch.Generator().manual_seed(0)
    return tuple(_example(spec, batch, generator) for spec in specs.values())


def _example(spec: TensorSpec, batch: int, generator: Any) -> Tensor:
    import torch

    dtype: torch.dtype = getattr(torch, spec.dtype)
    sizes = enumerate(spec.shape)
    shape = tuple((batch if at == spec.axis else 1) if size is None else size for at, size in sizes)
    if dtype.is_floating_point:
        return torch.randn(shape, generator=generator).to(dtype)
    return torch.zeros(shape, dtype=dtype)
