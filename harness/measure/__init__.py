"""The measure plane: fresh workers, launch-sets, latency, memory, noise and the host's fingerprint.

Names are loaded when they are first used: a worker imports modules of this package and must stay lean.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.measure.calm import Window, wait_calm
    from harness.measure.host import Fingerprint, fingerprint
    from harness.measure.member import Member
    from harness.measure.memory import measure_memory
    from harness.measure.sets import run_set
    from harness.measure.untimed import Untimed, run_untimed

_HOMES = {
    "Fingerprint": "host",
    "Member": "member",
    "Untimed": "untimed",
    "fingerprint": "host",
    "Window": "calm",
    "measure_memory": "memory",
    "run_set": "sets",
    "run_untimed": "untimed",
    "wait_calm": "calm",
}

__all__ = [
    "Fingerprint",
    "Member",
    "Untimed",
    "Window",
    "fingerprint",
    "measure_memory",
    "run_set",
    "run_untimed",
    "wait_calm",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
