"""Recurrent and attention layers as single nodes of the dependency graph, and how hidden units leave the former."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

_GATES = {"GRU": 3, "LSTM": 4, "RNN_TANH": 1, "RNN_RELU": 1}


@contextlib.contextmanager
def opaque(module: nn.Module, kinds: tuple[type, ...]) -> Iterator[None]:
    """Hide what happens inside layers of these kinds from autograd, so that a trace sees one node for each."""
    layers: list[Any] = [layer for layer in module.modules() if isinstance(layer, kinds)]
    for layer in layers:
        layer.forward = _hidden(layer)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def _hidden(layer: Any) -> Any:
    import torch
    from torch.utils import _pytree as tree

    class Node(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, count: int, *tensors: Any) -> Any:
            del ctx
            return tuple(item.clone() for item in tensors[count:])

        @staticmethod
        def backward(ctx: Any, *gradients: Any) -> Any:
            raise NotImplementedError("a trace is never run backwards")

    run = layer.forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        with torch.no_grad():
            result, shape = tree.tree_flatten(run(*args, **kwargs))
        # a parameter among the inputs gives the node a gradient also where the layer reads the model's input
        leaves = [item for item in tree.tree_leaves((args, kwargs)) if torch.is_tensor(item)]
        given = [next(layer.parameters()), *leaves]
        made = iter(Node.apply(len(given), *given, *(item for item in result if item is not None)))
        return tree.tree_unflatten([None if item is None else next(made) for item in result], shape)

    return forward


def recurrent_pruner() -> Any:
    """Return a torch-pruning pruner for GRU, LSTM and RNN layers of one direction: out channels are hidden units."""
    import torch_pruning as tp

    class Recurrent(tp.BasePruningFunc):
        def prune_out_channels(self, layer: Any, idxs: Sequence[int]) -> Any:
            _remove_hidden(layer, idxs)
            return layer

        def prune_in_channels(self, layer: Any, idxs: Sequence[int]) -> Any:
            keep = _others(layer.input_size, idxs)
            _assign(layer, "weight_ih_l0", layer.weight_ih_l0[:, keep])
            layer.input_size = len(keep)
            return layer

        def get_out_channels(self, layer: Any) -> int:
            return int(layer.hidden_size)

        def get_in_channels(self, layer: Any) -> int:
            return int(layer.input_size)

    return Recurrent()


def fixed_pruner() -> Any:
    """Return a pruner for attention layers that must never be asked: groups with such a layer are left out."""
    import torch_pruning as tp

    class Fixed(tp.BasePruningFunc):
        def prune_out_channels(self, layer: Any, idxs: Sequence[int]) -> Any:
            raise NotImplementedError("the channels of attention stay")

        def prune_in_channels(self, layer: Any, idxs: Sequence[int]) -> Any:
            raise NotImplementedError("the channels of attention stay")

        def get_out_channels(self, layer: Any) -> int:
            return int(layer.embed_dim)

        def get_in_channels(self, layer: Any) -> int:
            return int(layer.embed_dim)

    return Fixed()


def _others(count: int, idxs: Sequence[int]) -> list[int]:
    gone = set(idxs)
    return [index for index in range(count) if index not in gone]


def _remove_hidden(layer: Any, idxs: Sequence[int]) -> None:
    """Remove hidden units from every layer of the stack: rows of all gates, columns of all that reads the state."""
    keep, gates = _others(layer.hidden_size, idxs), _GATES[layer.mode]
    rows = [gate * layer.hidden_size + unit for gate in range(gates) for unit in keep]
    for name, value in list(layer.named_parameters()):
        left = value[rows]
        reads_state = name.startswith("weight_hh") or (name.startswith("weight_ih") and not name.endswith("_l0"))
        _assign(layer, name, left[:, keep] if reads_state else left)
    layer.hidden_size = len(keep)


def _assign(layer: Any, name: str, value: Any) -> None:
    from torch import nn

    old = getattr(layer, name)
    new = nn.Parameter(value.detach().clone(), requires_grad=old.requires_grad)
    setattr(layer, name, new)
