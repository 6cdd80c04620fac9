"""ExecuTorch: PyTorch's runtime for phones and small devices, with XNNPACK kernels."""

from __future__ import annotations

from collections.abc import Iterator

from harness.api import Artifact, Options, Purpose, Session, TargetSpec, hookimpl
from harness_executorch.lowering import lower
from harness_executorch.params import Params
from harness_executorch.probing import capabilities, probe
from harness_executorch.session import ExecutorchSession


def open_session(artifact: Artifact, params: Params, options: Options, purpose: Purpose) -> Session:
    """Load the program; what is measured does not change with the purpose."""
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
