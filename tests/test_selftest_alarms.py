"""What a noise verdict was worth, by evidence that it does not come from."""

from __future__ import annotations

import numpy as np
import pytest
from launches import launch

from harness.measure.clean import Usual
from harness.measure.counters import Disturbance
from harness.measure.noise import Probe, assess
from harness.selftest.alarms import classify
from harness.types import Batch

QUIET = Disturbance(0.0, 0.0, 0, 0.0, 0.0, 0)
MS = 1_000_000


def judged(before: Probe, after: Probe, host: Disturbance = QUIET, clean: float = 100.0, switches: int = 0):
    batch = Batch(0, 0, (2 * MS,) * 50, 100 * MS, 100 * MS, switches, 0, 0)
    return launch(
        "a", 0, [[2 * MS]], noise=assess([batch], before, after, host, threads=1, usual=Usual(clean, 0.0, 0.0))
    )


def probe(gflops: float = 100.0, loop: float = 1.0, small: float = 1.0, hiccup: float = 0.0) -> Probe:
    """A reading; ``loop`` and ``small`` are times as multiples of what they usually take."""
    return Probe(hiccup, gflops, "numpy", 80_000.0 * loop, 60_000.0 * small)


@pytest.mark.parametrize(
    ("found", "alarm"),
    [
        (judged(probe(), probe(99.5)), "quiet"),
        (judged(probe(), probe(95.0)), "false"),
        (judged(probe(), probe(95.0, loop=1.05)), "caused"),
        (judged(probe(), probe(95.0, small=1.03)), "caused"),
        (judged(probe(), probe(95.0, loop=1.01, small=1.01)), "false"),
        (judged(probe(), probe(95.0, loop=0.95, small=0.95)), "false"),  # they sped up: that explains nothing
        (judged(probe(95.0, loop=1.05), probe()), "caused"),
        (judged(probe(85.0), probe(85.0)), "false"),
        (judged(probe(85.0, loop=1.17), probe(85.0, loop=1.17)), "caused"),
        (judged(probe(), probe(95.0, loop=1.05, hiccup=0.05)), "disturbed"),
        (judged(probe(), probe(), Disturbance(0.0, 0.5, 0, 0.0, 0.0, 0)), "false"),  # pressure, and nobody was moved
        (judged(probe(), probe(), Disturbance(0.0, 0.5, 0, 0.0, 0.0, 0), switches=30), "disturbed"),
    ],
)
def test_a_verdict_is_worth_what_other_evidence_says(found, alarm):
    assert classify(found, [judged(probe(), probe()), found]) == alarm


def test_a_launch_without_the_other_kernels_confirms_nothing():
    found = judged(Probe(0.0, 100.0), Probe(0.0, 95.0))
    assert found.noise.loop_ns is None
    assert classify(found, [found]) == "false"


def test_a_canary_that_moves_by_itself_is_told_from_a_clock_that_moves():
    """The clock wanders by 2 %; a canary with 3 % of its own on top cries without a cause."""
    chance = np.random.default_rng(0)

    def readings(own: float):
        for _ in range(400):
            clock = np.exp(chance.normal(0, 0.02, 2))
            rates = 100 * clock * np.exp(chance.normal(0, own, 2))
            loop, small = (1 / clock * np.exp(chance.normal(0, 0.005, 2)) for _ in range(2))
            yield judged(*(probe(rate, lap, tile) for rate, lap, tile in zip(rates, loop, small, strict=True)))

    for own, low, high in ((0.0, 0.0, 0.01), (0.03, 0.15, 0.6)):
        found = list(readings(own))
        share = sum(classify(item, found) == "false" for item in found) / len(found)
        assert low <= share <= high
