"""Intervals, ratios, verdicts: pure functions over samples."""

from __future__ import annotations

from harness.stats.fidelity import Fidelity, agreement_intervals, fidelity
from harness.stats.latency import narrow, summarise
from harness.stats.order import median_interval
from harness.stats.percentiles import percentile_estimate, percentile_support
from harness.stats.proportions import mcnemar_exact, newcombe_paired, wilson
from harness.stats.quality import paired_bootstrap, quality
from harness.stats.ranks import certainly_less, rank_sets
from harness.stats.ratio import batch_low, batch_median, link_logs, link_ratio, paired_ratio, ratio_logs, verdict

__all__ = [
    "Fidelity",
    "agreement_intervals",
    "batch_low",
    "batch_median",
    "certainly_less",
    "fidelity",
    "link_logs",
    "link_ratio",
    "mcnemar_exact",
    "median_interval",
    "narrow",
    "newcombe_paired",
    "paired_bootstrap",
    "paired_ratio",
    "percentile_estimate",
    "percentile_support",
    "quality",
    "rank_sets",
    "ratio_logs",
    "summarise",
    "verdict",
    "wilson",
]
