"""Several teachers: clusters of alike samples, the teachers' averages over them, and a multiplier by dual ascent."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.api import Job

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor, nn

    Array = NDArray[Any]

PER_OUTPUT = 4  # clusters for each output, where their number is not given
ROUNDS = 20  # of k-means; the targets need no exact optimum


def further_teachers(job: Job, *, count: int, width: float, epochs: int, lr: float) -> list[nn.Module]:
    """Train models of the workload's own kind on the labels, each from a seed of its own.

    Raises:
        Unsupported: The workload cannot build a model, or has no labels.
    """
    from harness_torch import fit, seed_everything

    found: list[nn.Module] = []
    for number in range(1, count + 1):
        own = dataclasses.replace(job, seed=job.seed + number)
        seed_everything(own.seed)
        teacher: nn.Module = job.workload.build(width=width)
        fit(teacher, own, epochs=epochs, lr=lr, augment=job.workload.augment)
        found.append(teacher)
    return found


def clustered(outputs: Array, clusters: int, seed: int) -> Array:
    """Return the number of each item's cluster, by k-means with k-means++ seeding: shape [n].

    Args:
        outputs: What all teachers said about each item: shape [n, d].
        clusters: At most this many; some may stay empty.
        seed: Equal seeds give equal clusters.
    """
    import numpy as np
    from scipy.cluster.vq import kmeans2

    values = np.asarray(outputs, np.float64)
    count = min(clusters, len(np.unique(values, axis=0)))
    _centres, labels = kmeans2(values, count, iter=ROUNDS, minit="++", missing="warn", seed=seed)
    return np.asarray(labels)


def cluster_targets(outputs: Array, labels: Array) -> Array:
    """Return for each item the mean over its cluster's items and over the teachers: shape [n, c].

    Args:
        outputs: Of each teacher: shape [m, n, c].
        labels: Cluster of each item: shape [n].
    """
    import numpy as np

    mean = np.asarray(outputs, np.float64).mean(axis=0)
    targets = np.empty_like(mean)
    for label in np.unique(labels):
        members = labels == label
        targets[members] = mean[members].mean(axis=0)
    return targets


@dataclass
class Multiplier:
    """A Lagrange multiplier of the constraint violation <= 0, raised by dual ascent and never below zero."""

    value: float
    step: float

    def ascend(self, violation: float) -> None:
        """Move along the dual's gradient: lambda <- max(0, lambda + step x violation)."""
        self.value = max(0.0, self.value + self.step * violation)


def violation(student: Tensor, targets: Tensor, square: float, tolerance: float) -> Tensor:
    """Return by how much the squared distance of the logits exceeds what is allowed.

    mean over items and outputs of (student - target)², as a share of the targets' mean square, less the tolerance.

    Args:
        student: Shape [n, c].
        targets: Shape [n, c].
        square: Mean square of all targets.
        tolerance: Share that is allowed.
    """
    return (student - targets).square().mean() / square - tolerance


def distil_from(
    student: nn.Module, teachers: Sequence[nn.Module], job: Job, *,
    clusters: int | None, tolerance: float, dual_lr: float, epochs: int, lr: float,
) -> Multiplier:  # fmt: skip
    """Train a student in place: least task loss, subject to logits near the averages of the item's cluster.

    The Lagrangian is task loss + lambda x violation; after each batch lambda ascends by the violation seen. Clusters
    and averages are of the items as they are; the student's batches are varied as the workload varies its own.

    Returns:
        The multiplier as training left it.

    Raises:
        Unsupported: The train split is empty or has no labels.
    """
    import numpy as np
    import torch

    from harness_distillation.training import numbered, train_labels
    from harness_torch import fit

    labels, inputs = train_labels(job), job.data.split("train").inputs
    said = np.stack([_said(teacher, inputs) for teacher in teachers])
    flat = np.concatenate(list(said), axis=1)
    groups = clustered(flat, clusters or PER_OUTPUT * said.shape[2], job.seed)
    goals = torch.from_numpy(cluster_targets(said, groups).astype(np.float32))
    square = max(float(goals.square().mean()), 1e-12)
    multiplier = Multiplier(1.0, dual_lr)
    job.log.info("%d teachers, %d clusters of %d items", len(teachers), len(np.unique(groups)), len(groups))

    def loss(outputs: Any, items: Tensor, _inputs: tuple[Tensor, ...]) -> Tensor:
        over = violation(_flat(outputs), goals[items], square, tolerance)
        task: Tensor = job.workload.loss(outputs, labels[items])
        value = task + multiplier.value * over
        multiplier.ascend(float(over.detach()))
        return value

    fit(student, numbered(job), epochs=epochs, lr=lr, loss=loss, augment=job.workload.augment)
    return multiplier


def _said(teacher: nn.Module, inputs: Mapping[str, Array]) -> Array:
    """Return all outputs of a teacher side by side: shape [n, c]."""
    import numpy as np

    from harness_torch import call

    return np.concatenate([value.reshape(len(value), -1) for value in call(teacher, inputs).values()], axis=1)


def _flat(outputs: Any) -> Tensor:
    import torch

    values = outputs if isinstance(outputs, (tuple, list)) else (outputs,)
    return torch.cat([value.flatten(1) for value in values], dim=1)
