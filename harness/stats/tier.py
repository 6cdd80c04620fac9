"""What kind of host this is, from how its canary ran: may absolute latencies be ranked? (MEASUREMENT 1.8)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

ENOUGH = 100
CLEAN_SHARE = 0.95
SLOW = 0.90  # of the clean mode
BIMODAL = 0.05  # share of slow probes

Tier = Literal["T1", "T2"]


def host_tier(rates: Sequence[float]) -> Tier | None:
    """Return T1 where absolute latencies may be ranked, T2 where only ratios may, ``None`` below 100 probes.

    T2: at least 5 % of the probes ran over 10 % under the clean mode (their 95th percentile), as they do where
    physical cores are shared with others; no counter inside a virtual machine shows that.
    """
    if len(rates) < ENOUGH:
        return None
    clean = sorted(rates)[int(CLEAN_SHARE * (len(rates) - 1))]
    slow = sum(rate < SLOW * clean for rate in rates) / len(rates)
    return "T2" if slow >= BIMODAL else "T1"
