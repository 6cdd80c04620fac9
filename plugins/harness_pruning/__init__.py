"""Pruning: single weights set to zero, or whole channels taken out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from harness.api import MethodSpec, hookimpl
from harness_pruning import channels, magnitude


@hookimpl
def harness_methods() -> Iterator[MethodSpec[Any]]:
    """Offer ``magnitude-pruning`` and ``channel-pruning``."""
    yield MethodSpec(
        name="magnitude-pruning",
        family="pruning",
        summary="the smallest weights set to zero, the rest fine-tuned around them",
        params=magnitude.Params,
        compress=magnitude.compress,
        needs=frozenset({"training"}),
        # what changes the weights anew would fill the zeros again, so it comes before
        after=frozenset({"channel-pruning", "distillation", "decomposition"}),
        conflicts=frozenset({"none", "binarization"}),
    )
    yield MethodSpec(
        name="channel-pruning",
        family="pruning",
        summary="whole channels removed, rounded to full vectors, fine-tuned",
        params=channels.Params,
        compress=channels.compress,
        needs=frozenset({"training"}),
        reads=frozenset({"channel_multiple"}),
        conflicts=frozenset({"none"}),
    )
