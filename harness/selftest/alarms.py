"""Was a launch that was called noisy disturbed in truth? Asked of evidence that the verdict does not come from.

A host that is never quiet can't show that the detectors stay silent by being quiet. It can show that they do not cry
without a cause: two other kernels run between the canary's products, and the kernel's counters and the clock see a
disturbance each in its own way.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from harness.measure.noise import THRESHOLDS
from harness.types import Launch, Noise

Alarm = Literal["disturbed", "quiet", "caused", "false"]
COUNTED = (
    "cpu/wall",
    "run-queue wait",
    "involuntary switches",
    "steal",
    "cpu pressure",
    "memory pressure",
    "throttled periods",
)
INFERRED = ("canary drift", "canary level")
SHARE = 0.5  # of the canary's move: a kernel that moved as far the same way confirms it


def classify(launch: Launch, all_launches: Sequence[Launch]) -> Alarm:
    """Tell what a verdict on a launch was worth.

    Args:
        launch: Of a target that does nothing to the host.
        all_launches: Of the same minutes; the fastest of the other kernels in them is their clean mode.

    Returns:
        disturbed: Its windows were not quiet, as the clock or two of the kernel's counters say: not judged.
        quiet: Not called noisy.
        caused: Called noisy for the canary alone, and another kernel beside it moved with it.
        false: Called noisy, and nothing else saw a cause.
    """
    noise = launch.noise
    named = {name: verdict for name in THRESHOLDS for verdict in _verdict(noise, name)}
    if "hiccup" in named or sum(name in named for name in COUNTED) > 1:
        return "disturbed"
    noisy = [name for name, verdict in named.items() if verdict == "noisy"]
    if not noisy:
        return "quiet"
    return "caused" if all(name in INFERRED and _confirmed(noise, name, all_launches) for name in noisy) else "false"


def _verdict(noise: Noise, name: str) -> list[str]:
    """Return the verdict, noisy or suspect, that a signal gave, if it gave one."""
    return [reason.partition(":")[0] for reason in noise.reasons if f": {name} " in reason]


def _confirmed(noise: Noise, name: str, all_launches: Sequence[Launch]) -> bool:
    """Tell whether either kernel moved at least half as far as the canary, and the same way."""
    for field in ("loop_ns", "small_ns"):
        own: tuple[float, float] | None = getattr(noise, field)
        if own is None:
            continue
        if name == "canary drift":
            canary = math.log(noise.canary_after_gflops / noise.canary_before_gflops)
            moved = math.log(own[0] / own[1])
        else:
            if noise.canary_level is None:
                continue
            canary = math.log(noise.canary_level)
            best = min(min(pair) for launch in all_launches if (pair := getattr(launch.noise, field)))
            moved = math.log(best / max(own))
        if moved / canary >= SHARE:
            return True
    return False
