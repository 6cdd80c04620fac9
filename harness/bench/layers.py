"""Where in its network a cell's compression does its damage, against its anchor."""

from __future__ import annotations

import time
from dataclasses import dataclass

from harness.measure import Member
from harness.measure.layers import ITEMS, measure_layers
from harness.plan import Request
from harness.types import Artifact, Layers


@dataclass(frozen=True)
class LayersPart:
    """The finished comparison of a cell's operators with its anchor's."""

    layers: Layers
    seconds: float = 0.0


def compare_layers(member: Member, anchor: Artifact, request: Request) -> LayersPart:
    """Run a cell and its anchor on the same test items, in a process of their own."""
    started = time.monotonic()
    found = measure_layers(
        member,
        anchor,
        items=ITEMS[request.profile],
        timeout_s=request.timeout_s,
        memory_limit_bytes=request.memory_limit_bytes,
    )
    return LayersPart(found, time.monotonic() - started)
