"""Which percentile a sample can carry: the early-stopping rule of MLPerf LoadGen (MEASUREMENT 1.6).

With tolerance d = 0 and confidence c, t queries over the latency bound are allowed among q when
P(Binomial(q, 1 - p) <= t) <= 1 - c. At least one has to be allowed; then the estimate discards the t - 1 worst
queries and reports the next worst.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

CONFIDENCE = 0.99


def _at_most(over: int, queries: int, share: float) -> float:
    """Return P(Binomial(queries, share) <= over), summed in logarithms so that large counts do not underflow."""
    terms = (
        math.lgamma(queries + 1) - math.lgamma(k + 1) - math.lgamma(queries - k + 1)
        + k * math.log(share) + (queries - k) * math.log1p(-share)
        for k in range(over + 1)
    )  # fmt: skip
    return math.fsum(math.exp(term) for term in terms)


def allowed_over(percentile: float, queries: int, confidence: float = CONFIDENCE) -> int:
    """Return the largest t of the rule above, 0 where none is allowed."""
    over = 0
    while over + 1 < queries and _at_most(over + 1, queries, 1 - percentile) <= 1 - confidence:
        over += 1
    return over


def percentile_support(percentile: float, confidence: float = CONFIDENCE) -> int:
    """Return the least number of pooled samples that can carry a percentile.

    p50 11, p90 64, p95 130, p97 219, p99 662, p99.9 6 636 at 99 % confidence.
    """
    high = 2
    while _at_most(1, high, 1 - percentile) > 1 - confidence:
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        if _at_most(1, middle, 1 - percentile) <= 1 - confidence:
            high = middle
        else:
            low = middle
    return high


def percentile_estimate(values: Sequence[float], percentile: float, confidence: float = CONFIDENCE) -> float | None:
    """Return LoadGen's early-stopping estimate of a percentile, ``None`` without the samples that it needs."""
    over = allowed_over(percentile, len(values), confidence)
    return sorted(values)[-over] if over else None
