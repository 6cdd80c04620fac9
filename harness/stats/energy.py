"""Joules of an inference, from windows in which inferences ran back to back, and idle ones before and after."""

from __future__ import annotations

import math
from collections.abc import Sequence

from harness.stats.order import median_interval
from harness.types import Energy, EnergyLevel, EnergyWindow


def energy(level: EnergyLevel, source: str, windows: Sequence[EnergyWindow], idle: Sequence[EnergyWindow]) -> Energy:
    """Summarise: J = E / n and P = E / t of each window, their medians with order-statistic intervals.

    Active energy is what exceeds the idle power P0 of the idle windows: (E - P0 t) / n. Energy that a counter does not
    show in a busy window is not zero: the counter stands still, and the level is E0.
    """
    still = [window for window in windows if not window.joules > 0]
    if not windows or still or any(not window.inferences for window in windows):
        reason = f"counter_static: {len(still)} of {len(windows)} windows show no energy"
        return Energy("E0", source, reason=reason, windows=tuple(windows), idle=tuple(idle))
    spent = math.fsum(window.joules for window in idle)
    rest = spent / math.fsum(window.seconds for window in idle) if idle else None
    active = None
    if rest is not None:
        active = median_interval([(w.joules - rest * w.seconds) / w.inferences for w in windows])
    return Energy(
        level,
        source,
        joules=median_interval([window.joules / window.inferences for window in windows]),
        active_joules=active,
        watts=median_interval([window.joules / window.seconds for window in windows]),
        idle_watts=rest,
        windows=tuple(windows),
        idle=tuple(idle),
    )
