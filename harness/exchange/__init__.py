"""Results for other tools: notebooks, pytest-benchmark, MLPerf's checker, and an index of large trees."""

from __future__ import annotations

from harness.exchange.frame import load_results
from harness.exchange.mlperf import system_description
from harness.exchange.pytest_benchmark import benchmark_json

__all__ = ["benchmark_json", "load_results", "system_description"]
