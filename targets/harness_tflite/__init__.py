"""harness_tflite."""

from __future__ import annotations
