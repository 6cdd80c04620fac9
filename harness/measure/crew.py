"""The processes of one launch-set: started, warmed, run in turn, and killed together."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from harness import codec
from harness.measure import counters, cpus
from harness.measure.counters import Counters, Disturbance
from harness.measure.member import Member, Opened, Setup, Warmed, WarmUp
from harness.measure.noise import Probe, reading
from harness.measure.process import MEASURING, Worker, WorkerLost
from harness.profiles import Profile
from harness.types import Batch, Failure

PROBE_BUDGET_S = 30.0
PROBE = "harness.measure.probe"


@dataclass
class Player:
    """One member while its set runs."""

    member: Member
    order: int
    worker: Worker
    ready_ns: int = 0
    opened: Opened | None = None
    warmed: Warmed | None = None
    batches: list[Batch] = field(default_factory=list)
    compute: list[Batch] = field(default_factory=list)
    parts: list[Batch] = field(default_factory=list)


@contextlib.contextmanager
def aside(taken: Sequence[int]) -> Generator[bool, None, None]:
    """Keep this thread, and what it starts, off the measured CPUs; yields whether other CPUs are left for it."""
    spare = set(cpus.allowed()) - set(taken)
    if not spare or not hasattr(os, "sched_setaffinity"):
        yield False
        return
    with _on(spare):
        yield True


@contextlib.contextmanager
def _on(wanted: Iterable[int]) -> Generator[None, None, None]:
    """Let this thread, and what it starts meanwhile, run on these CPUs."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, wanted)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class Crew:
    """Players of one attempt, of which only one runs at a time.

    Args:
        members: In start order.
        taken: CPUs that the members are pinned to, one after another.
        alone: No CPU is left beside them, so nothing may start while another warms up.
    """

    def __init__(
        self,
        members: Sequence[Member],
        profile: Profile,
        taken: Sequence[int],
        seed: int,
        *,
        alone: bool,
        timeout_s: float,
        memory_limit_bytes: int | None,
    ) -> None:
        self.members, self.profile, self.taken, self.seed = members, profile, tuple(taken), seed
        self.alone, self.timeout_s, self.memory_limit_bytes = alone, timeout_s, memory_limit_bytes
        self.players: dict[str, Player] = {}
        self.failures: dict[str, Failure] = {}
        self._stack = contextlib.ExitStack()
        self._prober: Worker | None = None

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._stack.close()

    def _worker(self, module: str, python: str | None, threads: int, blame: str, budget_s: float) -> Worker:
        worker = Worker(module, python=python, threads=threads, blame=blame, stage="latency", budget_s=budget_s)
        return self._stack.enter_context(worker)

    def start(self) -> None:
        """Start, load and warm the members one after another; the others are stopped meanwhile.

        While one warms up, the next interpreter already starts on a CPU that is not measured, where there is one.
        The probe starts on the measured CPUs, or before everything else: a member's start is not slowed by it.
        """
        with contextlib.nullcontext() if self.alone else _on(self.taken):
            self._prober = self._worker(PROBE, None, 1, "harness", PROBE_BUDGET_S)
        waiting = None if self.alone else self._launch(0)
        self._prober.greet()
        for place in range(len(self.members)):
            player = waiting or self._launch(place)
            ready = player is not None and self._open(player)
            waiting = None if self.alone else self._launch(place + 1)
            if player is not None and ready:
                self._warm(player)

    def _launch(self, place: int) -> Player | None:
        """Start a process and tell it what it will be, without waiting for it."""
        if place >= len(self.members):
            return None
        member = self.members[place]
        try:
            worker = self._worker(MEASURING, member.python, member.options.threads, member.plugin, self.timeout_s)
        except WorkerLost as lost:
            self.failures[member.cell_id] = lost.failure
            return None
        setup = Setup(member, "latency", "latency", self.seed, self.taken, self.memory_limit_bytes)
        worker.tell("configure", setup=codec.to_data(setup))
        return Player(member, place, worker)

    def _open(self, player: Player) -> bool:
        with self._guard(player):
            player.worker.greet()
            ready = player.worker.answer()
            player.ready_ns = ready["ready_ns"] - player.worker.started_ns
            reply = player.worker.ask("open")
            player.opened = codec.from_data(Opened, reply["opened"], where="a worker's answer")
            return True
        return False

    def _warm(self, player: Player) -> None:
        profile = self.profile
        budget = WarmUp(
            profile.warmup_iterations,
            profile.warmup_ns,
            profile.warmup_max_ns,
            profile.batch_iterations,
            profile.batch_ns,
            profile.batch_max_ns,
        )
        with self._guard(player):
            reply = player.worker.ask("warm", budget=codec.to_data(budget))
            player.warmed = codec.from_data(Warmed, reply["warmed"], where="a worker's answer")
            player.worker.pause()
            self.players[player.member.cell_id] = player

    @contextlib.contextmanager
    def _guard(self, player: Player) -> Generator[None, None, None]:
        """Take a member that fails out of the set; the set goes on."""
        try:
            yield
        except WorkerLost as lost:
            self.failures[player.member.cell_id] = lost.failure
            self.players.pop(player.member.cell_id, None)
            player.worker.kill()

    def rounds(self, order: Sequence[Sequence[str]], first: int) -> tuple[Counters, Counters]:
        """Run the rounds and return the host's counters before and after them.

        Args:
            order: Running order of each round, by cell_id.
            first: Number of the first round.
        """
        before = counters.read(self.taken)
        for number, names in enumerate(order, start=first):
            for position, name in enumerate(names):
                if name in self.players:
                    self._turn(self.players[name], number, position)
        return before, counters.read(self.taken)

    def _turn(self, player: Player, number: int, position: int) -> None:
        with self._guard(player):
            player.worker.proceed()
            reply = player.worker.ask("batch", round=number, position=position)
            player.batches.append(codec.from_data(Batch, reply["batch"], where="a worker's answer"))
            player.worker.pause()

    def compute(self, order: Sequence[str], number: int) -> None:
        """Run one batch of each member with inputs bound before; a member that cannot bind is left out.

        Args:
            order: By cell_id.
            number: Of the round that these batches count as.
        """
        for position, name in enumerate(order):
            player = self.players.get(name)
            if player is None:
                continue
            with self._guard(player):
                player.worker.proceed()
                reply = player.worker.ask("compute", round=number, position=position)
                if reply["batch"] is not None:
                    player.compute.append(codec.from_data(Batch, reply["batch"], where="a worker's answer"))
                player.worker.pause()

    def parts(self, order: Sequence[str], number: int) -> None:
        """Run one batch of each part of the members that are split networks.

        Args:
            order: By cell_id.
            number: Of the round that these batches count as.
        """
        for player in [self.players[name] for name in order if name in self.players]:
            if not player.member.artifact.parts:
                continue
            with self._guard(player):
                player.worker.proceed()
                reply = player.worker.ask("parts", round=number)
                player.parts += [codec.from_data(Batch, item, where="a worker's answer") for item in reply["batches"]]
                player.worker.pause()

    def probe(self) -> Probe:
        """Ask the probe process about the measured CPUs; all members are stopped.

        Raises:
            WorkerLost: The probe itself failed.
        """
        if self._prober is None:
            raise RuntimeError("the crew was not started")
        return reading(self._prober.ask("probe", cpus=list(self.taken)))


def disturbance(window: tuple[Counters, Counters]) -> Disturbance:
    """Return what disturbed the host between two readings."""
    return counters.between(*window)


def effective_threads(effective: Mapping[str, str]) -> str:
    """Return the thread count that the runtime reports: the shortest such name, inter-op pools last."""
    found = [name for name in effective if "thread" in name.lower()]
    names = sorted(found, key=lambda name: ("inter" in name.lower(), len(name)))
    return effective[names[0]] if names else "not reported"
