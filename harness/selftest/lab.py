"""Where self-tests run: targets of known truth in real launch-sets, whose raw samples are kept for resuming."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from harness import codec, params
from harness.errors import PlanError
from harness.measure import Member, cpus, run_set, wait_calm
from harness.measure.process import WorkerLost
from harness.plugins import Registry
from harness.profiles import PROFILES, Profile
from harness.selftest.values import Line, Verdict
from harness.types import REPLICATION, Artifact, Launch, LaunchSet, Options, Step

_MS = 1_000_000
SHORT = replace(
    PROFILES["quick"], rounds=6, batch_iterations=5, batch_ns=10 * _MS, batch_max_ns=200 * _MS,
    warmup_iterations=10, warmup_ns=20 * _MS, warmup_max_ns=150 * _MS,
)  # fmt: skip
TIMEOUT_S = 120.0
ITEMS = 64


@dataclass(frozen=True)
class Lab:
    """The means of a self-test.

    Attributes:
        registry: Where the targets of known truth come from.
        folder: Keeps raw launch-sets, so that a full self-test resumes.
        full: All trials, not a few.
        calm_s: Longest wait for a calm window before a line.
        note: Hears what happens.
    """

    registry: Registry
    folder: Path
    full: bool
    calm_s: float
    note: Callable[[str], None]
    seed: int = 0

    def trials(self, plain: int, full: int) -> int:
        """Return how often something is tried."""
        return full if self.full else plain

    def member(self, cell_id: str, target: str, **given: Any) -> Member:
        """Return a cell on a target that runs no model.

        Raises:
            PlanError: No plugin offers that target.
        """
        offer = self.registry.find("target", target)
        built = params.build(offer.spec.params, given, owner=f"target {target!r}")
        artifact = Artifact(self._model() / "model.bin", "onnx", "selftest", "float32", "none", 4, 4)
        return Member(
            cell_id, offer.plugin, Step(target, given), codec.to_data(built), artifact, Options(), self._model()
        )

    def runtimes(self, *formats: str) -> list[str]:
        """Return the default targets that run models and take one of these formats, by name."""
        specs = [offer.spec for offer in self.registry.targets.values()]
        return sorted(spec.name for spec in specs if spec.default and spec.ranked and spec.accepts & set(formats))

    def _model(self) -> Path:
        """Return a folder with a file that stands for a model, what it declares, and items to run on."""
        folder = self.folder / "model"
        if not (folder / "x.npy").exists():
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "model.bin").write_bytes(b"none")
            declared = {"inputs": {"x": {"dtype": "float32", "shape": [None, 8]}}, "outputs": ["y"]}
            (folder / "null.json").write_text(json.dumps(declared))
            np.save(folder / "x.npy", np.random.default_rng(0).normal(size=(ITEMS, 8)).astype(np.float32))
        return folder

    def sets(
        self,
        group: str,
        members: Sequence[Member],
        count: int,
        *,
        profile: Profile = SHORT,
        keep: bool = True,
        first: int = 0,
    ) -> list[LaunchSet]:
        """Run launch-sets, or read those that an interrupted self-test left; each is kept as it ends."""
        return [self._set(group, number, members, profile, keep) for number in range(first, first + count)]

    def _set(self, group: str, number: int, members: Sequence[Member], profile: Profile, keep: bool) -> LaunchSet:
        path = self.folder / "raw" / f"{group}-{number:03}.json"
        if keep and path.exists():
            return codec.loads(LaunchSet, path.read_bytes(), where=str(path))
        found = run_set(
            group,
            number * REPLICATION,
            "variants",
            members[0].cell_id,
            members,
            profile,
            self.seed,
            timeout_s=TIMEOUT_S,
        )
        if found.failures:
            first = next(iter(found.failures.values()))
            raise PlanError(f"a target of known truth failed: {first.status}: {first.reason}")
        if keep:
            path.parent.mkdir(parents=True, exist_ok=True)
            codec.write_whole(path, codec.dumps(found))
        return found

    def calm(self, limit_s: float | None = None) -> str:
        """Wait for a calm window, ``calm_s`` without a limit; return what still disturbs, empty where nothing does."""
        try:
            wait_s, note = (self.calm_s, self.note) if limit_s is None else (limit_s, None)
            return wait_calm(cpus.choose(1), limit_s=wait_s, on_wait=note).reason
        except WorkerLost as lost:
            return f"the probe failed: {lost}"


def launches(sets: Sequence[LaunchSet], cell_id: str | None = None) -> list[Launch]:
    """Return the launches of all cells, or of one."""
    return [launch for item in sets for launch in item.launches if cell_id in {None, launch.cell_id}]


def samples(sets: Sequence[LaunchSet], cell_id: str, *, bound: bool = False) -> list[int]:
    """Return every iteration of a cell, in ns; with ``bound`` those whose inputs were handed over before."""
    return [
        ns
        for launch in launches(sets, cell_id)
        for batch in (launch.compute if bound else launch.batches)
        for ns in batch.ns
    ]


def canary_spread(sets: Sequence[LaunchSet]) -> float:
    """Return by how much the canary's fastest rate lies above its slowest, as a share."""
    rates = [rate for x in launches(sets) for rate in (x.noise.canary_before_gflops, x.noise.canary_after_gflops)]
    return max(rates) / min(rates) - 1


def noise_of(sets: Sequence[LaunchSet]) -> dict[str, int]:
    """Count the noise verdicts of all launches."""
    return dict(sorted(Counter(launch.noise.verdict for launch in launches(sets)).items()))


def judge(ok: bool, seen: str, *, disturbed: str, sets: Sequence[LaunchSet]) -> tuple[Verdict, str]:
    """Return the verdict of a live line: where the host was disturbed, a miss says nothing about the harness.

    A miss counts as disturbed only where the harness itself said so: a calm window that was not found, or launches
    flagged by their own evidence. A miss that nothing flagged is a failure.
    """
    if ok:
        return "pass", seen
    flagged = sum(launch.noise.verdict != "ok" for launch in launches(sets))
    total = max(1, len(launches(sets)))
    if disturbed:
        return "not-evaluable", f"{seen}; no calm window: {disturbed}"
    if flagged > 0.2 * total:
        return "not-evaluable", f"{seen}; {flagged} of {total} launches were disturbed, and flagged"
    return "fail", seen


def line(
    name: str, verdict: tuple[Verdict, str], figures: Mapping[str, float] | None = None, sets: Sequence[LaunchSet] = ()
) -> Line:
    """Return a live line."""
    return Line(name, "live", verdict[0], verdict[1], figures or {}, noise_of(sets))
