"""What a run must satisfy before its numbers may be published: each demand by name, each breach with its file."""

from __future__ import annotations

from harness.audit.audit import audit
from harness.audit.demands import DEMANDS

__all__ = ["DEMANDS", "audit"]
