"""The training loop: AdamW with a one-cycle learning rate, repeatable for a seed and a number of threads."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from harness.api import Job, Split, TensorSpec, Unsupported, items_in
from harness_torch.inference import tensors

if TYPE_CHECKING:
    from torch import Generator, Tensor, nn

    Loss = Callable[[Any, Tensor, tuple[Tensor, ...]], Tensor]
    OnBatch = Callable[[nn.Module, int, int], None]
    Augment = Callable[[tuple[Tensor, ...], Generator], tuple[Tensor, ...]]


def seed_everything(seed: int) -> None:
    """Seed Python's, NumPy's and PyTorch's global generators."""
    import random

    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed % 2**32)  # libraries that methods call still use the global generator
    torch.manual_seed(seed)


@contextlib.contextmanager
def _repeatable(threads: int) -> Iterator[None]:
    import torch

    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True, warn_only=True)  # an operator without such a kernel must not end the run
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        torch.use_deterministic_algorithms(before[1])


@contextlib.contextmanager
def _layout(module: nn.Module, inputs: Any) -> Iterator[Callable[[Tensor], Tensor]]:
    """Train images channels last, which is faster on a CPU; the weights go back to the usual layout."""
    import torch

    if not any(value.ndim == 4 for value in inputs.values()):
        yield lambda value: value
        return
    module.to(memory_format=torch.channels_last)
    try:
        yield lambda value: value.contiguous(memory_format=torch.channels_last) if value.dim() == 4 else value
    finally:
        module.to(memory_format=torch.contiguous_format)


def fit(
    module: nn.Module,
    job: Job,
    *,
    epochs: int,
    lr: float = 1e-3,
    batch_size: int = 64,
    weight_decay: float = 1e-4,
    loss: Loss | None = None,
    on_batch: OnBatch | None = None,
    augment: Augment | None = None,
    max_seconds: float | None = None,
) -> None:
    """Train a module in place on the train split and leave it in evaluation mode.

    The last, short batch of an epoch is left out (batch normalisation cannot take one item); the order is
    shuffled anew, so nothing is left out for good.

    Args:
        module: Takes inputs by position.
        job: Gives data, seed, threads, loss and progress.
        epochs: Passes over the data; 0 changes nothing.
        lr: Peak of the one-cycle schedule.
        batch_size: Items per step.
        weight_decay: Decoupled decay of AdamW.
        loss: (outputs, labels, inputs) -> scalar; the workload's own loss where not given. Labels are the
            empty tensor where the split has none.
        on_batch: (module, step, steps) after each step of the optimizer, to hold masks or grids in place.
        augment: (inputs, generator) -> inputs of the same shapes, for each training batch.
        max_seconds: Stop after this long with a warning: a guard, since where it strikes the result depends on
            the machine's speed.

    Raises:
        Unsupported: The train split is empty, or no loss is given and it has no labels.
    """
    import torch

    if epochs == 0:  # also where there is nothing to train with
        module.eval()
        return
    split = job.data.split("train")
    if split.labels is None and loss is None:
        raise Unsupported(f"workload {job.workload.name!r} has no labels to train with")
    if not next(iter(items_in(job.workload.inputs, split.inputs).values())):
        raise Unsupported(f"the train split of workload {job.workload.name!r} is empty")
    if not _trainable(module):
        raise Unsupported(f"every parameter of workload {job.workload.name!r} is frozen, so nothing can be trained")
    seed_everything(job.seed)
    module.train()
    _keep_frozen(module)
    batches = _Batches(split, job.workload.inputs, batch_size, epochs, job.seed)
    criterion = loss or (lambda outputs, labels, _inputs: job.workload.loss(outputs, labels))
    deadline = time.monotonic() + (max_seconds or float("inf"))
    with _repeatable(job.threads), _layout(module, split.inputs) as layout:
        optimizer = torch.optim.AdamW(_trainable(module), lr=lr, weight_decay=weight_decay)
        cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=lr, total_steps=len(batches) + 1)
        for step, (given, labels) in enumerate(batches, start=1):
            augmented = augment(given, batches.generator) if augment else given
            inputs = tuple(layout(value) for value in augmented)
            optimizer.zero_grad(set_to_none=True)
            value = criterion(module(*inputs), labels, inputs)
            value.backward()
            optimizer.step()
            cycle.step()
            if on_batch:
                on_batch(module, step, len(batches))
            _tell(job, step, batches, value)
            if time.monotonic() > deadline:
                job.log.warning("training stopped after %.0f s: step %d of %d", max_seconds, step, len(batches))
                break
    module.zero_grad(set_to_none=True)
    module.eval()


def _keep_frozen(module: nn.Module) -> None:
    """Let the statistics of a batch norm whose parameters are frozen be those that it has."""
    from torch.nn.modules.batchnorm import _BatchNorm

    for layer in module.modules():
        own = list(layer.parameters(recurse=False))
        if isinstance(layer, _BatchNorm) and own and not any(value.requires_grad for value in own):
            layer.eval()


def _trainable(module: nn.Module) -> list[nn.Parameter]:
    return [item for item in module.parameters() if item.requires_grad]


def _tell(job: Job, step: int, steps: _Batches, value: Tensor) -> None:
    if step % max(1, len(steps) // 50) == 0 or step == len(steps):
        epoch = -(-step // steps.per_epoch)
        job.progress(step / len(steps), f"epoch {epoch} of {steps.epochs}, loss {value.item():.4f}")


class _Batches:
    """Shuffled batches of all epochs, from a generator of their own."""

    def __init__(self, split: Split, specs: Mapping[str, TensorSpec], batch_size: int, epochs: int, seed: int) -> None:
        import torch

        self.split, self.specs, self.epochs = split, specs, epochs
        self.items = next(iter(items_in(specs, split.inputs).values()))
        self.batch_size = min(batch_size, self.items)
        self.per_epoch = self.items // self.batch_size
        self.generator = torch.Generator().manual_seed(seed)

    def __len__(self) -> int:
        return self.per_epoch * self.epochs

    def __iter__(self) -> Iterator[tuple[tuple[Tensor, ...], Tensor]]:
        import torch

        for _epoch in range(self.epochs):
            order = torch.randperm(self.items, generator=self.generator).numpy()
            for start in range(0, self.per_epoch * self.batch_size, self.batch_size):
                yield self._take(order[start : start + self.batch_size])

    def _take(self, index: Any) -> tuple[tuple[Tensor, ...], Tensor]:
        import torch

        inputs = tensors(self.split.inputs, index, self.specs)
        if self.split.labels is None:
            return inputs, torch.empty(0)
        return inputs, tensors((self.split.labels,), index)[0]
