"""Seconds that a run takes, from the profile's budgets and a few measured constants."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.plan.checks import wanted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from harness.plan.chosen import Chosen
    from harness.profiles import Profile

_NS = 1e-9


@dataclass(frozen=True)
class Cost:
    """A measured constant: seconds, and where the figure comes from."""

    seconds: float
    origin: str


_HERE = "2-core Xeon VM, 2.5 GHz"
COSTS: Mapping[str, Cost] = {
    "launch": Cost(0.7, f"CPU seconds: worker import 0.10, runtime import 0.19-0.46, model load about 0.1; {_HERE}"),
    "set": Cost(0.5, f"the probe's process 0.2, hiccup and canary before and after 0.3; {_HERE}"),
    "untimed": Cost(4.0, f"a launch, 450 items at 1-5 ms, and placement; {_HERE}"),
    "fit": Cost(30.0, f"digits-resnet8, 10 epochs: 20 s quiet, 100 s busy; {_HERE}"),
    "train-step": Cost(18.0, "a method's default fine-tune may take 20 s on the default workload"),
    "step": Cost(0.5, "decided: a step that trains nothing, in a builder that has torch loaded"),
    "export": Cost(6.0, f"torch to ONNX or LiteRT, small networks: 3-10 s; {_HERE}"),
    "lower": Cost(1.0, f"a float model to a runtime's file; {_HERE}"),
    "quantize": Cost(4.0, f"static quantization with 256 samples: 0.2-8 s; {_HERE}"),
}


def launch_s(profile: Profile) -> float:
    """Return seconds of one cell in one launch-set: start, warm-up, measured rounds."""
    measured = max(profile.measured_ns, profile.rounds * profile.batch_ns)
    return COSTS["launch"].seconds + (profile.warmup_ns + measured) * _NS


def measure_s(profile: Profile) -> float:
    """Return seconds to measure one cell once: its launch-sets, memory launches, accuracy and placement."""
    untimed = COSTS["untimed"].seconds * (1 if profile.combined_untimed else 2)
    return profile.sets * launch_s(profile) + profile.memory_launches * COSTS["launch"].seconds + untimed


def energy_s(profile: Profile) -> float:
    """Return seconds of the energy launch of a cell: six windows, and idle before and after."""
    return COSTS["launch"].seconds + 6 * profile.energy_window_s + 2 * profile.energy_idle_s


def anchor_s(profile: Profile, variants: int, *, linked: bool) -> float:
    """Return what an anchor adds to being measured once: the sets as such, more groups of variants, the link set."""
    groups = max(1, -(-variants // profile.variants))
    again = groups - 1 + int(linked)
    return profile.sets * (groups * COSTS["set"].seconds + again * launch_s(profile))


class Builds:
    """Count each build step once, in the first cell that needs it."""

    def __init__(self) -> None:
        self._seen: set[tuple[str, ...]] = set()

    def _once(self, cost: str, *key: str) -> float:
        if key in self._seen:
            return 0.0
        self._seen.add(key)
        return COSTS[cost].seconds

    def cell_s(self, workload: Chosen, steps: tuple[Chosen, ...], exporters: tuple[str, ...], target: Chosen) -> float:
        """Return seconds of the build steps of a cell that no earlier cell needed."""
        # A method that only asks for a precision leaves the file alone, so it shares the export of what comes before.
        key = [workload.text]
        total = self._once("fit", *key)
        for chosen in steps:
            if chosen.spec.consumes:
                key.append(chosen.text)
                total += self._once("train-step" if "training" in chosen.ask("needs") else "step", *key)
        for name in exporters:
            key.append(f"> {name}")
            total += self._once("export", *key)
        asks = [chosen.text for chosen in steps if wanted(chosen)]
        return total + self._once("quantize" if asks else "lower", *key, *asks, f"@ {target.text}")
