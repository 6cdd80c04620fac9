"""Knowledge distillation: a smaller student learns from the trained model, its layers, a chain, or several models."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from harness.api import Asked, Job, MethodSpec, Model, hookimpl, param

_NEEDS = frozenset({"training", "torch-model"})


@dataclass(frozen=True)
class StudentParams:
    """Who the student is, and how long it learns."""

    width: float | None = param(None, "share of the channels (0.5 unless a step before made the student)", gt=0, le=1)
    depth: float | None = param(None, "share of the layers (1 unless a step before made the student)", gt=0, le=1)
    epochs: int = param(10, "training epochs of the student", ge=1)
    lr: float = param(1e-2, "peak learning rate", gt=0)


@dataclass(frozen=True)
class Params(StudentParams):
    """Parameters of ``distillation``."""

    # 2 and 0.9: best of (2, 0.9), (4, 0.9), (4, 0.7), (1, 0.9) on the selection split of glyphs-resnet8
    T: float = param(2.0, "temperature that softens both distributions (classification)", gt=0)
    alpha: float = param(0.9, "weight of the teacher's part of the loss; the labels have the rest", ge=0, le=1)


@dataclass(frozen=True)
class FeatureParams(Params):
    """Parameters of ``feature-distillation``."""

    beta: float = param(1.0, "weight of the hidden layers' part of the loss", gt=0)
    points: int = param(3, "hidden layers that are matched, spread evenly over the depth", ge=1)


@dataclass(frozen=True)
class ChainParams(Params):
    """Parameters of ``progressive-distillation``."""

    students: int = param(2, "students in the chain, each smaller than the one before and taught by it", ge=1)


@dataclass(frozen=True)
class TeachersParams(StudentParams):
    """Parameters of ``multi-teacher-distillation``."""

    teachers: int = param(3, "teachers: the trained model, and others like it from other seeds", ge=2)
    teacher_width: float = param(1.0, "share of the channels of the other teachers", gt=0, le=2)
    teacher_epochs: int = param(6, "training epochs of each other teacher", ge=1)
    clusters: int | None = param(None, "clusters of the teachers' outputs (none: four for each output)", ge=1)
    tolerance: float = param(0.05, "squared distance from the targets that is allowed, as share of their square", ge=0)
    dual_lr: float = param(0.05, "step of the multiplier's dual ascent", gt=0)


def compress(model: Model, params: Params, job: Job) -> Model:
    """Train a student on the workload's trained model and the labels.

    The student is the incoming model where an earlier step changed it, else a fresh model of the workload's
    own kind, narrower and shallower.

    Raises:
        Unsupported: There is no teacher, no labels, or the workload cannot build a smaller model.
    """
    from harness_distillation.student import student_of, teacher_of
    from harness_distillation.training import distil
    from harness_torch import save

    teacher = teacher_of(job, "distillation")
    student = student_of(model, params.width, params.depth, job)
    distil(student, teacher, job, temperature=params.T, alpha=params.alpha, epochs=params.epochs, lr=params.lr)
    return save(student, model, job)


def compress_features(model: Model, params: FeatureParams, job: Job) -> Model:
    """Train a student on the teacher's outputs and hidden layers (FitNets, Romero et al., 2015).

    Raises:
        Unsupported: As ``compress``, or no hidden layer of the student has a counterpart.
    """
    from harness_distillation.features import distil_features
    from harness_distillation.student import student_of, teacher_of
    from harness_torch import save

    teacher = teacher_of(job, "feature-distillation")
    student = student_of(model, params.width, params.depth, job)
    distil_features(
        student, teacher, job,
        temperature=params.T, alpha=params.alpha, beta=params.beta, points=params.points,
        epochs=params.epochs, lr=params.lr,
    )  # fmt: skip
    return save(student, model, job)


def compress_chain(model: Model, params: ChainParams, job: Job) -> Model:
    """Train a chain of shrinking students, each taught by the one before (Mirzadeh et al., 2020).

    Raises:
        Unsupported: As ``compress``.
    """
    from harness_distillation.student import shrinking, teacher_of
    from harness_distillation.training import distil
    from harness_torch import save

    teacher = teacher_of(job, "progressive-distillation")
    chain = shrinking(model, params.width, params.depth, params.students, teacher, job)
    for number, student in enumerate(chain, start=1):
        job.progress((number - 1) / len(chain), f"student {number} of {len(chain)}")
        distil(student, teacher, job, temperature=params.T, alpha=params.alpha, epochs=params.epochs, lr=params.lr)
        teacher = student
    return save(teacher, model, job)


def compress_teachers(model: Model, params: TeachersParams, job: Job) -> Model:
    """Train a student on the labels, held near what several teachers say on average about alike samples.

    Raises:
        Unsupported: As ``compress``; the workload cannot build further teachers.
    """
    from harness_distillation.student import student_of, teacher_of
    from harness_distillation.teachers import distil_from, further_teachers
    from harness_torch import save

    first = teacher_of(job, "multi-teacher-distillation")
    student = student_of(model, params.width, params.depth, job)
    others = further_teachers(
        job, count=params.teachers - 1, width=params.teacher_width, epochs=params.teacher_epochs, lr=params.lr
    )
    distil_from(
        student, [first, *others], job,
        clusters=params.clusters, tolerance=params.tolerance, dual_lr=params.dual_lr,
        epochs=params.epochs, lr=params.lr,
    )  # fmt: skip
    return save(student, model, job)


def _asks(params: StudentParams) -> Asked:
    if params.width is None and params.depth is None:
        return Asked("a smaller student")
    sizes = {"channels": params.width, "layers": params.depth}
    return Asked(f"a student of {' and '.join(f'{share:g} of the {what}' for what, share in sizes.items() if share)}")


@hookimpl
def harness_methods() -> Iterator[MethodSpec[Any]]:
    """Offer the ways to teach a student."""
    yield MethodSpec(
        name="distillation",
        techniques=("knowledge distillation",),
        family="distillation",
        summary="a student of half the width taught by the trained model",
        params=Params,
        compress=compress,
        needs=_NEEDS,
        asks=_asks,
        conflicts=frozenset({"none"}),
    )
    yield MethodSpec(
        name="feature-distillation",
        techniques=("knowledge distillation",),
        family="distillation",
        summary="distillation of the outputs and of hidden layers",
        params=FeatureParams,
        compress=compress_features,
        needs=_NEEDS,
        asks=_asks,
        conflicts=frozenset({"none"}),
        defaults=(),
    )
    yield MethodSpec(
        name="progressive-distillation",
        techniques=("progressive distillation",),
        family="distillation",
        summary="a chain of shrinking students, each taught by the one before",
        params=ChainParams,
        compress=compress_chain,
        needs=_NEEDS,
        asks=_asks,
        conflicts=frozenset({"none"}),
        defaults=(),
    )
    yield MethodSpec(
        name="multi-teacher-distillation",
        techniques=("multi-teacher distillation",),
        family="distillation",
        summary="a student held near several teachers, averaged over alike samples",
        params=TeachersParams,
        compress=compress_teachers,
        needs=_NEEDS,
        asks=_asks,
        conflicts=frozenset({"none"}),
        defaults=(),
    )
