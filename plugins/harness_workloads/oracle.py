"""The answers of PyTorch itself: the fitted module, run eagerly."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.api import Job, Model

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import nn

    Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Eager:
    """A module in evaluation mode on the CPU."""

    module: nn.Module
    model: Model
    label: str = "torch eager"

    def run(self, inputs: Arrays) -> Arrays:
        """Call the module with the inputs in call order, all items at once."""
        import numpy as np
        import torch

        with torch.inference_mode():
            result = self.module(*(torch.from_numpy(np.array(inputs[name])) for name in self.model.inputs))
        given = result if isinstance(result, (tuple, list)) else (result,)
        tensors = (item.float() if item.dtype == torch.bfloat16 else item for item in given)  # numpy has no bfloat16
        return {name: item.numpy() for name, item in zip(self.model.outputs, tensors, strict=True)}


def open_eager(model: Model, job: Job) -> Iterator[Eager]:
    """Load the fitted module."""
    import harness_torch

    del job
    yield Eager(harness_torch.load(model), model)
