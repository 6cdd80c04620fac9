"""Demands on one launch-set, from its raw samples alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from harness.measure.noise import due
from harness.profiles import Profile
from harness.store.layout import set_name
from harness.types import Batch, Launch, LaunchSet, NoiseVerdict, Options

Breach = tuple[str, str]  # the demand's name, and what was found
FILLED = 0.9  # of a launch's wall time its iterations fill; in 5,000 real batches the least was 0.77, beside neighbours
BATCH_FILLED = 0.5  # of one batch, which a stop of the whole guest between two iterations may lengthen
LOOP_NS = 500  # between two iterations, which the loop may take: benchmarks/test_loop_cost.py holds it to that
CPU_SLACK_NS = 20_000_000  # CPU time is counted in ticks of up to 10 ms, at both ends
SECONDS_SLACK = 1.0  # a set's start is written to the second
_MILD_FIRST: tuple[NoiseVerdict, ...] = ("ok", "suspect", "noisy")


@dataclass(frozen=True)
class Claims:
    """What the launches of a run have to live up to.

    Attributes:
        options: cell_id -> the options of its request; cells without a record are missing.
        cores: Logical cores of the host; ``None`` where not known.
        elsewhere: cell_ids of what another machine ran and timed: this host's noise and cores say nothing about them.
    """

    profile: Profile
    options: Mapping[str, Options]
    cores: int | None
    elsewhere: frozenset[str] = frozenset()


def breaches(name: str, item: LaunchSet, claims: Claims) -> Iterator[Breach]:
    """Yield what a launch-set breaks."""
    if name != set_name(item.group, item.index):
        yield "set-name", f"lies under {name}, and is {set_name(item.group, item.index)}"
    if item.anchor is not None and item.anchor not in item.members:
        yield "set-members", f"its anchor {item.anchor} is no member"
    yield from _company(item)
    for launch in item.launches:
        for demand, what in _launch(launch, item, claims):
            yield demand, f"launch {launch.order} of {launch.cell_id}: {what}"


def _company(item: LaunchSet) -> Iterator[Breach]:
    pids = Counter(launch.pid for launch in item.launches)
    for pid, count in pids.items():
        if count > 1:
            yield "fresh-process", f"process {pid} stands for {count} launches"
    turns = Counter((batch.round, batch.position) for launch in item.launches for batch in launch.batches)
    for (number, position), count in turns.items():
        if count > 1:
            yield "turns", f"{count} batches ran in round {number} at position {position}"
    inside = sum(launch.warmup_ns + sum(b.wall_ns for b in launch.batches) for launch in item.launches) / 1e9
    if inside > item.seconds + SECONDS_SLACK:
        yield "set-seconds", f"lasted {item.seconds:.1f} s, what ran inside it {inside:.1f} s"


def _launch(launch: Launch, item: LaunchSet, claims: Claims) -> Iterator[Breach]:
    if launch.cell_id not in item.members:
        yield "set-members", "is of no member of its set"
    if launch.set_index != item.index:
        yield "set-index", f"names set {launch.set_index}, lies in {item.index}"
    if launch.discarded is not None and not launch.discarded.strip():
        yield "discard-reason", "is left out without a reason"
    times = {"start": launch.ready_ns, "load": launch.load_ns, "first inference": launch.first_ns}
    for what, ns in times.items():
        if ns is not None and ns <= 0:
            yield "start-times", f"{what} took {ns} ns"
    yield from _budget(launch, claims.profile)
    if launch.cell_id in claims.elsewhere:
        if launch.noise.verdict == "ok":
            yield "noise-verdict", "is called ok, and nothing watched the device that ran it"
        return
    yield from _resources(launch, claims)
    yield from _noise(launch, claims)
    yield from _filled(launch)
    for batch in launch.batches:
        for demand, found in _batch(batch, launch, claims):
            yield demand, f"round {batch.round}: {found}"


def _budget(launch: Launch, profile: Profile) -> Iterator[Breach]:
    whole = launch.warmup_iterations >= profile.warmup_iterations and launch.warmup_ns >= profile.warmup_ns
    if not whole and launch.warmup_ns < profile.warmup_max_ns:
        asked = f"{profile.warmup_iterations} iterations and {profile.warmup_ns / 1e6:.0f} ms"
        found = f"{launch.warmup_iterations} iterations and {launch.warmup_ns / 1e6:.0f} ms"
        yield "warm-up", f"{found}, profile {profile.name} asks for {asked}"
    rounds = len({batch.round for batch in launch.batches})
    if rounds < profile.rounds:
        yield "rounds", f"{rounds} rounds, profile {profile.name} asks for {profile.rounds}"


def _resources(launch: Launch, claims: Claims) -> Iterator[Breach]:
    asked = claims.options.get(launch.cell_id)
    if asked is None:
        return
    if claims.cores is not None and asked.threads > claims.cores:
        yield "threads", f"{asked.threads} threads on a host with {claims.cores} logical cores"
    said = launch.threads_effective.split(" ", maxsplit=1)[0]
    if said.isdigit() and int(said) not in {0, asked.threads}:  # 0: a target that runs no model
        yield "threads", f"{asked.threads} threads were asked for, the runtime used {said}"
    if launch.affinity and len(set(launch.affinity)) < asked.threads:
        yield "affinity", f"{asked.threads} threads on {len(set(launch.affinity))} CPUs"


def _filled(launch: Launch) -> Iterator[Breach]:
    timed = sum(sum(batch.ns) for batch in launch.batches)
    wall = sum(batch.wall_ns for batch in launch.batches)
    between = sum(map(_between, launch.batches))
    if launch.inner_loops == 1 and timed + between < FILLED * wall:
        yield "wall-time", f"iterations fill {timed / wall:.0%} of its batches"


def _between(batch: Batch) -> int:
    """Return the nanoseconds that may pass between iterations: the loop's, and what others had of the CPU."""
    return LOOP_NS * len(batch.ns) + max(0, batch.wall_ns - batch.cpu_ns)


def _noise(launch: Launch, claims: Claims) -> Iterator[Breach]:
    asked = claims.options.get(launch.cell_id)
    evident = due(launch.noise, launch.batches, asked.threads if asked else None)
    if _MILD_FIRST.index(launch.noise.verdict) < _MILD_FIRST.index(evident):
        yield "noise-verdict", f"is called {launch.noise.verdict}, its evidence says {evident}"


def _batch(batch: Batch, launch: Launch, claims: Claims) -> Iterator[Breach]:
    if not batch.ns or min(batch.ns) < 0 or (launch.inner_loops == 1 and min(batch.ns) == 0):
        yield "samples", f"holds {len(batch.ns)} iterations, the shortest of {min(batch.ns, default=0)} ns"
        return
    least = claims.profile.batch_iterations
    if len(batch.ns) < least and batch.wall_ns < claims.profile.batch_max_ns:
        yield "batch-size", f"{len(batch.ns)} iterations, profile {claims.profile.name} asks for {least}"
    timed = sum(batch.ns) * launch.inner_loops
    if timed > batch.wall_ns:
        yield "wall-time", f"iterations last {timed} ns in a batch of {batch.wall_ns} ns"
    if launch.inner_loops == 1 and timed + _between(batch) < BATCH_FILLED * batch.wall_ns:
        yield "wall-time", f"iterations fill {timed / batch.wall_ns:.0%} of the batch"
    if claims.cores is not None and batch.cpu_ns > batch.wall_ns * claims.cores + CPU_SLACK_NS:
        yield "cpu-time", f"{batch.cpu_ns} ns of CPU in {batch.wall_ns} ns on {claims.cores} cores"


def repeated(sets: Mapping[str, LaunchSet]) -> Iterator[tuple[str, str]]:
    """Yield (set name, what) for batches that hold the nanoseconds of another, or one value only.

    Samples that average an inner loop may agree by chance and are left out.
    """
    seen: dict[tuple[int, ...], str] = {}
    for name, item in sets.items():
        for launch in item.launches:
            for batch in launch.batches if launch.inner_loops == 1 else ():
                where = f"launch {launch.order} of {launch.cell_id}, round {batch.round}"
                if len(batch.ns) < 5:
                    continue
                if len(set(batch.ns)) == 1:
                    yield name, f"{where}: {len(batch.ns)} iterations of {batch.ns[0]} ns each"
                elif batch.ns in seen:
                    yield name, f"{where}: the same {len(batch.ns)} samples as {seen[batch.ns]}"
                seen.setdefault(batch.ns, f"{where} of {name}")
