"""Measure on OpenVINO's CPU plugin."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from harness.api import TargetSpec, hookimpl
from harness_openvino.benchmark_app import TOOL
from harness_openvino.errors import KNOWN_ERRORS
from harness_openvino.examine import examine
from harness_openvino.lower import lower
from harness_openvino.params import Params
from harness_openvino.probe import capabilities, probe
from harness_openvino.session import open_session


@hookimpl
def harness_targets() -> Iterator[TargetSpec[Any]]:
    """Offer the target ``openvino``."""
    yield TargetSpec(
        name="openvino",
        summary="OpenVINO, CPU plugin",
        params=Params,
        accepts=frozenset({"onnx", "tflite"}),
        probe=probe,
        capabilities=capabilities,
        lower=lower,
        open=open_session,
        examine=examine,
        packages=("openvino", "nncf"),
        extra="openvino",
        vendor_tools=(TOOL,),
        known_errors=KNOWN_ERRORS,
        known_gaps=dict.fromkeys(
            ("seed:recurrent", "seed:lstm"), "OpenVINO names what it unrolls by a counter of the process"
        ),
    )
