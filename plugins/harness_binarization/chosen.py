"""Which layers are binarized."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness.api import Unsupported

if TYPE_CHECKING:
    from harness_torch.weights import Weight


def inner_weights(weights: Sequence[Weight], *, first: bool, last: bool) -> list[Weight]:
    """Leave out the first and the last layer: all binary networks of the field keep them in float.

    Raises:
        Unsupported: Nothing is left.
    """
    inner = weights[0 if first else 1 : None if last else -1]
    if not inner:
        raise Unsupported(
            f"binarization found no layer between the first and the last: the model has {len(weights)} weights",
            hint="first=true:last=true takes them too",
        )
    return list(inner)
