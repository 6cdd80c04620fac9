"""A small process that asks the CPU how it is: was it ours (hiccup), and how fast did it compute (canary).

It imports numpy and no runtime, is pinned to the CPUs of a launch-set, and works before and after the set only.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from harness.measure import isolate
from harness.measure.worker_line import serve, start

GAP_NS = 100_000  # a gap in the clock longer than this was not ours; 20 us would count timer ticks
SPIN_NS = 100_000_000
SIZE = 512
# About 100 ms, as long as the spin: neighbouring medians of 5 differ by more than 3 % in 40 % of pairs on an idle VM,
# medians of 50 in 17 %; and what is judged by it, a batch, lasts for as long.
REPEATS = 45
LEAST_REPEATS = 5
LOOP_STEPS = 3000  # of a scalar loop, about 80 us
SMALL_SIZE, SMALL_REPEATS = 64, 10  # products that stay in the first cache, about 60 us


def lost_share(spin_ns: int = SPIN_NS, gap_ns: int = GAP_NS) -> float:
    """Spin on the clock and return the share of time (0..1) in which the CPU was not ours."""
    clock = time.perf_counter_ns
    lost = 0
    begin = last = clock()
    end = begin + spin_ns
    while last < end:
        now = clock()
        if now - last > gap_ns:
            lost += now - last
        last = now
    return lost / (last - begin)


class Canary:
    """A fixed compute kernel: single-precision matrix product, single thread by the environment."""

    def __init__(self) -> None:
        chance = np.random.default_rng(0)
        self.left = chance.standard_normal((SIZE, SIZE), dtype=np.float32)
        self.right = chance.standard_normal((SIZE, SIZE), dtype=np.float32)
        self.out = np.empty((SIZE, SIZE), dtype=np.float32)
        self.small = np.ascontiguousarray(self.left[:SMALL_SIZE, :SMALL_SIZE])
        self.small_out = np.empty_like(self.small)
        np.matmul(self.left, self.right, out=self.out)

    def reading(self, repeats: int = REPEATS) -> dict[str, float]:
        """Return medians of ``repeats``: the rate, and the times of two other kernels that ran in between.

        Returns:
            gflops: 10^9 operations per second of the product, which is what noise is judged by.
            loop_ns: Time of a scalar loop of the interpreter: it slows with the clock, not with caches or vector units.
            small_ns: Time of products that stay in the first cache.
        """
        taken = np.array([(self._product(), self._loop(), self._small()) for _ in range(repeats)])
        product_ns, loop_ns, small_ns = (float(statistics.median_low(column)) for column in taken.T.tolist())
        return {"gflops": 2 * SIZE**3 / product_ns, "loop_ns": loop_ns, "small_ns": small_ns}

    def _product(self) -> int:
        begin_ns = time.perf_counter_ns()
        np.matmul(self.left, self.right, out=self.out)
        return time.perf_counter_ns() - begin_ns

    def _loop(self) -> int:
        begin_ns = time.perf_counter_ns()
        for _ in range(LOOP_STEPS):
            pass
        return time.perf_counter_ns() - begin_ns

    def _small(self) -> int:
        begin_ns = time.perf_counter_ns()
        for _ in range(SMALL_REPEATS):
            np.matmul(self.small, self.small, out=self.small_out)
        return time.perf_counter_ns() - begin_ns


class Prober:
    """Answers the parent."""

    def __init__(self) -> None:
        self.canary = Canary()

    def probe(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """Probe each CPU in turn; the worst counts."""
        cpus: list[int] = message["cpus"] or [-1]
        lost, readings = [], []
        for cpu in cpus:
            isolate.pin((cpu,) if cpu >= 0 else ())
            readings.append(self.canary.reading(max(LEAST_REPEATS, REPEATS // len(cpus))))
            lost.append(lost_share(SPIN_NS // len(cpus)))
        slowest = min(readings, key=lambda reading: reading["gflops"])
        return {"hiccup": max(lost), **slowest, "library": f"numpy-{np.__version__}"}


def main(argv: list[str]) -> int:
    """Serve one parent over two descriptors."""
    line = start(argv)
    serve(line, {"probe": Prober().probe, "close": lambda _message: {}})
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
