"""The physical floor of a cell: how long its arithmetic and its weights take at least on a host's ceilings.

Williams, Waterman, Patterson, "Roofline" (CACM 2009): T >= max(sum_i F_i / P_i, W / BW), with F_i the
multiply-accumulates in precision i, P_i the ceiling of that arithmetic, and W the bytes of the weights, read once an
inference, from the last-level cache where they fit.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from harness.types import Artifact, Ceilings, Latency, Placement, Roofline, StepRecord

WINOGRAD = 5.0625  # F(6x6, 3x3) needs 64 of 324 multiplications: the fewest that is in use (Lavin and Gray 2016)
SLACK = 1.02  # of p50: the clock's own error
BIG_MACS = 10_000_000  # of an inference; below it what a percentage says is the cost of a call
# What no CPU that is sold reaches: matrix extensions of the widest kind, in a clock above the highest turbo.
LIMIT_PER_CYCLE = {"float32": 64.0, "float16": 1024.0, "bfloat16": 1024.0, "int8": 2048.0}
LIMIT_HZ = 7e9

_CONVOLUTION = re.compile(r".*conv.*", re.IGNORECASE)
_LOOKUP = re.compile(r".*(gather|embedding|lookup).*", re.IGNORECASE)
_INTEGERS = re.compile(r"u?int[48]|i8|u8|qint8|quint8")
_CPU = re.compile(r"(cpu|dnnl|xnnpack|acl|armnn).*", re.IGNORECASE)


@dataclass(frozen=True)
class Work:
    """What an inference has to do.

    Attributes:
        macs: Multiply-accumulates by precision of the arithmetic.
        least: The same where every algorithm that needs fewer of them was used.
        weight_bytes: As stored; ``None`` where not known.
        lookups: Some weights are tables of which an inference reads a few rows.
        reason: Why it is not known; empty where it is.
    """

    macs: Mapping[str, float]
    least: Mapping[str, float]
    weight_bytes: int | None = None
    lookups: bool = False
    reason: str = ""


def arithmetic(precision: str) -> str:
    """Return the arithmetic that a precision's name stands for; empty where no ceiling is known for it."""
    if precision in LIMIT_PER_CYCLE:
        return precision
    if precision.startswith("weight-only"):
        return "float32"
    return "int8" if _INTEGERS.fullmatch(precision.removeprefix("dynamic-")) else ""


def work_of(
    artifact: Artifact, placements: Sequence[Placement], lineage: Iterable[StepRecord], batch: int, sparsity: str
) -> Work:
    """Return what an inference of a cell has to do, from what ran; what is not known makes it less, never more.

    Args:
        artifact: What the runtime loaded.
        placements: What ran where.
        lineage: Of the model: its count of MACs is taken where the runtime tells none, in the fastest arithmetic.
        batch: Items of an inference.
        sparsity: Kernels of the target that skip zeros, or "none".
    """
    strange = sorted({item.device for item in placements if item.device and not _CPU.fullmatch(item.device)})
    if strange:
        return Work({}, {}, reason=f"no ceilings are known for {strange[0]}")
    if sparsity not in {"", "none"} and artifact.realised == "float32" and _zeros(lineage):
        return Work({}, {}, reason="the target may skip zeros: how much it multiplies is not known")
    macs: defaultdict[str, float] = defaultdict(float)
    least: defaultdict[str, float] = defaultdict(float)
    for item in placements:
        kind = arithmetic(item.precision)
        if item.macs and kind:
            macs[kind] += item.macs * batch
            fewer = WINOGRAD if kind != "int8" and _CONVOLUTION.fullmatch(item.op) else 1.0
            least[kind] += item.macs * batch / fewer
    if not macs:
        counted = next((made.effect["macs"] for made in reversed(tuple(lineage)) if made.effect.get("macs")), None)
        kind = arithmetic(artifact.realised)
        if counted is None or not kind:
            return Work({}, {}, reason="how much it multiplies is not known")
        macs[kind], least["int8"] = counted * batch, counted * batch / WINOGRAD
    weights = sum(artifact.weight_bytes.values()) or None
    lookups = any(_LOOKUP.fullmatch(item.op) for item in placements)
    return Work(dict(macs), dict(least), weights, lookups)


def _zeros(lineage: Iterable[StepRecord]) -> bool:
    effect = {name: value for made in lineage for name, value in made.effect.items()}
    return effect.get("nonzero_parameters", 0.0) < 0.95 * effect.get("parameters", 0.0)


def roofline(work: Work, latency: Latency, top: Ceilings) -> Roofline:
    """Return the floor of a cell, and what share of its time that is.

    Args:
        work: Of an inference.
        latency: Its median is compared.
        top: The host's, for the cell's threads.
    """
    if work.reason:
        return Roofline(reason=work.reason)
    compute_ns = _seconds(work.macs, top.macs_per_s) * 1e9
    memory_ns = _memory_ns(work, top)
    floor = max(compute_ns, memory_ns)
    if not floor:
        kinds = ", ".join(sorted(work.macs))
        return Roofline(reason=top.reason or f"no ceiling is known for {kinds}", ceilings=top)
    return Roofline(
        macs=round(sum(work.macs.values())),
        weight_bytes=work.weight_bytes,
        floor_ns=floor,
        least_ns=least_ns(work, top),
        percent=100 * floor / latency.p50_ns.point,
        bound="compute" if compute_ns >= memory_ns else "memory",
        ceilings=top,
        reason=top.reason,
    )


def _seconds(macs: Mapping[str, float], rates: Mapping[str, float]) -> float:
    return math.fsum(count / rates[kind] for kind, count in macs.items() if rates.get(kind))


def _memory_ns(work: Work, top: Ceilings) -> float:
    if not work.weight_bytes or work.lookups:
        return 0.0
    fits = top.cache_bytes is None or work.weight_bytes <= top.cache_bytes
    rate = top.bytes_per_s.get("cache" if fits else "dram", 0.0)
    return 1e9 * work.weight_bytes / rate if rate else 0.0


def least_ns(work: Work, top: Ceilings) -> float | None:
    """Return the time below which an inference cannot have been computed; ``None`` where no clock was measured.

    Weights count where they exceed the last-level cache, at half their size (a runtime may hold them narrower).
    """
    if not top.most_macs_per_s:
        return None
    compute = _seconds(work.least, top.most_macs_per_s)
    outside = 0.0
    if work.weight_bytes and not work.lookups and top.cache_bytes and top.most_bytes_per_s:
        outside = max(0.0, work.weight_bytes / 2 - top.cache_bytes) / top.most_bytes_per_s
    return 1e9 * max(compute, outside)


def limit_ns(work: Work, threads: int) -> float:
    """Return a time that no CPU with so many threads can beat, whatever a record says of its host."""
    rates = {kind: rate * LIMIT_HZ * threads for kind, rate in LIMIT_PER_CYCLE.items()}
    return 1e9 * _seconds(work.least, rates)


def too_fast(latency: Latency, least: float | None) -> bool:
    """Tell whether a cell is faster than physics allows."""
    return least is not None and SLACK * latency.p50_ns.point < least


def impossible_ceilings(top: Ceilings) -> Collection[str]:
    """Return the arithmetics for which the ceilings claim more than any CPU does."""
    return [
        kind
        for kind, rate in {**top.macs_per_s, **top.most_macs_per_s}.items()
        if rate > LIMIT_PER_CYCLE.get(kind, max(LIMIT_PER_CYCLE.values())) * LIMIT_HZ * top.threads
    ]
