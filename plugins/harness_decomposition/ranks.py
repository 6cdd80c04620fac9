"""How many components stay: by energy, by a share of the parameters, or as given; in whole vectors of the target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.api import Asked, param

if TYPE_CHECKING:
    from torch import Tensor

ENERGY = 0.9


@dataclass(frozen=True)
class RankParams:
    """Parameters of ``low-rank`` and ``tucker``."""

    energy: float = param(ENERGY, "share of the squared singular values that stays, in each layer", gt=0, le=1)
    budget: float | None = param(None, "share of a layer's parameters that may stay, instead of energy", gt=0, lt=1)
    rank: int | None = param(None, "the rank itself, instead of energy", ge=1)
    epochs: int = param(4, "fine-tuning epochs; 0 for none", ge=0)
    lr: float = param(2e-3, "peak learning rate of fine-tuning", gt=0)
    distill: float = param(0.0, "share of the fine-tuning loss that the dense model's outputs give", ge=0, le=1)
    T: float = param(4.0, "temperature of distill", gt=0)


def asks(params: RankParams) -> Asked:
    """Return what decides the ranks: their number, the share of parameters, or the share of the singular values."""
    if params.rank is not None:
        return Asked(f"rank {params.rank}")
    if params.budget is not None:
        return Asked(f"{params.budget:g} of a layer's parameters to stay", {"parameters": 1 - params.budget})
    return Asked(f"{params.energy:g} of a layer's energy to stay")


def check(params: RankParams) -> str | None:
    """Say what is wrong with a combination of parameters."""
    given = [
        name
        for name, is_given in (
            ("energy", params.energy != ENERGY),
            ("budget", params.budget is not None),
            ("rank", params.rank is not None),
        )
        if is_given
    ]
    if len(given) > 1:
        return f"{' and '.join(given)} each say what rank a layer gets; give one of them"
    if params.distill and not params.epochs:
        return "distill acts in fine-tuning, so it needs epochs of at least 1"
    return None


def by_energy(values: Tensor, energy: float) -> int:
    """Return the least number of singular values whose squares sum to a share of all squares.

    Args:
        values: Singular values, largest first.
        energy: 0..1.
    """
    squares = values.double().square()
    reached = squares.cumsum(0) >= energy * squares.sum() * (1 - 1e-12)  # a full sum is not lost to rounding
    return int(reached.int().argmax()) + 1


def in_vectors(rank: int, multiple: int, most: int) -> int:
    """Return the nearest multiple of a rank, a tie going up, at least one; the most there can be where that is less."""
    return min(most, max(1, int(rank / multiple + 0.5)) * multiple)


def smaller(wanted: int, multiple: int, most: int, cost: int, dense: int) -> int | None:
    """Return a rank in whole vectors at which ``rank x cost`` is less than ``dense``.

    Args:
        wanted: The rank before rounding.
        multiple: The rank is the nearest multiple, or the one below where that is no longer smaller.
        most: The full rank.
        cost: Parameters, or products, of one component.
        dense: Those of the layer.

    Returns:
        ``None`` where the wanted rank makes nothing smaller, or no multiple does.
    """
    limit = (dense - 1) // cost
    if wanted > limit:
        return None
    rank = in_vectors(wanted, multiple, most)
    return rank if rank <= limit else limit // multiple * multiple or None
