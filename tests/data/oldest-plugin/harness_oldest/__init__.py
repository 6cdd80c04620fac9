"""An example plugin: the hooks. What they offer lives in the modules beside this one."""

from __future__ import annotations

from collections.abc import Iterator

from harness.api import MethodSpec, NoParams, TargetSpec, hookimpl
from harness_oldest import clipping, reference


@hookimpl
def harness_methods() -> Iterator[MethodSpec[clipping.Params]]:
    """Offer ``weight-clipping``."""
    yield MethodSpec(
        name="oldest-clipping",
        family="clipping",
        summary="cut off the largest weights, so that int8 has finer steps for the rest",
        params=clipping.Params,
        compress=clipping.compress,
        needs=frozenset({"torch-model"}),
        before=frozenset({"quantization"}),  # afterwards there are no float weights to clip
    )


@hookimpl
def harness_targets() -> Iterator[TargetSpec[NoParams]]:
    """Offer ``onnx-reference``."""
    yield TargetSpec(
        name="oldest-reference",
        summary="ONNX's own reference runtime in Python: slow, and right by definition",
        params=NoParams,
        accepts=frozenset({"onnx"}),
        probe=reference.probe,
        capabilities=reference.capabilities,
        lower=reference.lower,
        open=reference.open_session,
        packages=("onnx",),
    )
