"""Agreement with the vendors' own tools, interleaved with ours in one run on a real model."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial

from harness.bench.run import prepare
from harness.bench.shared import member_of
from harness.build import Built, Cache, build_plan
from harness.environment import inherited
from harness.errors import HarnessError
from harness.measure import Member, cpus
from harness.measure.cpus import effective_cores
from harness.measure.scenarios import run_scenario
from harness.plan import Request
from harness.profiles import PROFILES
from harness.selftest.lab import Lab, canary_spread, judge, line, samples
from harness.selftest.values import Line
from harness.specs import ToolRun, VendorTool
from harness.types import Failure, LaunchSet

BATCH = 16  # of the default workload: an inference then lasts for more than a millisecond
AGREE, AGREE_NS = 0.03, 30_000  # share above 1 ms, nanoseconds below it
OURS = replace(PROFILES["quick"], batch_ns=150_000_000, warmup_ns=300_000_000)


def agreement(lab: Lab) -> Iterator[Line]:
    """Compare with the tools that targets name as their vendors', and with LoadGen SingleStream."""
    for target in lab.runtimes("onnx", "tflite"):
        for tool in lab.registry.targets[target].spec.vendor_tools:
            theirs = partial(vendors_ns, tool, _seconds(lab))
            yield _line(lab, f"agreement with {tool.name}", target, theirs, bound=tool.bound)
    for target in lab.runtimes("onnx"):
        yield _line(lab, f"agreement with LoadGen on {target}", target, lambda member: _loadgen(member, _seconds(lab)))


def _seconds(lab: Lab) -> float:
    return 10.0 if lab.full else 2.0


def _line(lab: Lab, name: str, target: str, theirs: Callable[[Member], float | str], *, bound: bool = False) -> Line:
    """Alternate our launch-set and their tool; the median log-ratio over rounds decides.

    With ``bound`` their time is held against calls whose inputs were handed over before: handing them over and copying
    outputs out, which end-to-end calls do, is not in it.
    """
    member = model_member(lab, target)
    if isinstance(member, str):
        return line(name, ("not-evaluable", member))
    disturbed = lab.calm()
    rounds, sets, logs, ours_ns = lab.trials(2, 6), [], [], 0.0
    for number in range(rounds):
        found = theirs(member) if number % 2 else None
        sets += lab.sets(f"vendor-{target}", [member], 1, profile=OURS, keep=False)
        found = theirs(member) if found is None else found
        if isinstance(found, str):
            return line(name, ("not-evaluable", found))
        ours_ns = statistics.median(samples(sets[-1:], member.cell_id, bound=bound))
        logs.append(math.log(ours_ns / found))
    return _verdict(name, "compute only" if bound else "end-to-end", logs, ours_ns, sets, disturbed)


def _verdict(
    name: str, kind: str, logs: Sequence[float], ours_ns: float, sets: Sequence[LaunchSet], disturbed: str
) -> Line:
    middle = statistics.median(logs)
    apart_ns = abs(1 - math.exp(-middle)) * ours_ns
    ok = abs(middle) <= AGREE or (ours_ns < 1e6 and apart_ns <= AGREE_NS)
    moved = canary_spread(sets)
    unstable = disturbed or (f"the canary moved by {moved:.0%} between rounds" if moved > 0.05 else "")
    apart = f"{math.expm1(middle):+.1%} over {len(logs)} rounds (within 3 %, or 30 us below 1 ms)"
    seen = f"ours {ours_ns / 1e6:.3f} ms {kind}, {apart}"
    figures = {"log_ratio": middle, "ours_ns": ours_ns, "canary_spread": moved}
    return line(name, judge(ok, seen, disturbed=unstable, sets=sets), figures, sets)


def model_member(lab: Lab, target: str, method: str = "baseline") -> Member | str:
    """Build the default workload for a target, or say why it cannot be."""
    if target not in lab.registry.targets:
        return f"no plugin offers target {target!r}"
    request = Request(methods=(method,), targets=(target,), batches=(BATCH,))
    plan, states = prepare(request, lab.registry)
    planned = next(item for item in plan.cells if item.labels["method"] == method)
    if planned.impossible is not None:
        return planned.impossible.reason
    built: dict[str, Built | Failure] = dict(
        build_plan(plan, Cache(), registry=lab.registry, workers=effective_cores(), states=states)
    )
    found = built[planned.cell.cell_id]
    if isinstance(found, Failure):
        return found.reason
    return member_of(planned, found, request)


def vendors_ns(tool: VendorTool, seconds: float, member: Member) -> float | str:
    """Return the median of a vendor's tool in ns, or why there is none."""
    (cpu,) = cpus.choose(1)
    asked = ToolRun(
        artifact=member.artifact, shapes=_shapes(member), seconds=seconds, cpu=cpu, environment=inherited(1)
    )
    try:
        return tool.median_ns(asked)
    except HarnessError as error:
        return error.message


def _shapes(member: Member) -> dict[str, tuple[int, ...]]:
    import numpy as np

    files = sorted(member.evaluation.glob("*.npy"))
    shapes = [np.load(file, mmap_mode="r", allow_pickle=False).shape[1:] for file in files]
    return {file.stem: (member.options.batch, *shape) for file, shape in zip(files, shapes, strict=True)}


def _loadgen(member: Member, seconds: float) -> float | str:
    found = run_scenario(member, "single_stream", PROFILES["quick"], seed=0, timeout_s=120, seconds=seconds)
    return found.reason if isinstance(found, Failure) else float(found.figures["p50_ns"])
