"""harness_pruning."""

from __future__ import annotations
