"""harness_torch."""

from __future__ import annotations
