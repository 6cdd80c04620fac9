"""harness_workloads."""

from __future__ import annotations
