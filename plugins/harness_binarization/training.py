"""One-bit weights and the straight-through estimator that trains them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

    from harness_torch.weights import Weight

CLIP = 1.0  # the estimator passes gradients to latent weights within [-1, 1] (Courbariaux et al., 2015)


def binarize(weight: Tensor, out_dim: int = 0) -> Tensor:
    """Return alpha x sign(weight): exactly two values for each output channel.

    Alpha, the mean of |weight| over an output channel, is the scale of least squared error (XNOR-Net, eq. 6);
    the sign of zero is +1.

    Args:
        weight: Latent weight; of shape [out, …] where ``out_dim`` is 0.
        out_dim: Dimension of the output channels.
    """
    import torch

    alpha = _alpha(weight, out_dim).expand_as(weight)
    return torch.where(weight >= 0, alpha, -alpha)


def straight_through(weight: Tensor, out_dim: int = 0) -> Tensor:
    """Return ``binarize(weight)`` whose gradient passes through the sign, and through alpha.

    d alpha sign(w) / dw = alpha where |w| <= 1, plus sign(w) times d alpha / dw (XNOR-Net, section 3.1).
    """
    import torch

    clipped = weight.clamp(-CLIP, CLIP)
    sign = torch.where(weight >= 0, 1.0, -1.0)
    return _alpha(weight, out_dim) * (clipped + (sign - clipped).detach())


def _alpha(weight: Tensor, out_dim: int) -> Tensor:
    others = [dim for dim in range(weight.dim()) if dim != out_dim]
    return weight.abs().mean(dim=others, keepdim=True)


def latent(module: nn.Module, chosen: Sequence[Weight]) -> nn.Module:
    """Return a module that runs ``module`` with its chosen weights seen through the estimator.

    The parameters of ``module`` are the latent weights and are trained in place.
    """
    import torch
    from torch import nn

    class Latent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = module

        def forward(self, *inputs: Tensor) -> Any:
            seen = {item.name: straight_through(item.parameter, item.out_dim) for item in chosen}
            return torch.func.functional_call(self.module, seen, inputs)

    return Latent()


def clip(chosen: Sequence[Weight]) -> None:
    """Keep latent weights where the estimator passes gradients."""
    import torch

    with torch.no_grad():
        for item in chosen:
            item.parameter.clamp_(-CLIP, CLIP)


def binary_inputs(chosen: Sequence[Weight]) -> list[Weight]:
    """Let the chosen convolutions and linear layers see the signs of their inputs, in place, and return those.

    Raises:
        Unsupported: None of them is a plain two-dimensional convolution or a linear layer.
    """
    from torch import nn

    from harness.api import Unsupported
    from harness_torch.layers import BinaryConv2d, BinaryLinear

    changed = []
    for item in chosen:
        layer = item.owner
        if type(layer) in {nn.Conv2d, BinaryConv2d} and layer.padding_mode == "zeros":
            layer.__class__ = BinaryConv2d  # the same parameters and settings under another forward
        elif type(layer) in {nn.Linear, BinaryLinear}:
            layer.__class__ = BinaryLinear
        else:
            continue
        changed.append(item)
    if not changed:
        raise Unsupported(
            "no layer between the first and the last takes binary activations: they need Conv2d or Linear"
        )
    return changed
