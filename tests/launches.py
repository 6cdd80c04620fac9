"""Launch-sets made from numbers, for tests of the statistics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from harness.types import SCHEMA, Batch, Launch, LaunchSet, Noise

QUIET = Noise(1.0, 0.0, 0.0, 100.0, 100.0, 0.0, 0.0, 0.0, 0, 0, "ok")


def launch(cell_id: str, index: int, rounds: Sequence[Sequence[int]], *, noise: Noise = QUIET, **changes) -> Launch:
    batches = tuple(
        Batch(number, 0, tuple(int(ns) for ns in values), int(sum(values)), int(sum(values)), 0, 0, 0)
        for number, values in enumerate(rounds)
    )
    known = {"steady": True, "inner_loops": 1, "discarded": None, "batch_size": 1} | changes
    return Launch(
        cell_id, index, 0, 1, 20, 30, 10, 10, known["steady"], known["inner_loops"], (0,), "1", batches, noise,
        known["discarded"], known["batch_size"], ready_ns=10,
    )  # fmt: skip


def launch_set(
    index: int, cells: Mapping[str, Sequence[Sequence[int]]], anchor: str | None = "a", **changes
) -> LaunchSet:
    launches = tuple(launch(cell_id, index, rounds, **changes) for cell_id, rounds in cells.items())
    return LaunchSet(SCHEMA, "g", index, "variants", anchor, tuple(cells), "2026-01-01T00:00:00", 1.0, launches)
