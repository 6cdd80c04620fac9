"""Launch-sets: fresh processes of an anchor and its variants, interleaved in balanced order (MEASUREMENT 1.4)."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

from harness.measure import clean, cpus, host
from harness.measure.calm import wait_calm
from harness.measure.clean import Usual
from harness.measure.counters import Disturbance
from harness.measure.crew import Crew, Player, aside, disturbance, effective_threads
from harness.measure.member import Member
from harness.measure.noise import Probe, assess, unwatched
from harness.measure.order import generator, schedule
from harness.measure.process import WorkerLost
from harness.profiles import Profile
from harness.types import SCHEMA, Failure, Launch, LaunchSet

NOISY_SHARE = 0.5  # of launches: then the set is repeated, where the profile retries
_NO_RETRY = {"not-applicable", "unavailable"}


@dataclass
class _Plan:
    """What every attempt of one set shares."""

    group: str
    index: int
    profile: Profile
    seed: int
    timeout_s: float
    memory_limit_bytes: int | None
    host_id: str
    attempts: int = 0
    launches: list[Launch] = field(default_factory=list)


def run_set(
    group: str,
    index: int,
    purpose: Literal["variants", "link"],
    anchor: str | None,
    members: Sequence[Member],
    profile: Profile,
    seed: int,
    *,
    timeout_s: float,
    memory_limit_bytes: int | None = None,
) -> LaunchSet:
    """Run one launch-set and return its raw samples; no process of it is left.

    Members that fail leave the set, are tried once more with the anchor alone, and stand in ``failures`` if they
    fail again. Where the profile retries, a set with mostly noisy launches is repeated; its launches are kept with
    the reason why they do not count. Rounds are numbered through all attempts, so that launches pair by round.

    Args:
        group: Hash of members and options.
        index: Number of this set within its group; seeds the order and the inputs.
        purpose: Whether the members are variants of one anchor, or the anchors of all targets.
        anchor: cell_id of the member that the others are compared with.
        members: Who takes part.
        profile: Rounds and budgets.
        seed: Of the run.
        timeout_s: Time that one member may take in one attempt, from start to last batch.
        memory_limit_bytes: RLIMIT_DATA of each process.

    Call it from the main thread, or one that outlives the set: the kernel kills workers with the thread that
    started them.
    """
    started, begin = datetime.now(UTC), time.monotonic()
    plan = _Plan(group, index, profile, seed, timeout_s, memory_limit_bytes, host.fingerprint().host_id)
    failures = _with_retries(plan, members)
    by_id = {member.cell_id: member for member in members}
    for cell_id in [name for name, failure in failures.items() if failure.status not in _NO_RETRY]:
        company = [by_id[anchor]] if anchor is not None and anchor in by_id and anchor not in failures else []
        again = _attempt(plan, [*company, by_id[cell_id]])
        failures.pop(cell_id)
        if cell_id in again:  # an anchor that died as its company was sound beside the others
            failures[cell_id] = again[cell_id]
    return LaunchSet(
        SCHEMA,
        group,
        index,
        purpose,
        anchor,
        tuple(member.cell_id for member in members),
        started.isoformat(timespec="seconds"),
        time.monotonic() - begin,
        tuple(plan.launches),
        failures,
    )


def _with_retries(plan: _Plan, members: Sequence[Member]) -> dict[str, Failure]:
    """Attempt the set until it is not noisy or the retries are used up; the last attempt stands.

    A noisy set is repeated, not the whole cell after a pause (MEASUREMENT 1.8): the noise of a shared host has hardly a
    memory. Of 135 launches on an idle VM 18 % were noisy: 18 % of those that followed a noisy one within 2.5 s, 16 %
    of those 25 to 40 s after one.
    """
    for left in range(plan.profile.retries, -1, -1):
        first = len(plan.launches)
        failures = _attempt(plan, members)
        fresh = plan.launches[first:]
        noisy = [launch for launch in fresh if launch.noise.verdict == "noisy"]
        if not left or len(noisy) <= NOISY_SHARE * len(fresh):
            return failures
        plan.launches[first:] = [_discard(launch, f"{len(noisy)} of {len(fresh)} launches noisy") for launch in fresh]
        _back_off(plan.profile, members)
    raise AssertionError("the last attempt always returns")


def _back_off(profile: Profile, members: Sequence[Member]) -> None:
    """Wait for a calm window before the next attempt, as long as the profile allows."""
    if not profile.backoff_seconds:
        return
    taken = cpus.choose(max(member.options.threads for member in members))
    with contextlib.suppress(WorkerLost):  # a probe that fails costs the wait, not the set
        wait_calm(taken, limit_s=profile.backoff_seconds)


def _discard(launch: Launch, why: str) -> Launch:
    own = "; ".join(launch.noise.reasons)
    return dataclasses.replace(launch, discarded=f"set repeated: {why}" + (f" ({own})" if own else ""))


def _attempt(plan: _Plan, members: Sequence[Member]) -> dict[str, Failure]:
    """Start the members, run the rounds, kill them; launches go to the plan, failures are returned."""
    chance = generator(plan.seed, plan.group, plan.index, plan.attempts)
    first_round = plan.attempts * plan.profile.rounds
    plan.attempts += 1
    starters = chance.sample(list(members), len(members))
    taken = cpus.choose(max(member.options.threads for member in members))
    order = schedule([member.cell_id for member in members], plan.profile.rounds, chance)
    with (
        aside(taken) as spare,
        Crew(
            starters,
            plan.profile,
            taken,
            chance.getrandbits(32),
            alone=not spare,
            timeout_s=plan.timeout_s,
            memory_limit_bytes=plan.memory_limit_bytes,
        ) as crew,
    ):
        try:
            crew.start()
            before = crew.probe()
            window = disturbance(crew.rounds(order, first_round))
            crew.compute(order[-1], first_round + plan.profile.rounds - 1)
            crew.parts(order[-1], first_round + plan.profile.rounds - 1)
            after = crew.probe()
        except WorkerLost as lost:  # only the probe's own: members are guarded one by one
            return {member.cell_id: lost.failure for member in members}
        rates = clean.remember(f"{plan.host_id}-{before.library}", [before.gflops, after.gflops])
        for player in crew.players.values():
            plan.launches.append(_launch(plan, player, before, after, window, clean.usual(rates)))
        return dict(crew.failures)


def _launch(
    plan: _Plan, player: Player, before: Probe, after: Probe, window: Disturbance, usual: Usual | None
) -> Launch:
    opened, warmed, member = player.opened, player.warmed, player.member
    if opened is None or warmed is None:
        raise RuntimeError(f"member {member.cell_id} ran without being opened and warmed")
    threads = member.options.threads
    noise = assess(player.batches, before, after, window, threads=threads, usual=usual)
    if opened.own_clock:
        noise = unwatched(noise)
    return Launch(
        member.cell_id,
        plan.index,
        player.order,
        player.worker.pid,
        opened.load_ns,
        opened.first_ns,
        warmed.iterations,
        warmed.ns,
        warmed.steady,
        warmed.inner_loops,
        opened.affinity,
        effective_threads(opened.effective),
        tuple(player.batches),
        noise,
        batch_size=member.options.batch,
        compute=tuple(player.compute),
        parts=tuple(player.parts),
        ready_ns=player.ready_ns,
    )
