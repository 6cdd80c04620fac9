"""The conformance kit: what a plugin author's own tests call, and what ``harness plugins check`` runs.

Typical use, in a test of a plugin::

    from harness.testing import check_method

    def test_it_conforms() -> None:
        check_method("zeros").raise_failures()
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.testing.api import (
        check_exporter,
        check_method,
        check_oracle,
        check_plugin,
        check_target,
        check_workload,
        offers,
    )
    from harness.testing.bench import Settings
    from harness.testing.catalogue import CHECKS
    from harness.testing.golden import golden_results
    from harness.testing.results import Report, Result

_HOMES = {
    "CHECKS": "catalogue",
    "Report": "results",
    "Result": "results",
    "Settings": "bench",
    "check_exporter": "api",
    "check_method": "api",
    "check_oracle": "api",
    "check_plugin": "api",
    "check_target": "api",
    "check_workload": "api",
    "golden_results": "golden",
    "offers": "api",
}

__all__ = [
    "CHECKS",
    "Report",
    "Result",
    "Settings",
    "check_exporter",
    "check_method",
    "check_oracle",
    "check_plugin",
    "check_target",
    "check_workload",
    "golden_results",
    "offers",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
