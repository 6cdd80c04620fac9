"""Did it get worse? Two runs, hosts, methods or targets: a verdict with an interval for every cell."""

from __future__ import annotations

from harness.compare.render import junit, markdown
from harness.compare.rules import Rule, parse_rule
from harness.compare.run import compare, outcome
from harness.compare.sides import Side, parse_side
from harness.compare.values import Change, Comparison, Pair, Ruled

__all__ = [
    "Change",
    "Comparison",
    "Pair",
    "Rule",
    "Ruled",
    "Side",
    "compare",
    "junit",
    "markdown",
    "outcome",
    "parse_rule",
    "parse_side",
]
