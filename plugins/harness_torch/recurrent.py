"""Recurrent layers that read their input through a narrow linear layer."""

from __future__ import annotations

# ruff: noqa: TID253  a module is pickled by its class, which must be importable; only functions import this file
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class FactoredRecurrent(nn.Module):
    """A stack of GRU, LSTM or RNN layers, each behind a linear layer of its own where one is given.

    Takes and gives what ``nn.GRU`` and ``nn.LSTM`` do, for batches.

    Args:
        reduce: For each layer the map of its input, or ``nn.Identity``.
        layers: One-layer recurrent modules of one kind.
        dropout: Between layers, in training.
    """

    def __init__(self, reduce: list[nn.Module], layers: list[nn.RNNBase], dropout: float = 0.0) -> None:
        super().__init__()
        self.reduce, self.layers, self.dropout = nn.ModuleList(reduce), nn.ModuleList(layers), dropout
        self.directions = 2 if layers[0].bidirectional else 1

    def forward(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """Map [n, steps, in] (or [steps, n, in]) to outputs and last states, as the layer that it stands for."""
        last = []
        for i, (reduce, layer) in enumerate(zip(self.reduce, self.layers, strict=True)):
            x, end = layer(reduce(x), self._start(state, i))
            last.append(end)
            if self.dropout and i < len(self.layers) - 1:
                x = functional.dropout(x, self.dropout, self.training)
        if isinstance(last[0], tuple):
            return x, tuple(torch.cat(part) for part in zip(*last, strict=True))
        return x, torch.cat(last)

    def _start(self, state: Any, layer: int) -> Any:
        if state is None:
            return None
        rows = slice(layer * self.directions, (layer + 1) * self.directions)
        return tuple(part[rows] for part in state) if isinstance(state, tuple) else state[rows]
