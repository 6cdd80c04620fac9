"""Pruning: single weights set to zero, or whole channels, filters, units and attention heads taken out."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from harness.api import MethodSpec, hookimpl
from harness_pruning import channels, clipping, heads, magnitude, nm

# what changes the weights anew would undo zeros and limits, so it comes before
_REMAKERS = frozenset({
    "channel-pruning", "filter-pruning", "unit-pruning", "head-pruning", "distillation", "decomposition",
})  # fmt: skip
_ZEROS = frozenset({"magnitude-pruning", "n-m-pruning"})


def _training(params: Any) -> frozenset[str]:
    trains = getattr(params, "trains", params.epochs > 0)
    importance = getattr(params, "importance", "")
    return frozenset({"training"}) if trains or importance in {"taylor", "gradient", "snr"} else frozenset()


_TECHNIQUES = {
    "channel-pruning": (
        "channel pruning",
        "gradient importance:importance=gradient",
        "gradient importance:importance=taylor",
        "fine-tuning after pruning",
    ),
    "filter-pruning": (
        "filter pruning",
        "gradient importance:importance=gradient",
        "gradient importance:importance=taylor",
        "fine-tuning after pruning",
    ),
    "unit-pruning": (
        "unit pruning",
        "gradient importance:importance=gradient",
        "gradient importance:importance=taylor",
        "fine-tuning after pruning",
    ),
    "head-pruning": ("unit pruning", "fine-tuning after pruning"),
}


_PRUNED = {
    "channel-pruning": "channels",
    "filter-pruning": "filters",
    "unit-pruning": "units",
    "head-pruning": "heads",
}


@hookimpl
def harness_methods() -> Iterator[MethodSpec[Any]]:
    """Offer the methods that zero weights, and those that remove channels."""
    yield from _zeros()
    yield from _structured()


def _zeros() -> Iterator[MethodSpec[Any]]:
    yield MethodSpec(
        name="magnitude-pruning",
        techniques=(
            "magnitude pruning by threshold:threshold",
            "magnitude pruning by ratio",
            "gradual pruning:schedule=gradual",
            "fine-tuning after pruning",
        ),
        family="pruning",
        summary="the smallest weights set to zero, the rest fine-tuned around them",
        params=magnitude.Params,
        compress=magnitude.compress,
        check=magnitude.check,
        asks=magnitude.asks,
        needs=_training,
        after=_REMAKERS,
        conflicts=frozenset({"none", "binarization", "n-m-pruning"}),
    )
    yield MethodSpec(
        name="n-m-pruning",
        techniques=("N:M sparsity", "fine-tuning after pruning"),
        family="pruning",
        summary="N of every M weights kept (2:4), the rest zero, fine-tuned",
        params=nm.Params,
        compress=nm.compress,
        check=nm.check,
        asks=nm.asks,
        needs=_training,
        after=_REMAKERS,
        conflicts=frozenset({"none", "binarization", "magnitude-pruning"}),
        defaults=(),
    )
    yield MethodSpec(
        name="weight-clipping",
        techniques=("weight clipping",),
        family="pruning",
        summary="weights clamped to a narrower range, for a quantizer that follows",
        params=clipping.Params,
        compress=clipping.compress,
        check=clipping.check,
        needs=_training,
        after=_REMAKERS | _ZEROS,
        before=frozenset({"quantization"}),
        conflicts=frozenset({"none", "binarization"}),
        defaults=(),
        changes=frozenset({"weights"}),
    )


def _structured() -> Iterator[MethodSpec[Any]]:
    offers: tuple[tuple[str, str, Any], ...] = (
        (
            "channel-pruning",
            "whole channels removed, rounded to full vectors, fine-tuned",
            partial(channels.compress, channels.CHANNELS),
        ),
        (
            "filter-pruning",
            "whole filters of convolutions removed, ranked by themselves",
            partial(channels.compress, channels.FILTERS),
        ),
        (
            "unit-pruning",
            "whole units of linear and recurrent layers removed",
            partial(channels.compress, channels.UNITS),
        ),
        ("head-pruning", "whole attention heads removed, fine-tuned", heads.compress),
    )
    for name, summary, compress in offers:
        yield MethodSpec(
            name=name,
            techniques=_TECHNIQUES[name],
            family="pruning",
            summary=summary,
            params=channels.Params,
            compress=compress,
            check=channels.check,
            asks=partial(channels.asks, _PRUNED[name]),
            needs=_training,
            reads=frozenset({"channel_multiple"}),
            before=frozenset({"quantization", "binarization"}),
            control={"importance": "random"},
            conflicts=frozenset({"none"}),
            defaults=None if name == "channel-pruning" else (),
        )
