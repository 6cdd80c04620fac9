"""A network in parts, and the way to cut one: at places that only batches of tensors cross."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor, fx, nn  # noqa: TID253  only methods in PyTorch import this

from harness_torch.counting import macs, parameters

if TYPE_CHECKING:
    from harness.api import Model

SLACK = 0.1  # a part may cost so much more than the best balance asks for, where less crosses the cuts then
_OWN = ("torch.nn", "harness_torch")  # layers that are taken whole


class Chain(nn.Module):
    """Modules that run one after another, each on what the inputs and the modules before it gave, by name.

    Args:
        modules: In running order; the last one gives the outputs.
        inputs: Names of the whole's inputs in call order.
        models: The parts' models: their inputs and outputs by name.
    """

    def __init__(self, modules: Sequence[nn.Module], inputs: Sequence[str], models: Sequence[Model]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(modules)
        self.takes = [list(inputs), *(list(item.inputs) for item in models)]
        self.gives = [list(item.outputs) for item in models]

    def forward(self, *inputs: Tensor) -> Any:
        """Run all parts."""
        known = dict(zip(self.takes[0], inputs, strict=True))
        result: Any = None
        for part, takes, gives in zip(self.parts, self.takes[1:], self.gives, strict=True):
            result = part(*(known[name] for name in takes))
            known.update(zip(gives, result if isinstance(result, tuple) else (result,), strict=True))
        return result


@dataclass(frozen=True)
class Place:
    """Where a network can be cut.

    Attributes:
        after: Number of the last operation before the cut.
        crossing: What goes over it, by the name of the operation that gives it.
        elements: Values per item that go over it.
    """

    after: int
    crossing: tuple[str, ...]
    elements: int


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        plain = type(m).__module__.startswith(_OWN) and not isinstance(m, (nn.Sequential, nn.ModuleList, Chain))
        return plain or super().is_leaf_module(m, module_qualified_name)


class _Seen(fx.Interpreter):
    """Runs a traced module and notes the shape of each value, and what each operation costs."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.values: dict[str, tuple[int, ...] | None] = {}
        self.macs: dict[str, int] = {}

    def run_node(self, n: fx.Node) -> Any:
        if n.op in {"call_module", "call_function", "call_method"}:
            args, kwargs = self.fetch_args_kwargs_from_env(n)
            target: Any = self.fetch_attr(str(n.target)) if n.op == "call_module" else n.target
            self.macs[n.name] = macs(_Call(target, kwargs).eval(), args) if callable(target) else 0
        result = super().run_node(n)
        self.values[n.name] = tuple(result.shape) if isinstance(result, Tensor) else None
        return result


class _Call(nn.Module):
    def __init__(self, target: Any, kwargs: Any) -> None:
        super().__init__()
        self.target, self.kwargs = target, kwargs

    def forward(self, *args: Any) -> Any:
        return self.target(*args, **self.kwargs)


class Cuttable:
    """A traced network with the places where it can be cut.

    Args:
        module: In evaluation mode; it is not changed.
        two, three: Its inputs at batch 2 and at batch 3: what changes with the batch is told from what does not.

    Raises:
        Exception: What ``torch.fx`` raises for code that it cannot follow.
    """

    def __init__(self, module: nn.Module, two: Sequence[Tensor], three: Sequence[Tensor]) -> None:
        import torch

        self.module = module
        self.graph = _Tracer().trace(module)
        traced = fx.GraphModule(module, self.graph)
        seen, other = _Seen(traced), _Seen(traced)
        with torch.no_grad():
            seen.run(*two)
            other.run(*three)
        self._shapes = seen.values
        self._free = {name for name, shape in seen.values.items() if _batched(shape, other.values[name])}
        self.inputs = [node for node in self.graph.nodes if node.op == "placeholder"]
        self.output = next(node for node in self.graph.nodes if node.op == "output")
        self.nodes = [node for node in self.graph.nodes if node.op not in {"placeholder", "output", "get_attr"}]
        self.macs = [seen.macs.get(node.name, 0) for node in self.nodes]
        self.parameters = [self._parameters(node) for node in self.nodes]
        self.places = [place for place in map(self._place, range(len(self.nodes) - 1)) if place is not None]

    def _parameters(self, node: fx.Node) -> int:
        if node.op == "call_module":
            return parameters(self.module.get_submodule(str(node.target)))
        held = [item for item in node.all_input_nodes if item.op == "get_attr"]
        return sum(math.prod(self._shapes[item.name] or (0,)) for item in held)

    def _place(self, after: int) -> Place | None:
        """Return the cut after an operation, or ``None`` where something else than a batch of values crosses it."""
        before, later = set(self.nodes[: after + 1]), {*self.nodes[after + 1 :], self.output}
        crossing = [node for node in self.nodes[: after + 1] if any(user in later for user in node.users)]
        skipping = [node for node in self.inputs if any(user in later for user in node.users)]
        leaves = any(node in before for node in self.output.all_input_nodes)
        if leaves or not crossing or any(node.name not in self._free for node in (*crossing, *skipping)):
            return None
        sizes = [math.prod((self._shapes[node.name] or (0,))[1:]) for node in crossing]
        return Place(after, tuple(node.name for node in crossing), sum(sizes))

    def best(self, parts: int, costs: Sequence[int]) -> list[Place]:
        """Choose the cuts that least goes over, of those at which the most expensive part is nearly the cheapest.

        Args:
            parts: How many; at most one more than there are places.
            costs: Of each operation.
        """
        total = [0, *itertools.accumulate(costs)]
        worst = max(_spans([*(place.after for place in self._chosen(parts, total, None))], total))
        return self._chosen(parts, total, worst * (1 + SLACK))

    def _chosen(self, parts: int, total: Sequence[int], limit: float | None) -> list[Place]:
        """Choose by dynamic programming: the least worst cost, or under a limit of it the least that crosses."""
        last = len(self.nodes) - 1
        found: dict[int, tuple[float, list[Place]]] = {-1: (0, [])}  # last operation -> what is made least, the cuts
        for _number in range(parts - 1):
            reached: dict[int, tuple[float, list[Place]]] = {}
            for place in self.places:
                ways = [
                    (max(least, total[place.after + 1] - total[start + 1]), [*cuts, place])
                    if limit is None
                    else (least + place.elements, [*cuts, place])
                    for start, (least, cuts) in found.items()
                    if start < place.after and (limit is None or total[place.after + 1] - total[start + 1] <= limit)
                ]
                if ways:
                    reached[place.after] = min(ways, key=lambda way: (way[0], -way[1][0].after))
            found = reached
        ends = [
            (max(least, total[-1] - total[start + 1]) if limit is None else least, start, cuts)
            for start, (least, cuts) in found.items()
            if start < last and (limit is None or total[-1] - total[start + 1] <= limit)
        ]
        return min(ends, key=lambda way: (way[0], -way[1]))[2]

    def cut(self, places: Sequence[Place]) -> list[tuple[fx.GraphModule, list[str], list[str]]]:
        """Return each part with the names of what it takes and, but for the last one, of what it gives."""
        ends = [*(place.after for place in places), len(self.nodes) - 1]
        found, start = [], 0
        for at, end in enumerate(ends):
            gives = list(places[at].crossing) if at < len(places) else []
            own = self.nodes[start : end + 1]
            fresh = [name for name in gives if name in {node.name for node in own}]
            found.append(self._part(own, fresh))
            start = end + 1
        return found

    def _part(self, own: Sequence[fx.Node], gives: Sequence[str]) -> tuple[fx.GraphModule, list[str], list[str]]:
        graph = fx.Graph()
        known: dict[fx.Node, fx.Node] = {}
        needed = dict.fromkeys(item for node in own for item in node.all_input_nodes if item not in own)
        takes = [node for node in self.graph.nodes if node in needed and node.op != "get_attr"]
        for node in takes:
            known[node] = graph.placeholder(node.name)
        for node in needed:
            if node.op == "get_attr":
                known[node] = graph.node_copy(node)
        for node in own:
            known[node] = graph.node_copy(node, known.__getitem__)
        if gives:
            values = [known[node] for node in own if node.name in gives]
            graph.output(values[0] if len(values) == 1 else tuple(values))
        else:
            graph.output(fx.node.map_arg(self.output.args[0], known.__getitem__))
        named = [node.name for node in own if node.name in gives]
        return fx.GraphModule(self.module, graph), [node.name for node in takes], named

    def shape(self, name: str) -> tuple[int | None, ...]:
        """Return the shape of a value, its first dimension free."""
        return (None, *(self._shapes[name] or ())[1:])


def _spans(ends: Sequence[int], total: Sequence[int]) -> list[int]:
    """Return the cost of each part of a network that is cut after these operations."""
    places = [0, *(end + 1 for end in ends), len(total) - 1]
    return [total[second] - total[first] for first, second in itertools.pairwise(places)]


def _batched(two: tuple[int, ...] | None, three: tuple[int, ...] | None) -> bool:
    """Tell whether a value is a tensor whose first dimension alone is the batch."""
    return bool(two and three and two[0] == 2 and three[0] == 3 and two[1:] == three[1:])
