"""Results as one pandas table, for notebooks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import PlanError
from harness.leaderboard import COLUMNS, table
from harness.store import find_runs, load_run

if TYPE_CHECKING:
    import os

    import pandas as pd


def load_results(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Return one row for each cell of the runs at or below ``path``.

    The columns are those of ``docs/columns.md``, in base units: nanoseconds, bytes, shares 0..1. ``attrs["units"]``
    and ``attrs["meanings"]`` hold them by column, ``attrs["problems"]`` the files that could not be read, each with
    the reason, ``attrs["notes"]`` what to know before reading. What is not known is NA.

    Args:
        path: A run, a host's folder, or a tree such as ``results``.

    Raises:
        PlanError: There is no run.
    """
    folders = find_runs(Path(path)) if Path(path).exists() else ()
    if not folders:
        raise PlanError(f"there is no run at {path}", hint="a run is a folder such as results/<host>/<run>")
    frame = table([load_run(folder) for folder in folders])
    frame.attrs |= {
        "units": {column.name: column.unit for column in COLUMNS},
        "meanings": {column.name: column.meaning for column in COLUMNS},
    }
    return frame
