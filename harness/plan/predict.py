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


COSTS: Mapping[str, Cost] = {
    "launch": Cost(
        0.9, "worker start 0.15, runtime import 0.3-0.4, model load 0.1, hiccup and canary 0.3; 2-core Xeon VM"
    ),
    "untimed": Cost(4.0, "worker start and 450 items at 1-5 ms, plus placement; 2-core Xeon VM"),
    "fit": Cost(30.0, "digits-resnet8, 10 epochs, 20 s quiet to 100 s busy; 2-core Xeon VM"),
    "train-step": Cost(18.0, "a method's default fine-tune has 20 s on the default workload"),
    "step": Cost(0.5, "a step that only marks the model, in a builder that has torch loaded"),
    "export": Cost(6.0, "torch to ONNX or LiteRT of a small network, 3-10 s; 2-core Xeon VM"),
    "lower": Cost(1.0, "float model to a runtime's file; 2-core Xeon VM"),
    "quantize": Cost(4.0, "static quantization with 256 samples, 0.2-8 s; 2-core Xeon VM"),
}


def launch_s(profile: Profile) -> float:
    """Return seconds of one launch of one cell: start, warm-up, measured rounds."""
    measured = max(profile.measured_ns, profile.rounds * profile.batch_ns)
    return COSTS["launch"].seconds + (profile.warmup_ns + measured) * _NS


def measure_s(profile: Profile) -> float:
    """Return seconds to measure one cell once: its launch-sets, memory launches, accuracy and placement."""
    untimed = COSTS["untimed"].seconds * (1 if profile.combined_untimed else 2)
    return profile.sets * launch_s(profile) + profile.memory_launches * COSTS["launch"].seconds + untimed


def anchor_s(profile: Profile, variants: int, linked: bool) -> float:
    """Return seconds that an anchor costs beyond being measured once: further sets of variants, and the link set."""
    groups = max(1, -(-variants // profile.variants))
    return (groups - 1 + int(linked)) * profile.sets * launch_s(profile)


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
                total += self._once("train-step" if "training" in chosen.spec.needs else "step", *key)
        for name in exporters:
            key.append(f"> {name}")
            total += self._once("export", *key)
        asks = [chosen.text for chosen in steps if wanted(chosen)]
        return total + self._once("quantize" if asks else "lower", *key, *asks, f"@ {target.text}")
