"""The anchor: the model as the workload trained it."""

from __future__ import annotations

from collections.abc import Iterator

from harness.api import Job, MethodSpec, Model, NoParams, hookimpl


def compress(model: Model, params: NoParams, job: Job) -> Model:
    """Return the model unchanged, so that every other method has something to be compared with."""
    del params
    job.progress(1.0, "unchanged")
    return model


@hookimpl
def harness_methods() -> Iterator[MethodSpec[NoParams]]:
    """Offer ``baseline``."""
    yield MethodSpec(
        name="baseline",
        family="none",
        summary="the workload's model as trained: what every ratio is against",
        params=NoParams,
        exact=True,
        compress=compress,
        consumes=frozenset(),
        conflicts=frozenset({"none", "pruning", "decomposition", "distillation", "binarization", "quantization"}),
    )
