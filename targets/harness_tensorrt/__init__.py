"""TensorRT and TensorRT for RTX: two targets on NVIDIA GPUs that share one strongly typed code path."""

from __future__ import annotations

import functools
from collections.abc import Iterator

from harness.api import (
    Artifact,
    Availability,
    Capabilities,
    Job,
    Model,
    Options,
    Purpose,
    Session,
    TargetSpec,
    hookimpl,
)
from harness_tensorrt.flavors import RTX, TENSORRT, Flavor, Params

# The parts are imported when they are called: listing targets must not pay for them.


def probe(flavor: Flavor, params: Params) -> Availability:
    """Run a network of one operator."""
    from harness_tensorrt import probing

    return probing.probe(flavor, params)


def capabilities(flavor: Flavor, params: Params) -> Capabilities:
    """Say what this host's GPU can do."""
    from harness_tensorrt import probing

    return probing.capabilities(flavor, params)


def lower(flavor: Flavor, model: Model, params: Params, options: Options, job: Job) -> Artifact:
    """Build a plan for this host."""
    from harness_tensorrt import lowering

    return lowering.lower(flavor, model, params, options, job)


def open_session(flavor: Flavor, artifact: Artifact, params: Params, options: Options, purpose: Purpose) -> Session:
    """Load the plan."""
    from harness_tensorrt.session import TensorrtSession

    return TensorrtSession(flavor, artifact, params, options, purpose)


def _target(flavor: Flavor, extra: str) -> TargetSpec[Params]:
    return TargetSpec(
        name=flavor.name,
        summary=f"{flavor.title} on an NVIDIA GPU, strongly typed engines",
        params=Params,
        accepts=frozenset({"onnx"}),
        probe=functools.partial(probe, flavor),
        capabilities=functools.partial(capabilities, flavor),
        lower=functools.partial(lower, flavor),
        open=functools.partial(open_session, flavor),
        lower_reads=frozenset({"batch"}),
        packages=flavor.packages,
        extra=extra,
    )


@hookimpl
def harness_targets() -> Iterator[TargetSpec[Params]]:
    """Offer both libraries; their results are never mixed."""
    yield _target(TENSORRT, "tensorrt")
    yield _target(RTX, "tensorrt-rtx")
