"""harness_onnxruntime."""

from __future__ import annotations
