"""Targets that run no model: ``null``, whose numbers are the harness's own overhead, and those of known truth."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from harness.api import TargetSpec, hookimpl
from harness_null.known import SPECS
from harness_null.target import SPEC


@hookimpl
def harness_targets() -> Iterable[TargetSpec[Any]]:
    """Offer ``null``, and the targets of known truth."""
    return (SPEC, *SPECS)
