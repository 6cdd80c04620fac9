"""How far each operator's output is from the anchor's: both files in one process, nothing timed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from harness import codec
from harness.errors import HarnessError
from harness.feeds import with_roles
from harness.measure.inputs import batch_of, count_items, open_items, take
from harness.measure.member import Member, Setup
from harness.measure.process import WorkerLost, worker_of
from harness.specs import LayerOutput, Session, SupportsLayers
from harness.stats.fidelity import decibel
from harness.types import Artifact, LayerDamage, Layers, TensorSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray

ITEMS = {"quick": 128, "standard": 512, "publish": 512}


@dataclass
class _Sums:
    op: str
    signal: float = 0.0
    noise: float = 0.0


def measure_layers(
    member: Member, anchor: Artifact, *, items: int, timeout_s: float, memory_limit_bytes: int | None = None
) -> Layers:
    """Compare a cell's operators with its anchor's; what goes wrong is the reason, and costs nothing else.

    Args:
        member: The cell; its batch is that of a call.
        anchor: The artifact that it is compared with, of the same target and options.
        items: Test items, at most.
        timeout_s: For all of it.
        memory_limit_bytes: RLIMIT_DATA of the process.
    """
    setup = Setup(member, "accuracy", "accuracy", 0, (), memory_limit_bytes)
    try:
        with worker_of(member, "accuracy", timeout_s) as worker:
            worker.greet()
            worker.ask("configure", setup=codec.to_data(setup))
            reply = worker.ask("layers", anchor=codec.to_data(anchor), items=items)
    except WorkerLost as lost:
        return Layers(reason=f"{lost.failure.status}: {lost.failure.reason}")
    return codec.from_data(Layers, reply["layers"], where="layers")


def compared(
    session: Session,
    anchor: Session,
    evaluation: Path,
    *,
    target: str,
    batch: int,
    items: int,
    declared: Mapping[str, TensorSpec] = MappingProxyType({}),
) -> Layers:
    """Run the same items through both sessions and add up signal and noise of each operator that both have.

    Args:
        session: Open.
        anchor: Open, of the same target.
        evaluation: Folder of the items.
        target: Its name, for the reason.
        batch: Items of a call, where the sessions take any number.
        items: How many, at most; a short last batch is left out.
        declared: The model's inputs, with their roles; states are not carried from call to call.

    Raises:
        Unsupported: The session cannot tell what the operators of this file give.
    """
    if not isinstance(session, SupportsLayers) or not isinstance(anchor, SupportsLayers):
        return Layers(reason=f"target {target!r} does not tell what its operators give")
    specs = with_roles(session.inputs, declared)
    arrays = open_items(evaluation, specs)
    total, size = min(items, count_items(specs, arrays)), batch_of(specs, batch)
    others = with_roles(anchor.inputs, declared)
    if batch_of(others, batch) != size:
        raise HarnessError("the anchor takes another batch")
    sums: dict[str, _Sums] = {}
    names: set[str] = set()
    starts = range(0, max(total - size, 0) + 1, size)
    for start in starts:
        which = [min(start + step, total - 1) for step in range(size)]
        theirs = {item.name: item.values for item in anchor.layers(take(arrays, others, which))}
        names.update(theirs)
        for item in session.layers(take(arrays, specs, which)):
            _add(sums, item, theirs)
    damage = [
        LayerDamage(name, found.op, place, decibel(found.signal, found.noise))
        for place, (name, found) in enumerate(sums.items(), start=1)
    ]
    return Layers(
        items=min(total, len(starts) * size),
        outputs=tuple(sorted(damage, key=lambda item: (item.sqnr_db, item.place))),
        unmatched=len(names - set(sums)),
    )


def _add(sums: dict[str, _Sums], item: LayerOutput, anchor: Mapping[str, NDArray[Any]]) -> None:
    other = anchor.get(item.name)
    if other is None or np.shape(other) != np.shape(item.values):
        return
    ours, theirs = np.asarray(item.values, dtype=np.float64), np.asarray(other, dtype=np.float64)
    found = sums.setdefault(item.name, _Sums(item.op))
    found.signal += float(np.sum(theirs**2))
    with np.errstate(invalid="ignore"):  # infinity less infinity: not finite, which is said
        noise = float(np.sum((ours - theirs) ** 2))
    found.noise += noise if math.isfinite(noise) else math.inf
