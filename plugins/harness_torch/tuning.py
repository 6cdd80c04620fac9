"""Fine-tuning after a step: the task's own loss, optionally mixed with what the dense model says."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from harness.api import Job, Unsupported
from harness_torch.files import load
from harness_torch.training import fit

if TYPE_CHECKING:
    from torch import Tensor, nn

    Loss = Callable[[Any, Tensor, tuple[Tensor, ...]], Tensor]
    Penalty = Callable[[], Tensor]
    OnBatch = Callable[[nn.Module, int, int], None]


def fine_tune(
    module: nn.Module,
    job: Job,
    *,
    epochs: int,
    lr: float,
    distill: float = 0.0,
    temperature: float = 4.0,
    penalty: Penalty | None = None,
    on_batch: OnBatch | None = None,
) -> None:
    """Train a compressed module in place on the train split; 0 epochs change nothing.

    Args:
        module: Left in evaluation mode.
        job: Its reference is the teacher.
        epochs: Passes over the train split.
        lr: Peak learning rate.
        distill: Share of the loss that is distance from the teacher's outputs; the labels have the rest.
        temperature: That softens both outputs where the task is classification.
        penalty: Gives a scalar that is added to each batch's loss.
        on_batch: As in ``fit``.

    Raises:
        Unsupported: No labels, an empty train split, or no teacher where one is asked for.
    """
    if not epochs:
        module.eval()
        return
    base = taught_loss(job, share=distill, temperature=temperature)

    def loss(outputs: Any, labels: Tensor, inputs: tuple[Tensor, ...]) -> Tensor:
        value = base(outputs, labels, inputs)
        return value + penalty() if penalty else value

    if job.data.split("train").labels is None:
        raise Unsupported(f"workload {job.workload.name!r} has no labels to train with")
    fit(module, job, epochs=epochs, lr=lr, loss=loss, on_batch=on_batch)


def taught_loss(job: Job, *, share: float, temperature: float) -> Loss:
    """Return (outputs, labels, inputs) -> (1 - share) x the task's loss + share x the distance from the reference.

    The distance is T² KL(p_teacher || p_student), both softened by T and averaged over items (Hinton et al., 2015),
    for classification; the mean squared error for regression. The teacher runs on each batch as it is given.

    Raises:
        Unsupported: The job has no reference model.
    """
    import torch

    if not share:
        return lambda outputs, labels, _inputs: job.workload.loss(outputs, labels)
    if job.reference is None:
        raise Unsupported(f"distill needs the trained model of workload {job.workload.name!r} as its teacher")
    teacher = load(job.reference)

    def loss(outputs: Any, labels: Tensor, inputs: tuple[Tensor, ...]) -> Tensor:
        with torch.no_grad():
            goals = _several(teacher(*inputs))
        pairs = zip(_several(outputs), goals, strict=True)
        soft = torch.stack([_distance(job.workload.task, mine, goal, temperature) for mine, goal in pairs]).sum()
        hard: Tensor = job.workload.loss(outputs, labels)
        return share * soft + (1 - share) * hard

    return loss


def _several(outputs: Any) -> tuple[Tensor, ...]:
    return tuple(outputs) if isinstance(outputs, (tuple, list)) else (outputs,)


def _distance(task: str, student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    from torch.nn import functional

    if task != "classification":
        return functional.mse_loss(student, teacher)
    logs = [(value / temperature).log_softmax(-1).flatten(0, -2) for value in (student, teacher)]
    return functional.kl_div(logs[0], logs[1], reduction="batchmean", log_target=True) * temperature**2
