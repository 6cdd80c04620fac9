"""Offer workloads: models with real or honestly generated data, all of which work offline, and loaders for your own."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from harness.api import OracleSpec, WorkloadSpec, hookimpl
from harness_workloads.factory import UserWorkload

__all__ = ["UserWorkload"]


@hookimpl
def harness_workloads() -> Iterable[WorkloadSpec[Any]]:
    """Offer all workloads of this package."""
    from harness_workloads import diabetes, digits, factory, file, folder, glyphs, planted, pretrained, tiny, zoo

    modules = (digits, glyphs, diabetes, zoo, file, factory, folder, pretrained, tiny, planted)
    return [spec for module in modules for spec in module.workloads()]


@hookimpl
def harness_oracles() -> Iterable[OracleSpec]:
    """Offer PyTorch as what its modules are judged by."""
    from harness_workloads import oracle

    summary = "PyTorch itself, the fitted module run eagerly on the CPU"
    yield OracleSpec(name="torch", summary=summary, consumes="torch", open=oracle.open_eager, extra="torch")
