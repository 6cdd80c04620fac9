"""A model of transformers behind the interface of all others: inputs by position, logits out."""

from __future__ import annotations

# ruff: noqa: TID253  a module is pickled by its class, which must be importable; only functions import this file
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn


class Classifier(nn.Module):
    """Call a model by keyword and return its logits."""

    def __init__(self, model: Any, names: Sequence[str]) -> None:
        super().__init__()
        self.model, self.names = model, tuple(names)

    def forward(self, first: Tensor, second: Tensor | None = None, third: Tensor | None = None) -> Tensor:
        """Map the inputs, in order, to logits [n, classes]; exporters take no ``*inputs``, hence three by name."""
        given = [value for value in (first, second, third) if value is not None]
        return self.model(**dict(zip(self.names, given, strict=True))).logits
