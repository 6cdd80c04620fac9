"""harness_null."""

from __future__ import annotations
