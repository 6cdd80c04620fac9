"""One self-contained HTML file from one or more runs: opens offline, and answers before it explains."""

from __future__ import annotations

from harness.report.page import report

__all__ = ["report"]
