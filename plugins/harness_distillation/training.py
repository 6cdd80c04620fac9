"""The losses of distillation and the loop around them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
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

    The batches are varied as the workload varies its own; the teacher then sees what the student sees (Beyer et al.,
    2022: a good teacher is consistent). Where nothing is varied the teacher sees each item once, before training.

    Raises:
        Unsupported: The train split is empty or has no labels.
    """
    from harness_torch import fit

    loss = mixed_loss(teacher, job, temperature=temperature, alpha=alpha)
    fit(student, numbered(job), epochs=epochs, lr=lr, loss=loss, augment=job.workload.augment)


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
    labels = train_labels(job)
    said = outputs_of(teacher, job)

    def loss(outputs: Any, items: Tensor, inputs: tuple[Tensor, ...]) -> Tensor:
        return mixed(outputs, said(items, inputs), labels[items], job, temperature=temperature, alpha=alpha)

    return loss


def mixed(
    outputs: Any, taught: Sequence[Tensor], labels: Tensor, job: Job, *, temperature: float, alpha: float
) -> Tensor:
    """Return alpha x the loss to what a teacher said, summed over outputs, + (1 - alpha) x the loss to the labels."""
    import torch

    part = _teacher_loss(job.workload.task, temperature)
    soft = torch.stack([part(value, goal) for value, goal in zip(several(outputs), taught, strict=True)]).sum()
    hard: Tensor = job.workload.loss(outputs, labels)
    return alpha * soft + (1 - alpha) * hard


def train_labels(job: Job) -> Tensor:
    """Return the labels of the train split.

    Raises:
        Unsupported: It has none.
    """
    import numpy as np
    import torch

    split = job.data.split("train")
    if split.labels is None or not len(split.labels):
        raise Unsupported(f"the train split of workload {job.workload.name!r} has no labels to train a student with")
    return torch.from_numpy(np.array(split.labels))


def outputs_of(teacher: nn.Module, job: Job) -> Callable[[Tensor, tuple[Tensor, ...]], Sequence[Tensor]]:
    """Return (numbers of the train items, their inputs) -> what a teacher says, without gradient."""
    import torch

    from harness_torch import call

    if job.workload.augment is None:
        known = [torch.from_numpy(value) for value in call(teacher, job.data.split("train").inputs).values()]
        return lambda items, _inputs: [value[items] for value in known]
    teacher.eval()

    def said(_items: Tensor, inputs: tuple[Tensor, ...]) -> Sequence[Tensor]:
        with torch.no_grad():
            return several(teacher(*inputs))

    return said


def several(outputs: Any) -> Sequence[Tensor]:
    """Return a network's outputs in order, also where there is one."""
    return outputs if isinstance(outputs, (tuple, list)) else (outputs,)


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
