"""Run a module on arrays: in batches, without gradients, outputs by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from harness.api import Job, SplitName, TensorSpec, Unsupported

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor, nn

    Arrays = Mapping[str, NDArray[Any]] | Sequence[NDArray[Any]]


def tensors(arrays: Arrays, index: Any = slice(None)) -> tuple[Tensor, ...]:
    """Return the items ``index`` of each array as tensors of their own (the arrays may be read-only maps)."""
    import numpy as np
    import torch

    values = list(arrays.values()) if isinstance(arrays, Mapping) else list(arrays)
    return tuple(torch.from_numpy(np.array(value[index])) for value in values)


def call(
    module: nn.Module, inputs: Arrays, *, outputs: Sequence[str] | None = None, batch_size: int = 64
) -> dict[str, NDArray[Any]]:
    """Return a module's outputs over all items, in evaluation mode and with the mode put back.

    Args:
        module: Takes its inputs by position; returns a tensor or a tuple of tensors.
        inputs: Arrays [n, …] by name in call order, or in call order.
        outputs: Names of the outputs in order, as in ``Model.outputs``; "output0", "output1" … where not given.
        batch_size: Items per call.
    """
    import torch

    values = list(inputs.values()) if isinstance(inputs, Mapping) else list(inputs)
    training, parts = module.training, []
    module.eval()
    try:
        with torch.inference_mode():
            for start in range(0, len(values[0]), batch_size):
                result = module(*tensors(values, slice(start, start + batch_size)))
                parts.append(result if isinstance(result, (tuple, list)) else (result,))
    finally:
        module.train(training)
    names = outputs if outputs is not None else [f"output{i}" for i in range(len(parts[0]))]
    return {name: torch.cat([part[i] for part in parts]).numpy() for i, name in enumerate(names)}


def evaluate(module: nn.Module, job: Job, split: SplitName = "selection") -> float:
    """Return the workload's metric on a split.

    Raises:
        Unsupported: The split is empty or has no labels.
    """
    items = job.data.split(split)
    if not len(next(iter(items.inputs.values()))):
        raise Unsupported(f"the {split} split of workload {job.workload.name!r} is empty")
    if items.labels is None:
        raise Unsupported(f"the {split} split of workload {job.workload.name!r} has no labels to score against")
    outputs = call(module, items.inputs, outputs=job.workload.outputs)
    return float(job.workload.aggregate(job.workload.score(outputs, items.labels)))


def example_inputs(source: Job | Mapping[str, TensorSpec], batch: int = 1) -> tuple[Tensor, ...]:
    """Return inputs of the declared shapes: seeded normal floats, zeros for integers (valid as any index).

    Args:
        source: A job, or inputs by name as in ``Model.inputs``.
        batch: Stands in for the free first dimension; other free dimensions become 1.
    """
    import torch

    specs = source.workload.inputs if isinstance(source, Job) else source
    generator = torch.Generator().manual_seed(0)
    return tuple(_example(spec, batch, generator) for spec in specs.values())


def _example(spec: TensorSpec, batch: int, generator: Any) -> Tensor:
    import torch

    dtype: torch.dtype = getattr(torch, spec.dtype)
    first, *rest = spec.shape
    shape = (batch if first is None else first, *(1 if size is None else size for size in rest))
    if dtype.is_floating_point:
        return torch.randn(shape, generator=generator).to(dtype)
    return torch.zeros(shape, dtype=dtype)
