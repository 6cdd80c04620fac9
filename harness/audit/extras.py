"""Demands on what a record says of agreement, calibration and robustness: recomputed from its per-item statistics."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from harness import codec
from harness.audit.launches import Breach
from harness.bench.quality import AGREEMENT, CONFIDENCE
from harness.bench.robust import CORRUPTED, picked_items
from harness.errors import RecordError
from harness.stats import agreement_intervals
from harness.stats.confidence import confidence
from harness.stats.robustness import robustness
from harness.store.layout import extra_scores
from harness.store.verify import differences

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from harness.store import Run
    from harness.types import Record


def breaches(run: Run, record: Record) -> Iterator[Breach]:
    """Yield what a record's agreement, confidence and robustness break."""
    try:
        yield from _agreement(run, record)
        yield from _confidence(run, record)
        yield from _robustness(run, record)
    except RecordError:
        return  # told by the check of the files


def _seed(run: Run) -> int:
    return run.info.seed if run.info is not None else 0


def _pair(run: Run, record: Record, name: str) -> tuple[NDArray[Any] | None, NDArray[Any] | None]:
    ours = run.scores(extra_scores(record.cell_id, name) if name else record.cell_id)
    other = record.anchor if record.anchor != record.cell_id else None
    theirs = None if other is None else run.scores(extra_scores(other, name) if name else other)
    return ours, theirs


def _agreement(run: Run, record: Record) -> Iterator[Breach]:
    quality = record.quality
    if quality is None:
        return
    ours = run.scores(extra_scores(record.cell_id, AGREEMENT))
    if ours is None:
        if quality.agreement:
            yield "agreement", "its per-item statistics are missing"
        return  # written before there were intervals
    again = agreement_intervals(ours)
    yield from (("agreement", where) for where in differences(codec.to_data(quality.agreement), codec.to_data(again)))
    points = {name: quality.fidelity.get(name) for name in again}
    due = {name: interval.point for name, interval in again.items()}
    yield from (("agreement", where) for where in differences(points, due, "fidelity"))


def _confidence(run: Run, record: Record) -> Iterator[Breach]:
    stored = record.confidence
    if stored is None:
        return
    ours, theirs = _pair(run, record, CONFIDENCE)
    if ours is None:
        yield "confidence", "its per-item statistics are missing"
        return
    again = confidence(ours, theirs, how=stored.probabilities, seed=_seed(run))
    for where in differences(codec.to_data(stored), codec.to_data(again)):
        yield "confidence", where


def _robustness(run: Run, record: Record) -> Iterator[Breach]:
    """Recompute shares of right items; other metrics need the workload's own aggregate."""
    stored, quality = record.robustness, record.quality
    if stored is None or stored.value is None or quality is None or quality.value is None:
        return
    flat, other = _pair(run, record, CORRUPTED)
    if flat is None or len(flat) != len(stored.corrupted) * stored.items:
        yield "robustness", "its per-item statistics are missing, or of another number of items"
        return
    if quality.value.method != "Wilson":
        return
    shape = (len(stored.corrupted), stored.items, -1)
    theirs = None if other is None or other.shape != flat.shape else other.reshape(shape)
    mine, clean = _pair(run, record, "")
    picked = picked_items(quality.items, record.profile, _seed(run))
    both = None
    if theirs is not None and mine is not None and clean is not None:
        both = (mine[picked].reshape(len(picked), -1), clean[picked].reshape(len(picked), -1))
    scale = 100.0 if quality.value.point > 1 else 1.0
    names = tuple(stored.corrupted)
    again = robustness(
        names,
        flat.reshape(shape),
        theirs,
        both,
        aggregate=lambda scores: float(np.mean(np.asarray(scores)[:, 0] > 0.5)) * scale,
        interval="wilson",
        seed=_seed(run),
    )
    for where in differences(codec.to_data(stored), codec.to_data(again)):
        yield "robustness", where
