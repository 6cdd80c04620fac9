"""Steps whose files in the cache were damaged after they had been made: they are made again within the run."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.build.cache import Cache
    from harness.build.graph import Node

MOST = 2  # times that a step is made again, or tried again


def damaged(cache: Cache, node: Node) -> bool:
    """Tell whether a step was made and its entry is no longer what was written."""
    return node.state == "done" and not node.given and cache.get(node.key) is None


def back(cache: Cache, node: Node) -> list[Node]:
    """Let a damaged step wait to be made again, and what it needs where that is damaged too; return these steps.

    None where it was made again too often.
    """
    if node.again >= MOST:
        return []
    node.again += 1
    node.state, node.entry, node.value, node.failure = "waiting", None, None, None
    return [node, *(again for need in node.needs if damaged(cache, need) for again in back(cache, need))]


def remade(node: Node) -> int:
    """Return how often what a step is given was made again."""
    return sum(need.again for need in node.needs)


def retried(cache: Cache, node: Node, *, disturbed: bool = False) -> list[Node] | None:
    """Return the steps to make before one is tried again; ``None`` where what became of it is its own.

    Args:
        cache: Where the entries are.
        node: A step that failed, or whose entry was damaged before it was taken.
        disturbed: Whether something else may have made it fail.
    """
    if node.again >= MOST:
        return None
    found = [again for need in node.needs if damaged(cache, need) for again in back(cache, need)]
    if not (disturbed or found or any(need.state != "done" for need in node.needs)):
        return None
    node.again += 1
    return found


def lost(cache: Cache, end: Node) -> list[Node]:
    """Return what a finished cell is read from and is damaged: its artifact, the model behind it, its data."""
    read = (end, *end.needs) if end.stage == "lower" else (end,)
    return [node for node in read if damaged(cache, node)]
