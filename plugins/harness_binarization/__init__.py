"""harness_binarization."""

from __future__ import annotations
