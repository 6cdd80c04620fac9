"""What a build tells while it works, and how long it will still take."""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from harness.build.graph import COSTS, Node

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_TELLING = 0.02  # below this share done, a step's own progress says little about its end
Kind = Literal["started", "progress", "built", "cached", "failed"]


@dataclass(frozen=True)
class BuildEvent:
    """Something happened to a step.

    Attributes:
        step: Its label, such as "digits-resnet8: int8".
        done, total: Steps that are finished, and all.
        fraction: Sum of the shares (0..1 each) done of the steps that run now, so ``done + fraction`` moves a bar.
        text: What the step says, or why it failed.
        seconds_left: Of the whole build; ``None`` while nothing has been timed.
    """

    kind: Kind
    step: str
    done: int
    total: int
    fraction: float
    text: str
    seconds_left: float | None


class Clock:
    """Times of steps seen so far, and from them the time left."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self._nodes = nodes
        self._seen: dict[str, list[float]] = defaultdict(list)

    def ran(self, node: Node, seconds: float) -> None:
        """Note what a step took, start of its builder included."""
        self._seen[node.stage].append(seconds)

    def event(
        self, kind: Kind, node: Node, running: Mapping[int, tuple[float, float]], workers: int, text: str
    ) -> BuildEvent:
        """Return the event with the state of the whole.

        Args:
            kind: What happened.
            node: To which step.
            running: id of a running node -> its fraction and when it started.
            workers: Steps that can run at a time.
            text: What the step says.
        """
        done = sum(item.state in {"done", "failed"} for item in self._nodes)
        fraction = sum(share for share, _started in running.values())
        left = self._left(running, workers)
        return BuildEvent(kind, node.label, done, len(self._nodes), min(fraction, float(len(running))), text, left)

    def _expected(self, node: Node) -> float:
        seen = self._seen.get(node.stage)
        return sum(seen) / len(seen) if seen else COSTS[node.stage]

    def _left(self, running: Mapping[int, tuple[float, float]], workers: int) -> float | None:
        """Return the larger of the work spread over the workers and the longest chain.

        A lower bound of Graham's for list scheduling: neither more workers nor another order can beat either of them.
        """
        if not self._seen and not any(share > 0 for share, _started in running.values()):
            return None
        rest = {id(node): self._rest(node, running.get(id(node))) for node in self._nodes}
        return max(sum(rest.values()) / max(1, workers), self._longest(rest))

    def _rest(self, node: Node, run: tuple[float, float] | None) -> float:
        if node.state in {"done", "failed"}:
            return 0.0
        share, started = run or (0.0, time.monotonic())
        spent = time.monotonic() - started
        if share > _TELLING:
            return spent * (1 - share) / share
        return max(0.0, self._expected(node) - spent)

    def _longest(self, rest: Mapping[int, float]) -> float:
        chain: dict[int, float] = {}
        for node in reversed(self._nodes):  # children were added after their parents
            chain[id(node)] = rest[id(node)] + max((chain.get(id(child), 0.0) for child in node.children), default=0.0)
        return max(chain.values(), default=0.0)
