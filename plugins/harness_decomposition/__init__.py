"""Decomposition and restructuring: layers replaced by smaller ones that compute the same, or nearly."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from harness.api import Asked, MethodSpec, NoParams, hookimpl
from harness_decomposition import convolutions, folding, lowrank, ranks, splitting

_BEFORE = frozenset({"quantization", "binarization"})  # which would be undone by layers made anew


def _training(params: Any) -> frozenset[str]:
    return frozenset({"training"}) if params.epochs else frozenset()


@hookimpl
def harness_methods() -> Iterator[MethodSpec[Any]]:
    """Offer ``low-rank``, ``tucker``, ``cp``, ``batchnorm-folding`` and ``split``."""
    offers: tuple[tuple[str, str, Any, Any, Any, Any], ...] = (
        (
            "low-rank",
            "matrices of linear and recurrent layers as products of two thin ones",
            ranks.RankParams,
            lowrank.compress,
            ranks.check,
            ranks.asks,
        ),
        (
            "tucker",
            "convolutions as a 1x1, a smaller core and a 1x1 (Tucker-2)",
            ranks.RankParams,
            convolutions.compress_tucker,
            ranks.check,
            ranks.asks,
        ),
        (
            "cp",
            "convolutions as a 1x1, a depthwise one and a 1x1 (CP)",
            convolutions.CpParams,
            convolutions.compress_cp,
            convolutions.check_cp,
            convolutions.asks_cp,
        ),
    )
    for name, summary, params, compress, check, asks in offers:
        yield MethodSpec(
            name=name,
            techniques=("decomposition",),
            family="decomposition",
            summary=summary,
            params=params,
            compress=compress,
            check=check,
            asks=asks,
            needs=_training,
            reads=frozenset({"channel_multiple"}),
            before=_BEFORE,
            conflicts=frozenset({"none"}),
            defaults=(),
        )
    yield MethodSpec(
        name="batchnorm-folding",
        techniques=("restructuring",),
        family="decomposition",
        summary="batch normalisation folded into the layer before it",
        params=NoParams,
        exact=True,
        compress=folding.compress,
        before=_BEFORE,
        conflicts=frozenset({"none"}),
        defaults=(),
    )
    yield MethodSpec(
        name="split",
        techniques=("restructuring",),
        family="restructuring",
        summary="a network cut into parts that run one after another, each timed alone",
        params=splitting.SplitParams,
        asks=lambda params: Asked(f"{params.parts} parts"),
        exact=True,
        compress=splitting.compress,
        after=frozenset({"pruning", "quantization", "binarization", "distillation", "decomposition"}),
        conflicts=frozenset({"none", "split"}),
        changes=frozenset({"parts"}),
        defaults=(),
    )
