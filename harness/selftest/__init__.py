"""The harness measures itself: targets of known truth, disturbances made on purpose, and the vendors' own tools."""

from __future__ import annotations

from harness.selftest.run import GROUPS, run_selftest
from harness.selftest.runtimes import BugRow, RuntimesReport, run_runtimes
from harness.selftest.values import Line, Report

__all__ = ["GROUPS", "BugRow", "Line", "Report", "RuntimesReport", "run_runtimes", "run_selftest"]
