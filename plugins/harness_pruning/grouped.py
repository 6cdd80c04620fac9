"""Grouped convolutions in the dependency graph: the same channels leave each of their groups."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn


class Grouped:
    """Mixed into the class of a grouped convolution while its channels are removed, so that it gets its own pruner."""


def is_grouped(layer: Any) -> bool:
    """Tell whether a layer is a convolution of several groups, and not a depthwise one."""
    from torch import nn

    conv = isinstance(layer, nn.modules.conv._ConvNd) and layer.groups > 1
    return conv and not layer.groups == layer.in_channels == layer.out_channels


@contextlib.contextmanager
def marked(module: nn.Module) -> Iterator[None]:
    """Let a module's grouped convolutions be of a class of their own."""
    own = {layer: type(layer) for layer in module.modules() if is_grouped(layer)}
    mixed = {kind: type(kind.__name__, (Grouped, kind), {}) for kind in set(own.values())}
    for layer, kind in own.items():
        layer.__class__ = mixed[kind]
    try:
        yield
    finally:
        for layer, kind in own.items():
            layer.__class__ = kind


def by_input(layer: Any, entries: Tensor) -> Tensor:
    """Return a grouped convolution's weight with its input channels first: [in, out / groups, …]."""
    return entries if layer.transposed else _exchanged(entries, layer.groups)


def by_output(layer: Any, entries: Tensor) -> Tensor:
    """Return a grouped convolution's weight with its output channels first: [out, in / groups, …]."""
    return _exchanged(entries, layer.groups) if layer.transposed else entries


def _exchanged(entries: Tensor, groups: int) -> Tensor:
    return entries.unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1)


def grouped_pruner() -> Any:
    """Return a torch-pruning pruner that is asked for the same channels of each group, on either side."""
    import torch_pruning as tp

    class Same(tp.BasePruningFunc):
        def prune_out_channels(self, layer: Any, idxs: Sequence[int]) -> Any:
            keep, local = _kept(layer.out_channels, idxs, layer.groups)
            _select(layer, "weight", 1 if layer.transposed else 0, local if layer.transposed else keep)
            if layer.bias is not None:
                _select(layer, "bias", 0, keep)
            layer.out_channels = len(keep)
            return layer

        def prune_in_channels(self, layer: Any, idxs: Sequence[int]) -> Any:
            keep, local = _kept(layer.in_channels, idxs, layer.groups)
            _select(layer, "weight", 0 if layer.transposed else 1, keep if layer.transposed else local)
            layer.in_channels = len(keep)
            return layer

        def get_out_channels(self, layer: Any) -> int:
            return int(layer.out_channels)

        def get_in_channels(self, layer: Any) -> int:
            return int(layer.in_channels)

    return Same()


def _kept(count: int, idxs: Sequence[int], groups: int) -> tuple[list[int], list[int]]:
    """Return the channels that stay, and those of the first group."""
    gone = set(idxs)
    keep = [index for index in range(count) if index not in gone]
    return keep, [index for index in keep if index < count // groups]


def _select(layer: Any, name: str, dim: int, keep: Sequence[int]) -> None:
    import torch
    from torch import nn

    old = getattr(layer, name)
    value = old.detach().index_select(dim, torch.tensor(list(keep)))
    setattr(layer, name, nn.Parameter(value.contiguous(), requires_grad=old.requires_grad))
