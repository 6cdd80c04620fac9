"""Measure on PyTorch itself: eager or compiled, on the CPU or on an NVIDIA GPU."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from harness.api import InspectorSpec, TargetSpec, hookimpl
from harness_torch.inspecting import inspect, nan_weights
from harness_torchrt.examining import examine
from harness_torchrt.lower import lower
from harness_torchrt.params import Params
from harness_torchrt.probe import capabilities, probe
from harness_torchrt.session import open_session


@hookimpl
def harness_targets() -> Iterator[TargetSpec[Any]]:
    """Offer the target ``torch``."""
    yield TargetSpec(
        name="torch",
        summary="PyTorch, eager or torch.compile, CPU or CUDA",
        params=Params,
        accepts=frozenset({"torch"}),
        probe=probe,
        capabilities=capabilities,
        lower=lower,
        open=open_session,
        examine=examine,
        packages=("torch", "torchao"),
        extra="torch",
    )


@hookimpl
def harness_inspectors() -> Iterator[InspectorSpec]:
    """Offer to read modules and programs of torch.export."""
    yield InspectorSpec(name="torch", inspect=inspect, extra="torch", nan_weights=nan_weights)
