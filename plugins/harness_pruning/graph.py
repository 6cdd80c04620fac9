"""Groups of layers whose channels go together: the dependency graph of torch-pruning, with recurrent layers added."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from harness.api import MissingDependency
from harness_pruning.grouped import Grouped, grouped_pruner, is_grouped
from harness_pruning.importance import by_channel
from harness_pruning.recurrent import fixed_pruner, opaque, recurrent_pruner

if TYPE_CHECKING:
    from torch import Tensor, nn

    from harness_pruning.importance import Evidence

# operators that multiply activations with each other couple their channels in ways that the graph does not show
_PRODUCTS = ("attention", "bmm", "baddbmm", "softmax")


class Groups:
    """The prunable groups of one module; built by a call, so the module must run on the inputs."""

    def __init__(self, module: nn.Module, inputs: Sequence[Tensor]) -> None:
        import torch
        from torch import nn

        tp = _torch_pruning()
        self._names = {layer: name for name, layer in module.named_modules()}
        recurrent = {type(layer) for layer in self._names if isinstance(layer, nn.RNNBase)}
        attention = {type(layer) for layer in self._names if isinstance(layer, nn.MultiheadAttention)}
        several = {type(layer) for layer in self._names if isinstance(layer, Grouped)}
        pruners = {kind: recurrent_pruner() for kind in recurrent} | {kind: fixed_pruner() for kind in attention}
        pruners |= {kind: grouped_pruner() for kind in several}
        self._roots = [nn.modules.conv._ConvNd, nn.Linear, *recurrent]
        module.requires_grad_()  # the trace follows gradients
        with torch.enable_grad(), opaque(module, (nn.RNNBase, nn.MultiheadAttention)):
            self._graph = tp.DependencyGraph().build_dependency(
                module, tuple(inputs), lambda net, values: net(*values), customized_pruners=pruners, verbose=False
            )
        self._fixed = self._around_products()

    def prunable(self) -> Iterator[Any]:
        """Yield each group of coupled layers whose channels may go, as torch-pruning's group of all its channels."""
        for group in self._graph.get_all_groups(root_module_types=self._roots):
            if all(self._may_go(item.dep) and self._aligned(item, group) for item in group):
                yield group

    def fold(self, group: Any) -> int:
        """Return how many equal parts of the channels must lose the same ones: several around a grouped convolution."""
        return math.lcm(*(layer.groups for item in group if is_grouped(layer := item.dep.target.module)))

    def _aligned(self, item: Any, group: Any) -> bool:
        """Tell whether a grouped convolution sees the group's channels, all of them in their order and no others."""
        layer, count = item.dep.target.module, self.channels(group)
        whole = list(item.idxs) == list(item.root_idxs) == list(range(count))
        return not is_grouped(layer) or (isinstance(layer, Grouped) and whole and count % self.fold(group) == 0)

    def name(self, group: Any) -> str:
        """Return the name of the layer that leads a group."""
        return self._names[group[0].dep.target.module]

    def channels(self, group: Any) -> int:
        """Return how many channels the leading layer has."""
        return len(group[0].idxs)

    def kind(self, group: Any) -> str:
        """Return the kind of the leading layer: "conv", "linear" or "recurrent"."""
        from torch import nn

        layer = group[0].dep.target.module
        return "linear" if isinstance(layer, nn.Linear) else "recurrent" if isinstance(layer, nn.RNNBase) else "conv"

    def scores(self, group: Any, evidence: Evidence, *, own: bool = False) -> Tensor:
        """Return the importance of each channel over all weights that would go with it: shape [channels].

        Args:
            group: Of coupled layers.
            evidence: The criterion and what it looks at. The response of coupled layers counts on average.
            own: Look at the weights that make the channels, not at those that read them.
        """
        import torch

        count = self.channels(group)
        if evidence.importance == "random":
            return torch.rand(count)
        total, parts = torch.zeros(count), 0
        for item in group:
            out = self._graph.is_out_channel_pruning_fn(item.dep.handler)
            layer = item.dep.target.module
            if evidence.importance == "snr":
                found = [evidence.ratios[layer]] if out and layer in evidence.ratios else []
            else:
                found = list(by_channel(layer, evidence, out=out)) if out or not own else []
            for part in found:
                parts += 1
                evidence.add(total, torch.tensor(item.root_idxs), part[torch.tensor(item.idxs)])
        return evidence.finish(total / parts if evidence.importance == "snr" and parts else total)

    def remove(self, group: Any, channels: Sequence[int]) -> None:
        """Take channels out of every layer of a group."""
        group.prune(list(channels))

    def _may_go(self, dep: Any) -> bool:
        from torch import nn

        layer, node = dep.target.module, dep.target
        if node.type == self._graph.ops.OPTYPE.OUTPUT or layer in self._fixed:
            return False
        if isinstance(layer, nn.GroupNorm):
            return layer.num_groups == 1
        if isinstance(layer, nn.RNNBase):
            return not layer.bidirectional and not layer.proj_size
        out = self._graph.is_out_channel_pruning_fn(dep.handler)
        return not (out and layer in self._names and not node.outputs)  # a layer that nothing reads is an output

    def _around_products(self) -> set[Any]:
        """Return the layers right before and after each product of activations, attention layers among them."""
        from torch import nn

        found: set[Any] = {layer for layer in self._names if isinstance(layer, nn.MultiheadAttention)}
        for node in self._graph.module2node.values():
            if node.module not in self._names and any(word in _operator(node) for word in _PRODUCTS):
                for direction in ("inputs", "outputs"):
                    found |= self._nearest(node, direction)
        return found

    def _nearest(self, start: Any, direction: str) -> set[Any]:
        stack, seen, found = [start], {start}, set()
        while stack:
            for node in getattr(stack.pop(), direction):
                if node in seen:
                    continue
                seen.add(node)
                if node.module in self._names and any(True for _ in node.module.parameters(recurse=False)):
                    found.add(node.module)
                else:
                    stack.append(node)
        return found


def _torch_pruning() -> Any:
    try:
        import torch_pruning
    except ImportError as error:
        raise MissingDependency(
            "channel-pruning follows dependencies with torch-pruning, which is not installed",
            hint="pip install 'compression-harness[torch]'",
        ) from error
    return torch_pruning


def _operator(node: Any) -> str:
    return node.grad_fn.name().lower() if hasattr(node.grad_fn, "name") else ""
