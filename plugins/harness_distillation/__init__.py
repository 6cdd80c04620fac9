"""harness_distillation."""

from __future__ import annotations
