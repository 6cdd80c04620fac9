"""Where a process of ours imports from: what the parent can import, every builder and worker of its interpreter can."""

from __future__ import annotations

import os
import sys

VARIABLE = "HARNESS_IMPORTS"


def told(python: str | None) -> dict[str, str]:
    """Return what tells a new process where this one imports from; nothing to another interpreter, which has its own.

    Args:
        python: The interpreter as given; ``None`` for this one.
    """
    if python is not None:
        return {}
    return {VARIABLE: os.pathsep.join(os.path.abspath(entry) for entry in sys.path)}  # noqa: PTH100  links stay links


def take() -> None:
    """Import from where the parent does, in its order, and then from where this process would."""
    given = [entry for entry in os.environ.get(VARIABLE, "").split(os.pathsep) if entry]
    sys.path[:] = [*given, *(entry for entry in sys.path if entry not in given)]
