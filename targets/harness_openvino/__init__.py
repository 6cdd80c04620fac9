"""harness_openvino."""

from __future__ import annotations
