"""Run the whole way: probe, plan, build, measure, and write a record for every cell."""

from __future__ import annotations

from harness.bench.run import RunResult, run
from harness.bench.ui import Silent, Ui

__all__ = ["RunResult", "Silent", "Ui", "run"]
