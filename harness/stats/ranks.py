"""Rank sets: the ranks that the evidence allows each entry, held for all of them at once (MEASUREMENT 1.7).

The replicate is the launch-set. Under "these two do not differ" the difference of a pair is as likely to have one sign
as the other in each set, and so is the vector of all differences: turning the signs of whole sets gives the exact
joint distribution, however few sets there are. The largest studentised difference over all pairs then bounds the
chance of any false order (max-t, Westfall and Young 1993). The bootstrap over sets, which is the usual way to that
distribution, is far off with 6 to 15 sets: of ten copies of one thing it orders some in 24 to 83 % of runs.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.stats.order import LEVEL

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

FEWEST = 6  # sets of a pair: under it no order can be shown at 95 %
_EXACT = 12  # sets up to which every sign pattern is taken, else a sample of them
_PATTERNS = 2048
_AT_ONCE = 128  # sign patterns that are in memory together


def certainly_less(values: Array, *, level: float = LEVEL, seed: int = 0) -> Array:
    """Tell which entries are lower than which others, with simultaneous error control over all pairs.

    Args:
        values: [sets, entries], such as log-ratios to a common anchor; NaN where an entry was not in a set.
        level: Chance, at least, that no order is claimed between two entries that do not differ.
        seed: Of the sampled sign patterns; up to 12 sets take all of them.

    Returns:
        bool [entries, entries]: row is certainly lower than column.
    """
    entries = values.shape[1] if values.ndim == 2 else 0
    found = np.zeros((entries, entries), dtype=bool)
    first, second = np.triu_indices(entries, 1)
    if not len(first):
        return found
    pairs = values[:, first] - values[:, second]
    enough = np.sum(np.isfinite(pairs), axis=0) >= FEWEST
    first, second, pairs = first[enough], second[enough], pairs[:, enough]
    if not len(first):
        return found
    means, certain = _max_t(pairs, level, seed)
    lower = certain & (means < 0)
    found[first[lower], second[lower]] = True
    higher = certain & (means > 0)
    found[second[higher], first[higher]] = True
    return found


def _max_t(pairs: Array, level: float, seed: int) -> tuple[Array, Array]:
    """Return the mean of each pair, and whether its |t| exceeds the critical value for all pairs together."""
    filled = np.where(np.isfinite(pairs), pairs, 0.0)
    counts = np.sum(np.isfinite(pairs), axis=0)
    squares = (filled**2).sum(axis=0) / counts
    largest: list[float] = []
    total = 0
    for signs in _signs(len(pairs), seed):
        largest += _t(signs @ filled / counts, squares, counts).max(axis=1).tolist()
        total += len(signs)
    means = filled.sum(axis=0) / counts
    allowed = int((1 - level) * total + 1e-9)
    if not allowed:
        return means, np.zeros(len(means), dtype=bool)
    critical = sorted(largest, reverse=True)[allowed]
    own = _t(means[None], squares, counts)[0]
    return means, own > critical * (1 + 1e-9)


def _t(means: Array, squares: Array, counts: Array) -> Array:
    """Return |t| of [patterns, pairs]; no difference at all is 0, one without any spread is infinite."""
    spread = np.maximum(squares - means**2, 0) * counts / (counts - 1)
    tiny = 1e-12 * squares  # what rounding leaves of a spread of nothing
    with np.errstate(divide="ignore", invalid="ignore"):
        found = np.abs(means) / np.sqrt(np.where(spread > tiny, spread, 0) / counts)
    return np.where(means == 0, 0.0, found)


def _signs(sets: int, seed: int) -> Iterator[Array]:
    """Yield sign patterns [patterns, sets], the observed one first; the first set keeps its sign, as |t| is even."""
    if sets <= _EXACT:
        patterns: Iterator[tuple[float, ...]] = itertools.product((1.0, -1.0), repeat=sets - 1)
        while block := list(itertools.islice(patterns, _AT_ONCE)):
            yield np.hstack([np.ones((len(block), 1)), np.array(block).reshape(len(block), sets - 1)])
        return
    chance = np.random.default_rng(seed)
    for at in range(0, _PATTERNS, _AT_ONCE):
        block_signs = chance.choice([1.0, -1.0], size=(_AT_ONCE, sets))
        if at == 0:
            block_signs[0] = 1.0
        yield block_signs


def rank_sets(less: Array) -> list[tuple[int, int]]:
    """Return the best and the worst rank that each entry can have (Mogstad, Romano, Shaikh and Wilhelm 2024).

    Args:
        less: bool [entries, entries]: row is certainly better than column.

    Returns:
        Per entry 1 + how many are certainly better, and all less how many are certainly worse.
    """
    better, worse = less.sum(axis=0), less.sum(axis=1)
    return [(1 + int(above), len(less) - int(below)) for above, below in zip(better, worse, strict=True)]
