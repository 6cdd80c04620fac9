"""The verdict on one launch: evidence against a table of thresholds (MEASUREMENT 1.8)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from harness.measure.clean import Usual
from harness.measure.counters import Disturbance
from harness.types import Batch, Noise, NoiseVerdict

_VM = "one 2-vCPU KVM guest, Xeon 2.5 GHz, 2026; derive again on a quiet host"


@dataclass(frozen=True)
class Threshold:
    """Where a signal stops being ok and starts being noisy; between the two it is suspect.

    Attributes:
        better: Whether low or high values are good.
        origin: Where the numbers come from.
    """

    ok: float
    noisy: float
    better: Literal["low", "high"]
    unit: str
    origin: str

    def judge(self, value: float) -> NoiseVerdict:
        """Return the verdict on one value."""
        sign = 1.0 if self.better == "low" else -1.0
        if sign * value <= sign * self.ok:
            return "ok"
        return "noisy" if sign * value > sign * self.noisy else "suspect"


THRESHOLDS: Mapping[str, Threshold] = {
    "cpu/wall": Threshold(0.99, 0.97, "high", "", f"measured: quiet 0.98-1.00, loaded 0.29-0.77; {_VM}"),
    "hiccup": Threshold(0.002, 0.01, "low", "", f"measured: idle up to 0.0007, loaded 0.17-0.56; {_VM}"),
    "run-queue wait": Threshold(0.002, 0.01, "low", "", "as for hiccups: the same loss, counted by the kernel"),
    "involuntary switches": Threshold(10, 50, "low", "/s", f"measured: quiet 1-6, loaded 90-600; {_VM}"),
    "steal": Threshold(0.002, 0.01, "low", "", f"measured; blind to contention inside the guest; {_VM}"),
    "cpu pressure": Threshold(0.02, 0.10, "low", "", "decided"),
    "memory pressure": Threshold(0.001, 0.01, "low", "", "decided"),
    "thermal throttling": Threshold(0, 0, "low", "", "kernel documentation of thermal_throttle"),
    "throttled periods": Threshold(0, 0, "low", "", "kernel documentation of the CFS bandwidth limit"),
    "canary drift": Threshold(0.01, 0.03, "low", "", f"measured and decided; {_VM}"),
    "canary level": Threshold(0.97, 0.90, "high", "", f"measured: two modes 2x apart; {_VM}"),
    "major faults": Threshold(0, 0, "low", "", "decided"),
}
SUSPECT, NOISY = 3, 6  # standard deviations of this host's own canary that a probe may be off
_WIDEST = {"canary drift": (0.06, 0.15), "canary level": (0.85, 0.70)}  # however much the host's clock moves
_WORST_FIRST: tuple[NoiseVerdict, ...] = ("noisy", "suspect", "ok")


@dataclass(frozen=True)
class Probe:
    """One reading of the probe.

    Attributes:
        hiccup: Share of time lost, 0..1.
        gflops: The canary's rate, in 10^9 operations per second.
        library: That the canary ran in.
        loop_ns: Time of a scalar loop beside the canary; not judged by, but it tells whether the clock moved.
        small_ns: Time of products in the first cache, likewise.
    """

    hiccup: float
    gflops: float
    library: str = ""
    loop_ns: float | None = None
    small_ns: float | None = None


def reading(reply: Mapping[str, Any]) -> Probe:
    """Return what the probe process answered."""
    return Probe(reply["hiccup"], reply["gflops"], reply["library"], reply["loop_ns"], reply["small_ns"])


def worst(verdicts: Sequence[NoiseVerdict]) -> NoiseVerdict:
    """Return the worst of some verdicts."""
    for verdict in _WORST_FIRST:
        if verdict in verdicts:
            return verdict
    return "ok"


def cpu_wall(batches: Sequence[Batch]) -> float:
    """Return the CPU time of batches over their wall time."""
    return sum(batch.cpu_ns for batch in batches) / max(1, sum(batch.wall_ns for batch in batches))


def assess(
    batches: Sequence[Batch],
    before: Probe,
    after: Probe,
    host: Disturbance,
    *,
    threads: int,
    usual: Usual | None,
) -> Noise:
    """Judge one launch.

    Args:
        batches: Its timed batches.
        before: Probe before the set.
        after: Probe after it.
        host: Disturbance over the rounds of its set.
        threads: cpu/wall near 1 means undisturbed with one thread only; with more it is recorded, not judged.
        usual: Of this host's canary; ``None`` until enough probes are known, then the level is not judged.
    """
    found = Noise(
        cpu_wall(batches),
        before.hiccup,
        after.hiccup,
        before.gflops,
        after.gflops,
        _switches_per_s(batches, threads),
        host.steal,
        host.psi_cpu,
        host.throttled,
        sum(batch.major_faults for batch in batches),
        "ok",
        (),
        min(before.gflops, after.gflops) / usual.gflops if usual else None,
        host.psi_memory,
        host.psi_io,
        host.thermal,
        loop_ns=_both(before.loop_ns, after.loop_ns),
        small_ns=_both(before.small_ns, after.small_ns),
        queued=_queued(batches),
        usual_spread=usual.spread if usual else None,
        usual_drift=usual.drift if usual else None,
    )
    evidence = signals(found, batches, threads)
    due_here = limits(found)
    verdicts: dict[str, NoiseVerdict] = {name: due_here[name].judge(value) for name, value in evidence.items()}
    reasons = tuple(
        _reason(name, evidence[name], due_here[name], verdict) for name, verdict in verdicts.items() if verdict != "ok"
    )
    return replace(found, verdict=worst(list(verdicts.values())), reasons=reasons)


def signals(found: Noise, batches: Sequence[Batch], threads: int | None) -> dict[str, float]:
    """Return by name all that a verdict on a launch is due to; what the host does not tell is left out.

    Switches and pressure stand in where the kernel does not tell how long the launch itself waited: a switch may cost
    a microsecond, and pressure is that of the whole host, also on the CPUs beside the measured ones.

    Args:
        found: What was seen around the launch; its verdict is not read.
        batches: Of the launch.
        threads: That it was asked for; ``None`` where that is not known.
    """
    switches = _switches_per_s(batches, threads) if threads else found.involuntary_switches_per_s
    told = found.queued is not None
    known: dict[str, float | None] = {
        "cpu/wall": cpu_wall(batches) if threads == 1 else None,
        "hiccup": max(found.hiccup_before, found.hiccup_after),
        "run-queue wait": found.queued,
        "involuntary switches": None if told else switches,
        "steal": found.steal,
        "cpu pressure": None if told else found.psi_cpu,
        "memory pressure": found.psi_memory,
        "thermal throttling": found.thermal,
        "throttled periods": found.throttled,
        "canary drift": abs(found.canary_after_gflops / found.canary_before_gflops - 1),
        "canary level": found.canary_level,
        "major faults": sum(batch.major_faults for batch in batches),
    }
    return {name: value for name, value in known.items() if value is not None}


def due(found: Noise, batches: Sequence[Batch], threads: int | None) -> NoiseVerdict:
    """Return the verdict that the evidence on a stored launch comes to; the arguments are those of ``signals``."""
    due_here = limits(found)
    return worst([due_here[name].judge(value) for name, value in signals(found, batches, threads).items()])


def limits(found: Noise) -> Mapping[str, Threshold]:
    """Return the thresholds for a launch: those of the canary are as wide as it varies on this host."""
    return {
        **THRESHOLDS,
        "canary drift": widened("canary drift", found.usual_drift),
        "canary level": widened("canary level", found.usual_spread),
    }


def widened(name: str, deviation: float | None) -> Threshold:
    """Return a threshold of the canary for a host on which it varies: a standard deviation as a share of its rate."""
    limit = THRESHOLDS[name]
    if deviation is None:
        return limit
    (far, farthest), own = _WIDEST[name], (SUSPECT * deviation, NOISY * deviation)
    if limit.better == "low":
        return replace(limit, ok=max(limit.ok, min(own[0], far)), noisy=max(limit.noisy, min(own[1], farthest)))
    return replace(limit, ok=min(limit.ok, max(1 - own[0], far)), noisy=min(limit.noisy, max(1 - own[1], farthest)))


def _queued(batches: Sequence[Batch]) -> float | None:
    """Return the share of time that the thread that calls the runtime was ready and had no CPU."""
    waits = [batch.queued_ns for batch in batches if batch.queued_ns is not None]
    if not waits or len(waits) < len(batches):
        return None
    return sum(waits) / max(1, sum(batch.wall_ns for batch in batches))


def _switches_per_s(batches: Sequence[Batch], threads: int) -> float:
    wall_ns = max(1, sum(batch.wall_ns for batch in batches))
    return sum(batch.involuntary_switches for batch in batches) / (wall_ns / 1e9) / max(1, threads)


def _both(before: float | None, after: float | None) -> tuple[float, float] | None:
    return None if before is None or after is None else (before, after)


def unwatched(noise: Noise) -> Noise:
    """Return the verdict on a launch on another machine: what disturbed this one says nothing about that one."""
    return replace(noise, verdict="suspect", reasons=("suspect: timed on a device that nothing watches",))


def _reason(name: str, value: float, limit: Threshold, verdict: NoiseVerdict) -> str:
    sign = "<=" if limit.better == "low" else ">="
    return f"{verdict}: {name} {value:.4g}{limit.unit} (ok {sign} {limit.ok:.4g}{limit.unit})"
