"""Evidence about one cell in one file, and whether it reproduces here."""

from __future__ import annotations

from harness.bundle.judge import judge
from harness.bundle.read import BundleReader, Opened, open_bundle
from harness.bundle.render import markdown
from harness.bundle.reproduce import reproduce
from harness.bundle.values import BundleInfo, Check, Reproduction, title
from harness.bundle.write import find_cell, write_bundle

__all__ = [
    "BundleInfo",
    "BundleReader",
    "Check",
    "Opened",
    "Reproduction",
    "find_cell",
    "judge",
    "markdown",
    "open_bundle",
    "reproduce",
    "title",
    "write_bundle",
]
