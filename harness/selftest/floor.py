"""Lines about what a host can do at most: known work against its ceilings, and a cheat that must be caught."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from typing import Any

from harness.bench.floor import violation
from harness.measure import Member, fingerprint, run_untimed
from harness.measure.ceilings import ceilings
from harness.profiles import PROFILES
from harness.selftest.lab import Lab, judge, launches, line
from harness.selftest.values import Line
from harness.selftest.vendor import model_member
from harness.stats import summarise
from harness.stats.roofline import WINOGRAD, roofline, too_fast, work_of
from harness.types import Ceilings, Failure, Interval, Latency, LaunchSet, Placement, Roofline

SIZE = 512  # of the product: 134 million multiply-accumulates, a few milliseconds
LOW, HIGH = 60.0, 105.0  # percent of the ceiling that a tuned library reaches (MEASUREMENT 8)
CHEAT = 1000.0
PLANTED = 100_000_000


def physical_floor(lab: Lab) -> Iterator[Line]:
    """A product of known size, the same with a thousandfold claim, and a real network on each runtime."""
    disturbed = lab.calm()
    top = ceilings(1, fingerprint().host_id)
    panel = [lab.member("gemm", "gemm", size=SIZE), lab.member("cheat", "gemm", size=SIZE, claims=CHEAT)]
    sets = lab.sets("floor", panel, lab.trials(6, 10))
    yield _product(sets, _floor(panel[0], sets, top), disturbed)
    yield _cheat(sets, _floor(panel[1], sets, top))
    for target in lab.runtimes("onnx", "tflite"):
        yield _network(lab, target, top)


def _floor(member: Member, sets: Sequence[LaunchSet], top: Ceilings) -> Roofline | str:
    found = run_untimed(
        member, purposes={"placement"}, batch=member.options.batch, items=None, outputs_to=None, timeout_s=60
    )
    if isinstance(found, Failure):
        return found.reason
    latency = summarise(member.cell_id, member.cell_id, sets, PROFILES["quick"])
    work = work_of(member.artifact, found.placements, (), member.options.batch, "none")
    return roofline(work, latency, top)


def _latency(sets: Sequence[LaunchSet], cell_id: str) -> Latency:
    return summarise(cell_id, cell_id, sets, PROFILES["quick"])


def _product(sets: Sequence[LaunchSet], found: Roofline | str, disturbed: str) -> Line:
    title = "physical floor: a known product"
    if isinstance(found, str) or found.percent is None:
        return line(title, ("not-evaluable", found if isinstance(found, str) else found.reason), {}, sets)
    latency = _latency(sets, "gemm")
    fast = too_fast(latency, found.least_ns)
    percent = 100 * (found.floor_ns or 0.0) / latency.min_ns  # its best: as the ceiling is the best of many bursts
    span = f"{LOW:.0f} to {HIGH:.0f} %"
    seen = f"{found.macs:.3g} MACs reach {percent:.1f} % of the ceiling at their best ({span}), {_least(found)}"
    verdict = judge(LOW <= percent <= HIGH and not fast, seen, disturbed=disturbed, sets=sets)
    return line(title, verdict if not fast else ("fail", seen), {"percent_of_roofline": percent}, sets)


def _least(found: Roofline) -> str:
    if found.least_ns is None:
        return "no clock was measured"
    share = found.least_ns / (found.floor_ns or 1.0)
    return f"rejected above {100 / share:.0f} % of it"


def _cheat(sets: Sequence[LaunchSet], found: Roofline | str) -> Line:
    title = "physical floor: a cheat is rejected"
    if isinstance(found, str) or found.least_ns is None:
        return line(title, ("not-evaluable", found if isinstance(found, str) else found.reason), {}, sets)
    said = violation(found, _latency(sets, "cheat"))
    return line(title, ("pass" if said else "fail", said or f"{CHEAT:.0f} times the work passed"), {}, sets)


def _network(lab: Lab, target: str, top: Ceilings) -> Line:
    """The default workload must lie under its ceiling: counts that are too high would lift it over."""
    title = f"physical floor: a network on {target}"
    member = model_member(lab, target)
    if isinstance(member, str):
        return line(title, ("not-evaluable", member))
    sets = lab.sets(f"floor-{target}", [member], lab.trials(2, 6), keep=False)
    found = _floor(member, sets, top)
    if isinstance(found, str) or found.percent is None:
        return line(title, ("not-evaluable", found if isinstance(found, str) else found.reason), {}, sets)
    ok = found.percent <= 100 * WINOGRAD and not too_fast(_latency(sets, member.cell_id), found.least_ns)
    seen = f"{found.macs:.3g} MACs reach {found.percent:.1f} % of the ceiling, {found.bound}-bound"
    return line(title, ("pass" if ok else "fail", seen), {"percent_of_roofline": found.percent}, sets)


def planted() -> Iterator[Line]:
    """A floor by hand: work over ceiling; a time just under what nothing beats is caught, one just above is not."""
    top = Ceilings(1, macs_per_s={"float32": 50e9}, most_macs_per_s={"float32": 200e9}, clock_hz=3e9, top_clock_hz=5e9)
    artifact: Any = _Nothing()
    work = work_of(artifact, (Placement("MatMul", "m", "k", "CPU", "float32", PLANTED),), (), 1, "none")
    least_ns = 1e9 * PLANTED / 200e9
    verdicts = []
    for factor in (0.9, 1.1):
        found = roofline(work, _timed(factor * least_ns), top)
        verdicts.append(violation(found, _timed(factor * least_ns)) is not None)
    found = roofline(work, _timed(1e9 * PLANTED / 40e9), top)
    percent = found.percent or 0.0
    ok = verdicts == [True, False] and abs(percent - 80.0) < 1e-9
    seen = f"80 % of the ceiling reads {percent:.4f} %; 10 % under the floor is rejected, 10 % above it is not"
    yield Line("simulated physical floor", "simulated", "pass" if ok else "fail", seen, {"percent": percent})


class _Nothing:
    """An artifact of which nothing is known."""

    realised = "float32"
    weight_bytes: dict[str, int] = {}  # noqa: RUF012  never changed


def _timed(ns: float) -> Latency:
    point = Interval(ns, None, None)
    return Latency(point, None, None, ns, ns, 1e9 / ns, 0.0, 6, 0, 0, 60, None, None, "anchor", "ok")


def known_weights(lab: Lab) -> Iterator[Line]:
    """int8 keeps a quarter of the bytes of the same matrices in float32."""
    title = "known weights by dtype"
    target = next(iter(lab.runtimes("onnx")), "that takes ONNX")
    both = [model_member(lab, target, method) for method in ("baseline", "int8")]
    reason = next((found for found in both if isinstance(found, str)), None)
    if reason is not None:
        yield line(title, ("not-evaluable", reason))
        return
    wide, narrow = (found.artifact.weight_bytes for found in both if isinstance(found, Member))
    whole, quarter = wide.get("float32", 0), narrow.get("int8", 0)
    ok = whole > 0 and abs(4 * quarter / whole - 1) <= 0.01 and set(wide) == {"float32"}
    left = ", ".join(f"{size} bytes of {name}" for name, size in sorted(narrow.items()))
    seen = f"{whole} bytes of float32 become {left}: {whole / max(1, quarter):.2f} times as many in float32 (4)"
    yield line(title, ("pass" if ok else "fail", seen), {"float32_bytes": whole, "int8_bytes": quarter})


def typical_ns(sets: Sequence[LaunchSet], cell_id: str) -> list[float]:
    """Return each launch's median, in ns."""
    return [statistics.median(ns for batch in launch.batches for ns in batch.ns) for launch in launches(sets, cell_id)]
