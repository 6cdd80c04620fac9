"""harness_tensorrt."""

from __future__ import annotations
