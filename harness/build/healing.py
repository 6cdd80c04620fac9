"""Steps whose files in the cache were damaged after they had been made: they are made again within the run."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.build.cache import Cache
    from harness.build.graph import Node

MADE = 8  # times that a step is made again: several plugins may damage it
TRIES = 2  # times that one is tried again that failed where another plugin may have made it fail


def damaged(cache: Cache, node: Node) -> bool:
    """Tell whether a step was made and its entry is no longer what was written."""
    return node.state == "done" and not node.given and cache.get(node.key) is None


def back(cache: Cache, node: Node) -> list[Node]:
    """Let a damaged step wait to be made again, and what it needs where that is damaged too; return these steps.

    None where it was made again too often.
    """
    if node.again >= MADE:
        return []
    node.again += 1
    node.state, node.failure = "waiting", None  # its value stays: a step that runs now was given it
    return [node, *needed(cache, node)]


def needed(cache: Cache, node: Node) -> list[Node]:
    """Let what a step needs wait to be made again where it is damaged; return these steps."""
    return [again for need in node.needs if damaged(cache, need) for again in back(cache, need)]


def remade(node: Node) -> int:
    """Return how often what a step is given was made again."""
    return sum(need.again for need in node.needs)


def may_retry(node: Node) -> bool:
    """Tell whether a step may be tried once more, and count it."""
    node.tries += 1
    return node.tries <= TRIES


def lost(cache: Cache, end: Node) -> list[Node]:
    """Return what a finished cell is read from and is damaged: its artifact, the model behind it, its data."""
    read = (end, *end.needs) if end.stage == "lower" else (end,)
    return [node for node in read if damaged(cache, node)]
