"""harness_quantization."""

from __future__ import annotations
