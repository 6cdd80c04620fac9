"""Scenarios of a cell, each in a fresh worker whose session MLCommons LoadGen drives (MEASUREMENT 1.3)."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from harness import codec
from harness.measure import cpus
from harness.measure.crew import PROBE, PROBE_BUDGET_S
from harness.measure.member import Member, Setup, WarmUp
from harness.measure.process import Worker, WorkerLost, worker_of
from harness.profiles import Profile
from harness.types import Failure, ScenarioResult

RUN_S = {"quick": 1.5, "standard": 10.0, "publish": 60.0}
SUSTAINED_S = {"quick": 20.0, "standard": 180.0, "publish": 600.0}
SLICES = 10  # of a sustained run
BOUND_FACTOR = 5.0  # times the single-stream p90: the limit of the server's p99 where none is given
SEARCH_STEPS = 6
CONFIRMATIONS = {"quick": 1, "standard": 3, "publish": 5}
LEAST_BOUND_NS = 1_000_000
PACE = 20  # inferences that tell how many samples fill an offline run


def driving_s(scenario: str, profile: Profile) -> float:
    """Return seconds that LoadGen drives a warm worker in one scenario, where no server rate fails its confirmation."""
    runs = {"server": 2 + SEARCH_STEPS + CONFIRMATIONS[profile.name]}  # alone before, and the confirmed rate once more
    lasting = SUSTAINED_S[profile.name] if scenario == "sustained" else RUN_S[profile.name] * runs.get(scenario, 1)
    return profile.warmup_ns / 1e9 + lasting


@dataclass(frozen=True)
class _Ask:
    """A worker that is warm, and how long its runs last."""

    worker: Worker
    seconds: float
    seed: int

    def run(self, scenario: str, **more: Any) -> dict[str, Any]:
        """Run LoadGen once."""
        reply = self.worker.ask(
            "loadgen", ask={"scenario": scenario, "seconds": self.seconds, "seed": self.seed, **more}
        )
        return dict(reply["result"])


def run_scenario(
    member: Member,
    scenario: str,
    profile: Profile,
    *,
    seed: int,
    timeout_s: float,
    bound_ns: int | None = None,
    seconds: float | None = None,
) -> ScenarioResult | Failure:
    """Measure one scenario of a cell.

    Args:
        member: The cell; its batch is that of an inference.
        scenario: "single_stream", "offline", "server" or "sustained".
        profile: How long, and how often a server rate is confirmed.
        seed: Of LoadGen's schedule and samples.
        timeout_s: For all of it.
        seconds: Of one run of LoadGen; ``None`` takes the profile's.
        bound_ns: Limit of the server's p99; ``None`` takes five times the single-stream p90, at least 1 ms.
    """
    taken = cpus.choose(member.options.threads)
    setup = Setup(member, "latency", "latency", seed, taken)
    budget = WarmUp(10, profile.warmup_ns, profile.warmup_max_ns, 5, profile.batch_ns, profile.batch_max_ns)
    try:
        with (
            Worker(PROBE, python=None, threads=1, blame="harness", stage="latency", budget_s=PROBE_BUDGET_S) as prober,
            worker_of(member, "latency", timeout_s) as worker,
        ):
            prober.greet()
            worker.greet()
            worker.ask("configure", setup=codec.to_data(setup))
            worker.ask("open")
            worker.ask("warm", budget=codec.to_data(budget))
            worker.pause()
            before = prober.ask("probe", cpus=list(taken[:8]))
            worker.proceed()
            found = _KINDS[scenario](_Ask(worker, seconds or RUN_S[profile.name], seed), member, profile, bound_ns)
            worker.pause()
            after = prober.ask("probe", cpus=list(taken[:8]))
    except WorkerLost as lost:
        return lost.failure
    noise = {
        "hiccup": max(before["hiccup"], after["hiccup"]),
        "canary_before_gflops": before["gflops"],
        "canary_after_gflops": after["gflops"],
    }
    return ScenarioResult(scenario, figures={**found, **noise}, generator="mlcommons-loadgen")


def _single(ask: _Ask, _member: Member, _profile: Profile, _bound: int | None) -> Mapping[str, float]:
    result = ask.run("single_stream")
    return {**_percentiles(result), "valid": float(result["valid"])}


def _percentiles(result: Mapping[str, Any]) -> dict[str, float]:
    numbers = result["numbers"]
    shares = {"p50_ns": "50.00", "p90_ns": "90.00", "p95_ns": "95.00", "p99_ns": "99.00"}
    found = {name: numbers[f"{share} percentile latency (ns)"] for name, share in shares.items()}
    return found | {"mean_ns": numbers["Mean latency (ns)"]}


def _offline(ask: _Ask, member: Member, _profile: Profile, _bound: int | None) -> Mapping[str, float]:
    taken_ns = ask.worker.ask("infer", count=PACE)["ns"]
    expected = 1e9 * PACE * member.options.batch / max(1, taken_ns)
    result = ask.run("offline", qps=max(1.0, expected))
    return {
        "samples_per_s": result["numbers"]["Samples per second"],
        "batch": float(member.options.batch),
        "valid": float(result["valid"]),
    }


def _server(ask: _Ask, _member: Member, profile: Profile, bound: int | None) -> Mapping[str, float]:
    """Find the highest offered rate whose p99 stays under the limit: bisection, then confirmations."""
    alone = _percentiles(ask.run("single_stream"))
    limit = bound or max(LEAST_BOUND_NS, round(BOUND_FACTOR * alone["p90_ns"]))
    low, high = 0.0, 1e9 / alone["p50_ns"]
    for _ in range(SEARCH_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if _p99(ask, middle, limit) <= limit else (low, middle)
    rate, confirmed = low, 0
    while rate > 0 and confirmed < CONFIRMATIONS[profile.name]:
        if _p99(ask, rate, limit) <= limit:
            confirmed += 1
        else:  # one miss takes the rate down and the confirmations begin anew
            rate, confirmed = (0.95 * rate if rate > 0.05 * high else 0.0), 0
    found = {"qps": rate, "p99_limit_ns": float(limit), "confirmations": float(confirmed)}
    if not rate:
        return found
    last = ask.run("server", qps=rate, bound_ns=limit)
    return found | {"p99_ns": float(last["numbers"][_P99]), "valid": float(last["valid"])}


_P99 = "99.00 percentile latency (ns)"


def _p99(ask: _Ask, rate: float, limit: int) -> float:
    return float(ask.run("server", qps=rate, bound_ns=limit)["numbers"][_P99])


def _sustained(ask: _Ask, _member: Member, profile: Profile, _bound: int | None) -> Mapping[str, float]:
    """Run single-stream for minutes, in slices: heat and power limits show as slices that get slower."""
    long = _Ask(ask.worker, SUSTAINED_S[profile.name] / SLICES, ask.seed)
    slices = [long.run("single_stream") for _ in range(SLICES)]
    medians = [_percentiles(result)["p50_ns"] for result in slices]
    first, last = statistics.median(medians[:2]), statistics.median(medians[-3:])
    found = {"p50_ns": statistics.median(medians), "first_p50_ns": first, "last_p50_ns": last, "slowdown": last / first}
    return found | {"valid": float(all(result["valid"] for result in slices))}


_KINDS: Mapping[str, Callable[[_Ask, Member, Profile, int | None], Mapping[str, float]]] = {
    "single_stream": _single,
    "offline": _offline,
    "server": _server,
    "sustained": _sustained,
}
