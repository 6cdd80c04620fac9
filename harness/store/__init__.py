"""Results on disk: written whole, hash-chained, resumable, and read back with every problem named."""

from __future__ import annotations

from harness.store.layout import RunInfo, host_folder, make_run_id, set_name
from harness.store.load import Problem, Run, find_runs, load_run
from harness.store.resume import find_resumable, open_run
from harness.store.run import RunStore
from harness.store.verify import verify_loaded, verify_run

__all__ = [
    "Problem",
    "Run",
    "RunInfo",
    "RunStore",
    "find_resumable",
    "find_runs",
    "host_folder",
    "load_run",
    "make_run_id",
    "open_run",
    "set_name",
    "verify_loaded",
    "verify_run",
]
