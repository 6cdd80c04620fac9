"""The weight matrices and kernels of a module, in the order in which they are used."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class Weight:
    """One weight of a convolution, a linear, recurrent or attention layer.

    Attributes:
        name: In the state dict, such as "layer1.conv.weight".
        owner: The layer that holds it.
        attribute: Its name in the owner.
        out_dim: Dimension of the output channels: 1 for transposed convolutions, else 0.
    """

    name: str
    owner: nn.Module
    attribute: str
    out_dim: int = 0

    @property
    def parameter(self) -> nn.Parameter:
        """The parameter as it is now."""
        value: nn.Parameter = getattr(self.owner, self.attribute)
        return value


def weights_in_order(module: nn.Module, inputs: Sequence[Tensor]) -> tuple[Weight, ...]:
    """Return the weights that a call uses, first used first; a shared one counts once.

    Biases, normalisation and embeddings are no weights in this sense: they do not multiply channels by channels.

    Args:
        module: Left as it is.
        inputs: Of one call, by position.
    """
    used: dict[Any, None] = {}
    with _watched(module, used):
        module(*inputs)
    names = {layer: name for name, layer in module.named_modules()}
    found: dict[int, Weight] = {}
    for layer in used:
        for owner, attribute, out_dim in _of_layer(layer):
            name = ".".join(part for part in (names[owner], attribute) if part)
            found.setdefault(id(getattr(owner, attribute)), Weight(name, owner, attribute, out_dim))
    return tuple(found.values())


@contextlib.contextmanager
def _watched(module: nn.Module, used: dict[Any, None]) -> Iterator[None]:
    import torch

    def note(layer: nn.Module, *_call: object) -> None:
        used.setdefault(layer)

    layers = [layer for layer in module.modules() if _of_layer(layer)]
    hooks = [layer.register_forward_pre_hook(note) for layer in layers]
    training, fast = module.training, torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # the fused encoder layer calls no inner layer
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        module.train(training)
        for hook in hooks:
            hook.remove()


def _of_layer(layer: nn.Module) -> list[tuple[nn.Module, str, int]]:
    """Return (owner, attribute, dimension of the output channels) of each weight of one layer."""
    from torch import nn
    from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

    if isinstance(layer, nn.MultiheadAttention):  # its output projection is used without being called
        names = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")
        used = [(layer, name, 0) for name in names if getattr(layer, name) is not None]
        return [*used, (layer.out_proj, "weight", 0)]
    if isinstance(layer, (nn.RNNBase, nn.RNNCellBase)):
        return [(layer, name, 0) for name, _ in layer.named_parameters(recurse=False) if name.startswith("weight_")]
    if isinstance(layer, _ConvTransposeNd):
        return [(layer, "weight", 1)]
    if isinstance(layer, (_ConvNd, nn.Linear)):
        return [(layer, "weight", 0)]
    return []
