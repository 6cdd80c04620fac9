"""In which order members run, so that a linear drift of the host cancels between them."""

from __future__ import annotations

import random
from collections.abc import Sequence


def generator(seed: int, *words: object) -> random.Random:
    """Return a random generator of its own for each purpose, equal for equal arguments."""
    return random.Random(":".join(map(str, (seed, *words))))  # noqa: S311  a seeded order, no secret


def schedule(members: Sequence[str], rounds: int, chance: random.Random) -> tuple[tuple[str, ...], ...]:
    """Return the running order of each round.

    Two members alternate ABBA or BAAB. More run in randomly drawn cyclic Latin squares: in each block of
    ``len(members)`` rounds everyone stands once in every position; a last block may be incomplete.
    """
    if len(members) == 2:
        return _pairs((members[0], members[1]), rounds, chance)
    order: list[tuple[str, ...]] = []
    while members and len(order) < rounds:
        base = chance.sample(list(members), len(members))
        shifts = chance.sample(range(len(base)), len(base))
        order.extend(tuple(base[shift:] + base[:shift]) for shift in shifts)
    return tuple(order[:rounds])


def _pairs(pair: tuple[str, str], rounds: int, chance: random.Random) -> tuple[tuple[str, ...], ...]:
    order: list[tuple[str, ...]] = []
    while len(order) < rounds:
        first = pair if chance.random() < 0.5 else pair[::-1]
        order += [first, first[::-1]]
    return tuple(order[:rounds])
