"""ExecuTorch: PyTorch's runtime for phones and small devices, with XNNPACK kernels."""

from __future__ import annotations

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
from harness_executorch.params import Params

# The parts are imported when they are called: listing targets must not pay for them.


def probe(params: Params) -> Availability:
    """Run a program of one operator."""
    from harness_executorch import probing

    return probing.probe(params)


def capabilities(params: Params) -> Capabilities:
    """Say what ExecuTorch can do on this host."""
    from harness_executorch import probing

    return probing.capabilities(params)


def lower(model: Model, params: Params, options: Options, job: Job) -> Artifact:
    """Write a program for the batch of ``options``."""
    from harness_executorch import lowering

    return lowering.lower(model, params, options, job)


def open_session(artifact: Artifact, params: Params, options: Options, purpose: Purpose) -> Session:
    """Load the program; what is measured does not change with the purpose."""
    from harness_executorch.session import ExecutorchSession

    del params, purpose
    return ExecutorchSession(artifact, options)


@hookimpl
def harness_targets() -> Iterator[TargetSpec[Params]]:
    """Offer ExecuTorch; by name, so that ``all`` stays as long as it was."""
    yield TargetSpec(
        name="executorch",
        summary="ExecuTorch on the CPU, with XNNPACK",
        params=Params,
        accepts=frozenset({"torch"}),
        probe=probe,
        capabilities=capabilities,
        lower=lower,
        open=open_session,
        lower_reads=frozenset({"batch"}),
        packages=("executorch", "torch", "torchao"),
        extra="executorch",
        default=False,
    )
