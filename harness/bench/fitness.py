"""Is the host fit to measure on? Watches the launch-sets, pauses the queue, and says what kind of host it is."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from harness.measure import clean, wait_calm
from harness.measure.process import WorkerLost
from harness.stats.tier import host_tier
from harness.types import LaunchSet

UNFIT_AFTER = 3  # sets in a row with nothing but noisy launches pause the queue


@dataclass
class Fitness:
    """What the launch-sets of a run said of the host.

    Attributes:
        calm_seconds: Longest wait for a calm window; 0 never waits.
        noisy_in_row: Launch-sets, up to the last one, with noisy launches only.
        unfit: Why the host was called unfit; empty where it was not.
    """

    calm_seconds: float
    noisy_in_row: int = 0
    unfit: str = ""

    def watch(self, finished: LaunchSet, note: Callable[[str], None]) -> None:
        """Pause the queue while the host is unfit, as long as the profile allows, and remember that it was."""
        noisy = bool(finished.launches) and all(launch.noise.verdict == "noisy" for launch in finished.launches)
        self.noisy_in_row = self.noisy_in_row + 1 if noisy else 0
        if self.noisy_in_row < UNFIT_AFTER or not self.calm_seconds:
            return
        self.noisy_in_row = 0
        note(f"the host is unfit: {UNFIT_AFTER} launch-sets in a row were noisy; the queue pauses")
        try:
            window = wait_calm(finished.launches[0].affinity, limit_s=self.calm_seconds, on_wait=note)
        except WorkerLost as lost:
            note(f"no calm window could be looked for: {lost}")
            return
        if not window.calm:
            self.unfit = f"unfit: no calm window within {self.calm_seconds:.0f} s, {window.reason}"
            note(f"the host stays {self.unfit}; going on, flagged")

    def facts(self, sets: Iterable[LaunchSet], host_id: str) -> dict[str, str]:
        """Return the host's tier, as far as its canary probes tell, and whether it was unfit."""
        own = [
            rate
            for item in sets
            for launch in item.launches[:1]
            for rate in (launch.noise.canary_before_gflops, launch.noise.canary_after_gflops)
        ]
        stored = clean.history(f"{host_id}-numpy-{importlib.metadata.version('numpy')}")
        probes = max(own, stored, key=len)
        tier = host_tier(probes) or f"not known: {len(probes)} canary probes, 100 are needed"
        return {"host_tier": tier} | ({"host_verdict": self.unfit} if self.unfit else {})
