"""Benchmark model-compression methods across inference runtimes, with numbers that can be trusted."""

from __future__ import annotations

__version__ = "0.1.0"

TYPE_CHECKING = False  # without importing typing: 'import harness' loads nothing else
if TYPE_CHECKING:
    import os

    import pandas as pd


def load_results(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Return the runs at or below ``path`` as one table, a row for each cell; ``docs/columns.md`` names the columns.

    Raises:
        PlanError: There is no run.
    """
    from importlib import import_module  # by name: the package's front door stands on none of its rooms

    found: pd.DataFrame = import_module("harness.exchange").load_results(path)
    return found
