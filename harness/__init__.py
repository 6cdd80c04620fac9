"""Benchmark model-compression methods across inference runtimes, with numbers that can be trusted."""

from __future__ import annotations

__version__ = "0.1.0"
