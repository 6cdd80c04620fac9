"""Which single weights stay: by share, by threshold, N of every M; and how the share rises over training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from harness_torch.weights import Weight


def keep_masks(weights: Sequence[Tensor], ratio: float, *, scope: str = "global") -> list[Tensor]:
    """Return for each weight a mask of the entries that stay: the largest in magnitude.

    Args:
        weights: Of any shapes.
        ratio: Share of the entries that go, rounded to a whole number; ties go in order of position.
        scope: "global" ranks all entries together, "local" those of each weight.
    """
    import torch

    if scope == "local":
        return [mask for weight in weights for mask in keep_masks([weight], ratio)]
    sizes = [weight.detach().abs().flatten() for weight in weights]
    order = torch.cat(sizes).argsort(stable=True)
    keep = torch.ones_like(order, dtype=torch.bool)
    keep[order[: round(ratio * len(order))]] = False
    parts = keep.split([len(size) for size in sizes])
    return [part.view(weight.shape) for part, weight in zip(parts, weights, strict=True)]


def above(weights: Sequence[Tensor], threshold: float, *, scope: str = "global") -> list[Tensor]:
    """Return for each weight a mask of the entries with abs(w) >= threshold.

    Args:
        weights: Of any shapes.
        threshold: A magnitude; with scope "local" in standard deviations of each weight (Han et al., 2015).
        scope: "global" or "local".
    """
    limits = [threshold * (float(weight.detach().std()) if scope == "local" else 1.0) for weight in weights]
    return [weight.detach().abs() >= limit for weight, limit in zip(weights, limits, strict=True)]


def n_of_m(weight: Tensor, n: int, m: int, *, dim: int = 1) -> Tensor:
    """Return a mask that keeps the n largest of every m entries that follow each other along a dimension.

    Args:
        weight: Its size along ``dim`` is a multiple of m.
        n: Entries that stay; the first of equals.
        m: Entries in a group.
        dim: The input channels, along which a sparse kernel walks.
    """
    import torch

    groups = weight.detach().abs().movedim(dim, -1)
    flat = groups.reshape(-1, m)
    order = flat.argsort(dim=1, descending=True, stable=True)
    keep = torch.zeros_like(flat, dtype=torch.bool).scatter_(1, order[:, :n], value=True)
    return keep.view(groups.shape).movedim(-1, dim).contiguous()


def share_at(step: int, steps: int, ratio: float) -> float:
    """Return the share of zeros after ``step`` of ``steps`` that prune: ratio (1 - (1 - step / steps)³).

    Zhu & Gupta, "To prune, or not to prune" (2017), equation 1, from no zeros at step 0.
    """
    return ratio * (1 - (1 - min(1.0, step / steps)) ** 3)


def hold(weights: Sequence[Weight], masks: Sequence[Tensor]) -> None:
    """Set what the masks leave out to zero, in place."""
    import torch

    with torch.no_grad():
        for weight, mask in zip(weights, masks, strict=True):
            weight.parameter.masked_fill_(~mask, 0.0)  # a product would leave -0.0, which does not pack as zero
