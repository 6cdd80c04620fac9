"""Measure on ONNX Runtime's CPU provider."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from harness.api import TargetSpec, hookimpl
from harness_onnxruntime.errors import KNOWN_ERRORS
from harness_onnxruntime.examine import examine
from harness_onnxruntime.lower import lower
from harness_onnxruntime.params import Params
from harness_onnxruntime.probe import capabilities, probe
from harness_onnxruntime.session import open_session


@hookimpl
def harness_targets() -> Iterator[TargetSpec[Any]]:
    """Offer the target ``onnxruntime``."""
    yield TargetSpec(
        name="onnxruntime",
        summary="ONNX Runtime, CPU provider",
        params=Params,
        accepts=frozenset({"onnx"}),
        probe=probe,
        capabilities=capabilities,
        lower=lower,
        open=open_session,
        examine=examine,
        packages=("onnxruntime", "onnx"),
        known_errors=KNOWN_ERRORS,
        extra="onnxruntime",
    )
