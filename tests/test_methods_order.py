"""Which methods may stand in one pipeline, and in which order: what the specs declare, as the plan reads it."""

from __future__ import annotations

import pytest

from harness.api import PlanError
from harness.grammar import parse_pipeline
from harness.plan.resolve import pipeline
from harness.plugins import Registry, load_registry


@pytest.fixture(scope="module")
def registry() -> Registry:
    names = {"baseline", "quantization", "pruning", "binarization", "decomposition", "distillation"}
    return load_registry(only=names)


@pytest.mark.parametrize(
    "text",
    [
        "distillation+int8",
        "channel-pruning:ratio=0.5+int8",
        "channel-pruning+distillation:T=2+int8",
        "distillation+channel-pruning",
        "distillation+magnitude-pruning+fp16",
        "channel-pruning+magnitude-pruning+dynamic-int8",
        "distillation+binarization+int8",
        "channel-pruning+feature-distillation+int8",
        "progressive-distillation+channel-pruning+int8",
        "multi-teacher-distillation+fp16",
        "head-pruning+channel-pruning+n-m-pruning+int8",
        "magnitude-pruning+weight-clipping:limit=mse+int8",
        "filter-pruning+low-rank+tucker+batchnorm-folding+int8",
        "low-rank+distillation",
    ],
)
def test_legal_chains(text: str, registry: Registry) -> None:
    assert pipeline(registry, parse_pipeline(text))


@pytest.mark.parametrize(
    "text",
    [
        "int8+distillation",
        "int8+channel-pruning",
        "fp16+binarization",
        "magnitude-pruning+distillation",
        "magnitude-pruning+channel-pruning",
        "binarization+distillation",
        "int8+feature-distillation",
        "magnitude-pruning+progressive-distillation",
        "binarization+multi-teacher-distillation",
        "multi-teacher-distillation+baseline",
        "binarization+channel-pruning",
        "magnitude-pruning+binarization",
        "magnitude-pruning+n-m-pruning",
        "magnitude-pruning+low-rank",
        "weight-clipping+magnitude-pruning",
        "int8+weight-clipping",
        "int8+low-rank",
        "int8+batchnorm-folding",
        "binarization+filter-pruning",
        "binarization+tucker",
        "int8+fp16",
        "int8+dynamic-int8",
        "baseline+int8",
        "distillation+baseline",
    ],
)
def test_chains_that_would_undo_a_step_are_refused(text: str, registry: Registry) -> None:
    with pytest.raises(PlanError):
        pipeline(registry, parse_pipeline(text))
