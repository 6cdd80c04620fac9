"""harness_onnx."""

from __future__ import annotations
