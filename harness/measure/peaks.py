"""A small process that finds what the CPU can do at most: multiply-adds by precision, clock, and bandwidths.

It imports numpy and no runtime. Each rate is the best of many short bursts: a neighbour makes bursts slow, never fast.
"""

from __future__ import annotations

import ctypes
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from harness.measure import isolate, kernels
from harness.measure.worker_line import serve, start

BURST_NS = 1_000_000
BURSTS = 24
READ_BYTES = 64 * 2**20  # of one burst from a cache
PASSES = 4  # over memory beyond the caches
SIZE = 1024  # of the matrix product where there is no kernel


def best_rate(call: Callable[[int], None], bursts: int = BURSTS) -> float:
    """Return the best rate in turns per second over bursts of about a millisecond."""
    turns = 64
    while (taken := _ns(call, turns)) < BURST_NS // 4 and turns < 2**40:
        turns *= 4
    turns = max(1, turns * BURST_NS // max(1, taken))
    return 1e9 * turns / min(_ns(call, turns) for _ in range(bursts))


def _ns(call: Callable[[int], None], turns: int) -> int:
    begin = time.perf_counter_ns()
    call(turns)
    return time.perf_counter_ns() - begin


def together(cpus: Sequence[int], measure: Callable[[], float]) -> float:
    """Measure on several CPUs at once and return the sum of the rates."""
    found: list[float] = []
    gate = threading.Barrier(len(cpus))

    def one(cpu: int) -> None:
        isolate.pin((cpu,) if cpu >= 0 else ())
        gate.wait()
        found.append(measure())

    threads = [threading.Thread(target=one, args=(cpu,)) for cpu in cpus]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(found)


def multiply_add_rates(cpus: Sequence[int], flags: Sequence[str]) -> dict[str, float]:
    """Return multiply-accumulates per second by precision, the best kernel of each."""
    found: dict[str, float] = {}
    for kernel in kernels.usable(flags):
        code = kernels.multiply_add(kernel)
        rate = together(cpus, partial(best_rate, code.call)) * kernels.REGISTERS * kernel.macs
        found[kernel.arithmetic] = max(found.get(kernel.arithmetic, 0.0), rate)
    return found


def clock_hz(cpu: int) -> float:
    """Return the clock of one CPU at its best."""
    isolate.pin((cpu,) if cpu >= 0 else ())
    return best_rate(kernels.clock().call) * kernels.CHAIN * kernels.IMUL_CYCLES


def product_rate() -> float:
    """Return multiply-accumulates per second of numpy's float32 matrix product, in the threads of the environment."""
    left, right = (np.full((SIZE, SIZE), 0.5, np.float32) for _ in range(2))
    out = np.empty_like(left)

    def multiply(_turns: int) -> None:
        np.matmul(left, right, out=out)

    return 1e9 * SIZE**3 / float(min(_ns(multiply, 1) for _ in range(8)))


def read_rate(size: int) -> float:
    """Return bytes per second of reading ``size`` bytes again and again, on this thread."""
    data = np.ones(max(1, size // kernels.READ_STEP) * kernels.READ_STEP, np.uint8)
    passes = max(1, READ_BYTES // data.nbytes)
    code = kernels.reader()

    def read(_turns: int) -> None:
        for _ in range(passes):
            code.call(ctypes.c_void_p(data.ctypes.data), data.nbytes)

    return 1e9 * passes * data.nbytes / min(_ns(read, 1) for _ in range(PASSES))


def copy_rate(size: int) -> float:
    """Return bytes per second, read and written, of copying ``size`` bytes."""
    data = np.ones(size // 2, np.uint8)
    out = np.empty_like(data)
    return 1e9 * 2 * data.nbytes / min(_ns(lambda _turns: np.copyto(out, data), 1) for _ in range(PASSES))


def peaks(message: Mapping[str, Any]) -> dict[str, Any]:
    """Answer with the ceilings of some CPUs.

    The message holds ``cpus``, the CPU's ``flags``, and ``sizes``: name of a level -> bytes that lie in it.
    """
    cpus: list[int] = message["cpus"] or [-1]
    answer: dict[str, Any] = {"clock_hz": None, "reason": ""}
    try:
        rates = multiply_add_rates(cpus, message["flags"])
        if rates:
            answer["clock_hz"] = max(clock_hz(cpu) for cpu in cpus)
        read = read_rate if rates else copy_rate
    except OSError as error:
        rates, read = {}, copy_rate
        answer["reason"] = f"no memory may be executed here ({error.strerror})"
    if not rates:
        answer["reason"] = answer["reason"] or "no multiply-add kernel is known for this CPU"
        isolate.pin(tuple(cpu for cpu in cpus if cpu >= 0))
        rates = {"float32": product_rate()}
    sizes: dict[str, int] = message["sizes"]
    levels = {name: together(cpus, partial(read, size // len(cpus))) for name, size in sizes.items()}
    return {**answer, "macs_per_s": rates, "bytes_per_s": levels}


def main(argv: list[str]) -> int:
    """Serve one parent over two descriptors."""
    line = start(argv)
    serve(line, {"peaks": peaks, "close": lambda _message: {}})
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
