"""A step that runs, and what it may run beside."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.build.graph import Node
    from harness.build.pool import Builder


@dataclass
class Running:
    """A step in a builder.

    Attributes:
        deadline: When it counts as hanging; moves on with every progress that is reported.
        owners: Distributions whose code it runs.
        beside: Whether code of other distributions ran meanwhile, which may have reached it.
        remade: How often what it was given had been made again when it began.
    """

    node: Node
    builder: Builder
    holder: AbstractContextManager[object]
    deadline: float
    started: float
    owners: frozenset[str]
    remade: int
    fraction: float = 0.0
    beside: bool = False

    def apart(self, node: Node, owners: frozenset[str]) -> bool:
        """Tell whether another step may not run beside this one: one of them failed beside another plugin before."""
        return owners != self.owners and bool(node.tries or self.node.tries)

    def meet(self, other: Running) -> None:
        """Note that two steps run at the same time."""
        self.beside = self.beside or not other.owners <= self.owners
