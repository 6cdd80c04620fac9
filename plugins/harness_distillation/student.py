"""Who teaches and who learns."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from harness.api import Job, Model, Unsupported

if TYPE_CHECKING:
    from torch import nn

WIDTH, DEPTH = 0.5, 1.0  # of a student that is derived: about a quarter of the teacher's parameters


def teacher_of(job: Job, method: str) -> nn.Module:
    """Return the workload's trained model.

    Raises:
        Unsupported: There is none.
    """
    from harness_torch import load

    if job.reference is None:
        raise Unsupported(f"{method} needs the trained model of workload {job.workload.name!r} as its teacher")
    return load(job.reference)


def student_of(model: Model, width: float | None, depth: float | None, job: Job) -> nn.Module:
    """Return the incoming model where an earlier step changed it, else a fresh narrower and shallower one.

    Raises:
        Unsupported: A width or depth is given for a student that is there, or the workload builds no models.
    """
    from harness_torch import load, seed_everything

    maker = _maker(model)
    if maker is None:
        seed_everything(job.seed)
        student: nn.Module = job.workload.build(width=width or WIDTH, depth=depth or DEPTH)
        return student
    if width is not None or depth is not None:
        raise Unsupported(f"the student is what {maker!r} made, so width and depth cannot be given")
    return load(model)


def shrinking(
    model: Model, width: float | None, depth: float | None, count: int, teacher: nn.Module, job: Job
) -> list[nn.Module]:
    """Return students that shrink evenly from the teacher to the last one: the student that is asked for.

    Widths and depths fall geometrically: student i of n has width^(i/n). Where an earlier step made the student,
    its width is taken as the square root of its share of the teacher's parameters, as channels come in twice.

    Raises:
        Unsupported: As ``student_of``.
    """
    from harness_torch import parameters, seed_everything

    last = student_of(model, width, depth, job)
    if _maker(model) is None:
        goal = (width or WIDTH, depth or DEPTH)
    else:
        goal = (min(1.0, math.sqrt(parameters(last) / parameters(teacher))), 1.0)
    between: list[nn.Module] = []
    for number in range(1, count):
        seed_everything(job.seed + number)
        share = number / count
        between.append(job.workload.build(width=goal[0] ** share, depth=goal[1] ** share))
    return [*between, last]


def _maker(model: Model) -> str | None:
    """Return the name of the step that changed the model last, or None."""
    return next((record.name for record in reversed(model.lineage) if record.stage == "compress"), None)
