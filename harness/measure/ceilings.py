"""What this host can do at most, measured once for each number of threads and kept; a better reading raises it.

Source of the scheme: Williams, Waterman, Patterson (CACM 2009), and MEASUREMENT.md section 6. Two kinds of ceilings:
``macs_per_s`` was measured and is what a percentage is taken of; ``most_macs_per_s`` is what the instruction set
allows at the highest clock, and nothing that really computes is faster.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from harness import codec
from harness.errors import RecordError
from harness.measure import clean, cpus, host, kernels
from harness.measure.process import Worker, WorkerLost
from harness.types import Ceilings

PEAKS = "harness.measure.peaks"
BUDGET_S = 60.0
CACHE_BYTES = 32 * 2**20  # assumed last-level cache where the kernel does not tell its size
MOST_DRAM_BYTES = 256 * 2**20
TRUSTED = ("intel_pstate", "intel_cpufreq", "amd-pstate", "amd-pstate-epp")  # their maximum counts the turbo
TURBO = 1.5  # times the best clock that was seen, where no driver tells the highest; desktop and server parts: 1.1-1.5
DRAM_MARGIN = 2.0  # times the best bandwidth that was seen: neighbours share it


def ceilings(threads: int, host_id: str, *, again: bool = False, root: Path | None = None) -> Ceilings:
    """Return the host's ceilings for a number of threads, from the store of this user where they were measured.

    Args:
        threads: Of the cell.
        host_id: Of the fingerprint: another microcode or kernel is measured anew.
        again: Measure although they are known; the better of both readings counts.
        root: Folder of the store; ``None`` for the user's.
    """
    path = (root or clean.folder()) / f"ceilings-{host_id}.json"
    known = _read(path)
    old = known.get(str(threads))
    if old is not None and not again:
        return old
    try:
        found = measure(threads)
    except WorkerLost as lost:
        return old or Ceilings(threads, reason=f"the ceilings could not be measured: {lost.failure.reason}")
    found = found if old is None else higher(old, found)
    try:
        codec.write_whole(path, codec.dumps({**known, str(threads): found}))
    except OSError:
        return found  # only forgotten
    return found


def _read(path: Path) -> Mapping[str, Ceilings]:
    try:
        return codec.loads(dict[str, Ceilings], path.read_bytes(), where=str(path))
    except (OSError, RecordError):
        return {}


def measure(threads: int) -> Ceilings:
    """Measure in a fresh process on the CPUs that a cell of so many threads is given; takes under a second.

    Raises:
        WorkerLost: The process failed.
    """
    facts, taken = host.facts(), cpus.choose(threads)
    flags = facts["cpu_flags"].split()
    cache = cpus.last_level_cache_bytes()
    size = cache or CACHE_BYTES
    sizes = {"cache": size // 4, "dram": min(4 * size, MOST_DRAM_BYTES)}
    with Worker(PEAKS, python=None, threads=threads, blame="harness", stage="latency", budget_s=BUDGET_S) as worker:
        worker.greet()
        found = worker.ask("peaks", cpus=list(taken), flags=flags, sizes=sizes)
    clock, origin = top_clock(facts, found["clock_hz"])
    per_cycle = kernels.macs_per_cycle(flags) if clock else {}
    return Ceilings(
        threads=threads,
        macs_per_s=filled(found["macs_per_s"], per_cycle),
        most_macs_per_s={name: rate * (clock or 0.0) * threads for name, rate in per_cycle.items()},
        bytes_per_s=found["bytes_per_s"],
        most_bytes_per_s=DRAM_MARGIN * found["bytes_per_s"]["dram"],
        cache_bytes=cache,
        clock_hz=found["clock_hz"],
        top_clock_hz=clock,
        top_clock_from=origin,
        reason=found["reason"],
    )


def filled(measured: Mapping[str, float], per_cycle: Mapping[str, float]) -> dict[str, float]:
    """Add the arithmetics that no kernel of ours runs, at float32's rate times what a cycle holds more of them.

    CPUs without instructions for float16 or bfloat16 compute them in float32; matrix extensions hold more.
    """
    found = dict(measured)
    if "float32" not in measured or "float32" not in per_cycle:
        return found
    for name, each in per_cycle.items():
        if name not in measured or each > kernels.TWO_VECTORS:
            found[name] = max(found.get(name, 0.0), measured["float32"] * each / per_cycle["float32"])
    return found


def top_clock(facts: Mapping[str, str], seen_hz: float | None) -> tuple[float | None, str]:
    """Return the highest clock that this CPU can run at, and how that is known."""
    if seen_hz is None:
        return None, "no clock was measured"
    told = facts.get("frequency_max_khz", "")
    if facts.get("frequency_driver") in TRUSTED and told.isdigit() and int(told) * 1e3 >= 0.98 * seen_hz:
        return max(int(told) * 1e3, seen_hz), f"told by {facts['frequency_driver']}"
    return TURBO * seen_hz, f"assumed: {TURBO:g} times the best clock that was measured"


def higher(first: Ceilings, second: Ceilings) -> Ceilings:
    """Return the better of two readings in everything: a ceiling is only ever raised."""

    def best(one: Mapping[str, float], other: Mapping[str, float]) -> dict[str, float]:
        return {name: max(one.get(name, 0.0), other.get(name, 0.0)) for name in {**one, **other}}

    clocks = [item for item in (first, second) if item.top_clock_hz is not None]
    top = max(clocks, key=lambda item: item.top_clock_hz or 0.0, default=second)
    seen = [item.clock_hz for item in clocks if item.clock_hz is not None]
    return replace(
        second,
        macs_per_s=best(first.macs_per_s, second.macs_per_s),
        most_macs_per_s=best(first.most_macs_per_s, second.most_macs_per_s),
        bytes_per_s=best(first.bytes_per_s, second.bytes_per_s),
        most_bytes_per_s=max(first.most_bytes_per_s or 0.0, second.most_bytes_per_s or 0.0) or None,
        clock_hz=max(seen, default=None),
        top_clock_hz=top.top_clock_hz,
        top_clock_from=top.top_clock_from,
    )
