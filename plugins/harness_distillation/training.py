"""The losses of distillation and the loop around them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from harness.api import Data, Job, Split, SplitName, Unsupported

if TYPE_CHECKING:
    from torch import Tensor, nn


def soft_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return T² KL(p_teacher || p_student), both softened by the temperature, averaged over items.

    The factor T² keeps the gradients' size independent of T (Hinton et al., 2015, section 2).

    Args:
        student: Logits, classes last: shape [n, …, classes].
        teacher: Logits of the same shape.
        temperature: Above 0.
    """
    log_student = (student / temperature).log_softmax(-1)
    log_teacher = (teacher / temperature).log_softmax(-1)
    divergence = (log_teacher.exp() * (log_teacher - log_student)).sum(-1)
    return divergence.mean() * temperature**2


def distil(
    student: nn.Module, teacher: nn.Module, job: Job, *, temperature: float, alpha: float, epochs: int, lr: float
) -> None:
    """Train a student in place on alpha x the teacher's loss + (1 - alpha) x the task's own.

    The teacher sees each item once, before training: its outputs do not change between epochs.

    Raises:
        Unsupported: The train split is empty or has no labels.
    """
    from harness_torch import fit

    loss = mixed_loss(teacher, job, temperature=temperature, alpha=alpha)
    fit(student, numbered(job), epochs=epochs, lr=lr, loss=loss)


def numbered(job: Job) -> Job:
    """Return the job with the numbers of the train items as their labels, so that a loss finds what a teacher said."""
    return dataclasses.replace(job, data=_Numbered(job.data))


def mixed_loss(
    teacher: nn.Module, job: Job, *, temperature: float, alpha: float
) -> Callable[[Any, Tensor, tuple[Tensor, ...]], Tensor]:
    """Return (outputs, numbers of the train items, inputs) -> the mixed loss.

    Raises:
        Unsupported: The train split has no labels.
    """
    import numpy as np
    import torch

    from harness_torch import call

    split = job.data.split("train")
    if split.labels is None or not len(split.labels):
        raise Unsupported(f"the train split of workload {job.workload.name!r} has no labels to train a student with")
    labels = torch.from_numpy(np.array(split.labels))
    taught = [torch.from_numpy(value) for value in call(teacher, split.inputs).values()]
    part = _teacher_loss(job.workload.task, temperature)

    def loss(outputs: Any, items: Tensor, _inputs: tuple[Tensor, ...]) -> Tensor:
        values = outputs if isinstance(outputs, (tuple, list)) else (outputs,)
        soft = torch.stack([part(value, goal[items]) for value, goal in zip(values, taught, strict=True)]).sum()
        hard: Tensor = job.workload.loss(outputs, labels[items])
        return alpha * soft + (1 - alpha) * hard

    return loss


def _teacher_loss(task: str, temperature: float) -> Callable[[Tensor, Tensor], Tensor]:
    from torch.nn import functional

    if task == "classification":
        return lambda student, teacher: soft_loss(student, teacher, temperature)
    return functional.mse_loss


class _Numbered:
    """Data whose train labels are the numbers of the items."""

    def __init__(self, data: Data) -> None:
        self._data = data

    def split(self, name: SplitName) -> Split:
        """Return a split; the train split is labelled with the numbers of its items, from 0."""
        import numpy as np

        split = self._data.split(name)
        if name != "train":
            return split
        return Split(split.inputs, np.arange(len(next(iter(split.inputs.values())))))
