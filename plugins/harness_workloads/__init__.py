"""Offer workloads: models with real or honestly generated data, all of which work offline, and loaders for your own."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from harness.api import WorkloadSpec, hookimpl


@hookimpl
def harness_workloads() -> Iterable[WorkloadSpec[Any]]:
    """Offer all workloads of this package."""
    from harness_workloads import diabetes, digits, file, glyphs, zoo

    return [spec for module in (digits, glyphs, diabetes, zoo, file) for spec in module.workloads()]
