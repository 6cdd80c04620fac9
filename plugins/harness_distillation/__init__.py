"""Knowledge distillation: a smaller student learns from the trained model (Hinton et al., 2015)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from harness.api import Job, MethodSpec, Model, Unsupported, hookimpl, param

WIDTH, DEPTH = 0.5, 1.0  # of a student that is derived: about a quarter of the teacher's parameters


@dataclass(frozen=True)
class Params:
    """Parameters of ``distillation``."""

    T: float = param(4.0, "temperature that softens both distributions (classification)", gt=0)
    alpha: float = param(0.7, "weight of the teacher's part of the loss; the labels have the rest", ge=0, le=1)
    width: float | None = param(None, "share of the channels (0.5 unless a step before made the student)", gt=0, le=1)
    depth: float | None = param(None, "share of the layers (1 unless a step before made the student)", gt=0, le=1)
    epochs: int = param(10, "training epochs of the student", ge=1)
    lr: float = param(1e-2, "peak learning rate", gt=0)


def compress(model: Model, params: Params, job: Job) -> Model:
    """Train a student on the workload's trained model and the labels.

    The student is the incoming model where an earlier step changed it, else a fresh model of the workload's
    own kind, narrower and shallower.

    Raises:
        Unsupported: There is no teacher, no labels, or the workload cannot build a smaller model.
    """
    from harness_distillation.training import distil
    from harness_torch import load, save

    if job.reference is None:
        raise Unsupported(f"distillation needs the trained model of workload {job.workload.name!r} as its teacher")
    teacher = load(job.reference)
    student = _student(model, params, job)
    distil(student, teacher, job, temperature=params.T, alpha=params.alpha, epochs=params.epochs, lr=params.lr)
    return save(student, model, job)


def _student(model: Model, params: Params, job: Job) -> object:
    from harness_torch import load, seed_everything

    steps = [record.name for record in model.lineage if record.stage == "compress"]
    if not steps:
        seed_everything(job.seed)
        return job.workload.build(width=params.width or WIDTH, depth=params.depth or DEPTH)
    if params.width is not None or params.depth is not None:
        raise Unsupported(f"the student is what {steps[-1]!r} made, so width and depth cannot be given")
    return load(model)


@hookimpl
def harness_methods() -> Iterator[MethodSpec[Params]]:
    """Offer ``distillation``."""
    yield MethodSpec(
        name="distillation",
        family="distillation",
        summary="a student of half the width taught by the trained model",
        params=Params,
        compress=compress,
        needs=frozenset({"training", "torch-model"}),
        conflicts=frozenset({"none"}),
    )
