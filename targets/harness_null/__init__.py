"""The target that runs no model: what it measures is the harness's own overhead."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from harness.api import TargetSpec, hookimpl
from harness_null.target import SPEC


@hookimpl
def harness_targets() -> Iterable[TargetSpec[Any]]:
    """Offer the target ``null``."""
    return (SPEC,)
