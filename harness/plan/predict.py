"""Seconds that a run takes, from the profile's budgets and a few measured constants."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from harness.plan.checks import wanted

if TYPE_CHECKING:
    from harness.plan.chosen import Chosen
    from harness.plan.values import PlannedCell
    from harness.profiles import Profile

_NS = 1e-9


@dataclass(frozen=True)
class Cost:
    """A measured constant: seconds, and where the figure comes from."""

    seconds: float
    origin: str


@dataclass(frozen=True)
class Rate:
    """Measured constants of work that is done item by item: seconds for each, and where the figures come from.

    Attributes:
        item_s: Seconds of an item, however small.
        value_s: Seconds more for each number in an item's inputs; stands for the work of a network that takes them,
            which nobody knows before it is built.
    """

    item_s: float
    value_s: float
    origin: str


@dataclass(frozen=True)
class Load:
    """How many test items of a workload are run once more, as far as it is known before anything is built.

    Attributes:
        values: Numbers in the inputs of one item.
        corrupted: Items that are corrupted in each way; 0 where they are no images, or it is not asked for.
        shards: Launches of a cell that take all their copies.
        compared: Items whose operators are compared with the anchor's; 0 where it is not asked for.
    """

    values: int
    corrupted: int = 0
    shards: int = 0
    compared: int = 0


@dataclass(frozen=True)
class Asides:
    """What is asked for beside latency, memory and accuracy, as far as it takes time on this host.

    Attributes:
        energy_s: Target text -> seconds that its sensor takes for a cell; a target without a sensor is left out.
        scenarios_s: Scenario -> seconds that the load generator drives a cell.
        corruptions: In how many ways test images are corrupted: kinds times severities.
        loads: Workload text -> what of it is corrupted or compared; a workload that is not there counts nothing.
    """

    energy_s: Mapping[str, float] = field(default_factory=dict)
    scenarios_s: Mapping[str, float] = field(default_factory=dict)
    corruptions: int = 0
    loads: Mapping[str, Load] = field(default_factory=dict)


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
# Fitted to three networks on ONNX Runtime: digits-resnet8 (1 x 32 x 32), MobileNetV2 and ResNet-18 (3 x 224 x 224).
RATES: Mapping[str, Rate] = {
    "corrupt": Rate(1e-4, 80e-9, f"an image in one way: 0.12 to 0.18 ms small, 11 to 18 ms large; {_HERE}"),
    "corrupted": Rate(4.5e-4, 160e-9, f"an image and its score: 0.6 ms; 19 ms MobileNetV2, 39 ms ResNet-18; {_HERE}"),
    "layers": Rate(3e-3, 830e-9, f"an item through two files with all tensors: 3.9 ms; 129 and 121 ms; {_HERE}"),
}


def launch_s(profile: Profile) -> float:
    """Return seconds of one cell in one launch-set: start, warm-up, measured rounds."""
    measured = max(profile.measured_ns, profile.rounds * profile.batch_ns)
    return COSTS["launch"].seconds + (profile.warmup_ns + measured) * _NS


def measure_s(profile: Profile) -> float:
    """Return seconds to measure one cell once: its launch-sets, memory launches, accuracy and placement."""
    untimed = COSTS["untimed"].seconds * (1 if profile.combined_untimed else 2)
    return profile.sets * launch_s(profile) + profile.memory_launches * COSTS["launch"].seconds + untimed


def asides_s(asked: Asides, workload: Chosen, target: Chosen, cell: PlannedCell) -> float:
    """Return seconds of what is asked for beside latency, memory and accuracy of one cell.

    A block's images are corrupted once, which counts in its anchor.
    """
    launch, probes = COSTS["launch"].seconds, COSTS["set"].seconds
    total = 0.0
    if cell.runs_on == "here":
        if target.text in asked.energy_s:
            total += launch + asked.energy_s[target.text]
        one = cell.cell.options.batch == 1  # only an offline query holds several items
        driven = [seconds for name, seconds in asked.scenarios_s.items() if one or name == "offline"]
        total += sum(launch + probes + seconds for seconds in driven)
    load = asked.loads.get(workload.text)
    if load is None or not target.spec.ranked:
        return total
    if load.compared and cell.runs_on == "here" and not cell.is_anchor:
        total += launch + load.compared * _item_s("layers", load)
    if load.corrupted and workload.spec.score is not None and workload.ask("labelled"):
        each = _item_s("corrupted", load) + (_item_s("corrupt", load) if cell.is_anchor else 0.0)
        total += load.shards * launch + asked.corruptions * load.corrupted * each
    return total


def _item_s(work: str, load: Load) -> float:
    return RATES[work].item_s + load.values * RATES[work].value_s


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
