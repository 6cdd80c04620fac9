"""Wait until the host is calm: three undisturbed probes in a row (MEASUREMENT 1.8 and 7)."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from harness.measure import clean, host
from harness.measure.clean import Usual
from harness.measure.crew import PROBE, PROBE_BUDGET_S
from harness.measure.noise import THRESHOLDS, Probe, reading, widened
from harness.measure.process import Worker

IN_A_ROW = 3
PAUSE_S = 0.5


@dataclass(frozen=True)
class Window:
    """How waiting ended.

    Attributes:
        reason: What still disturbed, empty where the host was calm.
    """

    calm: bool
    waited_s: float
    probes: tuple[Probe, ...]
    reason: str = ""


def wait_calm(cpus: Sequence[int], *, limit_s: float, on_wait: Callable[[str], None] | None = None) -> Window:
    """Probe these CPUs until three probes in a row lose no time and compute alike, or the limit is over.

    Args:
        cpus: That will be measured on.
        limit_s: Longest wait; at least three probes are always taken.
        on_wait: Told once, when the first probe is not calm.

    Raises:
        WorkerLost: The probe process failed.
    """
    begin, seen = time.monotonic(), []
    told, usual = False, None
    with Worker(
        PROBE, python=None, threads=1, blame="harness", stage="latency", budget_s=PROBE_BUDGET_S + limit_s
    ) as line:
        line.greet()
        while True:
            seen.append(reading(line.ask("probe", cpus=list(cpus))))
            if len(seen) == 1:
                usual = clean.usual(clean.history(f"{host.fingerprint().host_id}-{seen[0].library}"))
            why = disturbed(seen[-IN_A_ROW:], usual)
            if not why and len(seen) >= IN_A_ROW:
                return Window(True, time.monotonic() - begin, tuple(seen))
            if time.monotonic() - begin >= limit_s and len(seen) >= IN_A_ROW:
                return Window(False, time.monotonic() - begin, tuple(seen), why)
            if why:
                if on_wait is not None and not told:
                    on_wait(f"waiting up to {limit_s:.0f} s for a calm window: {why}")
                    told = True
                time.sleep(PAUSE_S)


def disturbed(probes: Sequence[Probe], usual: Usual | None = None) -> str:
    """Say what disturbed some probes, empty where nothing did; their rates may move as they usually do on this host."""
    hiccup = max(probe.hiccup for probe in probes)
    drift = max(probe.gflops for probe in probes) / min(probe.gflops for probe in probes) - 1
    if THRESHOLDS["hiccup"].judge(hiccup) != "ok":
        return f"{hiccup:.1%} of the time the CPU was not ours"
    if widened("canary drift", usual.drift if usual else None).judge(drift) == "noisy":
        return f"the canary's rate moved by {drift:.1%}"
    return ""
