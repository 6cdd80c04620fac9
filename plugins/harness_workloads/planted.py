"""The network of the self-test's planted wrong answers: right, or wrong in one way."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from harness.api import Job, Model, Split, SplitName, TensorSpec, WorkloadSpec, param
from harness_workloads.tiny import SIZES

SIZE = 8
FAULTS = ("none", "swapped-inputs", "transposed-weight", "layout", "channel-scale", "epsilon", "softmax-axis", "other")


@dataclass(frozen=True)
class Params:
    """What is wrong."""

    fault: str = param("none", "what the network does wrong", choices=FAULTS)


def _inputs(_params: Params) -> dict[str, TensorSpec]:
    # The call order is not the alphabet's: whoever sorts the names feeds them the wrong way round.
    return {name: TensorSpec("float32", (None, SIZE, SIZE, SIZE)) for name in ("zeta", "alpha")}


@lru_cache(maxsize=4)
def _items(name: SplitName) -> Split:
    import numpy as np

    generator = np.random.default_rng([5, list(SIZES).index(name)])
    shape = (SIZES[name], SIZE, SIZE, SIZE)
    return Split({key: generator.normal(size=shape).astype("float32") for key in ("zeta", "alpha")})


def _fit(params: Params, job: Job) -> Model:
    import harness_torch
    from harness_workloads.nets.planted import Planted

    return harness_torch.new_model(Planted(params.fault).eval(), job, job.workload.inputs, job.workload.outputs)


def workloads() -> Iterable[WorkloadSpec[Any]]:
    """Return the workload of this module."""
    yield WorkloadSpec(
        name="planted-answers",
        modality="test",
        summary="two images in, shares out: right, or wrong in one known way, for 'harness selftest --only answers'",
        params=Params,
        inputs=_inputs,
        outputs=("shares",),
        fit=_fit,
        split=lambda _params, name: _items(name),
        task="none",
        labelled=False,
    )
