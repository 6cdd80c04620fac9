"""What a comparison comes to: frozen values, JSON out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from harness.types import Interval

Metric = Literal["latency", "accuracy", "memory", "size"]
Word = Literal[
    "slower", "faster", "worse", "better", "more", "less", "equivalent", "unresolved", "yardstick", "not compared"
]
Basis = Literal["same sets", "anchor", "link", "absolute"]


@dataclass(frozen=True)
class Change:
    """One metric of one cell, B against A.

    Attributes:
        metric: "latency", "memory" and "size" change by a share of A (0.1 is 10 % more); "accuracy" in points of
            the metric's unit, where positive is better whatever the metric's direction.
        change: With its simultaneous interval; the bounds are ``None`` where the evidence cannot carry them.
        word: The verdict.
        reason: Why it is not clearer.
    """

    metric: Metric
    change: Interval
    word: Word
    unit: str
    a: float | None = None
    b: float | None = None
    basis: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Pair:
    """One cell on both sides.

    Attributes:
        name: Readable: workload, method, target, options.
        refused: Why the two are not compared; then there are no changes.
        lost: It has figures in A and none in B.
        notes: What to know before reading the changes.
    """

    name: str
    a_cell: str
    b_cell: str
    refused: str = ""
    lost: bool = False
    changes: Mapping[str, Change] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Ruled:
    """What one ``--fail-if`` rule says of one cell."""

    rule: str
    name: str
    outcome: Literal["fail", "pass", "unresolved", "not judged"]
    reason: str


@dataclass(frozen=True)
class Comparison:
    """All cells of A and B.

    Attributes:
        mode: "two runs on one host", "two hosts" or "two selections".
        pairing: "same-model", "same-recipe" or "chosen" (methods or targets, which differ by design).
        level: Of the simultaneous intervals of a metric over all compared cells.
        problems: Files of the runs that could not be read.
    """

    schema: int
    a: str
    b: str
    mode: str
    pairing: str
    level: float
    margin: float
    compared: int
    pairs: tuple[Pair, ...]
    notes: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    ruled: tuple[Ruled, ...] = ()
