"""Put other layers in the place of layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

    Make = Callable[[str, nn.Module], nn.Module | None]


def replace_layers(module: nn.Module, make: Make) -> tuple[str, ...]:
    """Replace layers in place, a shared one by one replacement wherever it stands.

    The inside of ``nn.MultiheadAttention`` is left alone, since it uses its layers without calling them.

    Args:
        module: Searched from the outside in; the inside of a layer that is replaced is not searched.
        make: (name, layer) -> what takes its place, or ``None``.

    Returns:
        Names of what was replaced.
    """
    made: dict[nn.Module, nn.Module | None] = {}
    names: list[str] = []
    _replace(module, "", make, made, names)
    return tuple(names)


def _replace(
    module: nn.Module, prefix: str, make: Make, made: dict[nn.Module, nn.Module | None], names: list[str]
) -> None:
    from torch import nn

    for name, layer in list(module.named_children()):
        path = f"{prefix}{name}"
        if layer not in made:
            made[layer] = make(path, layer)
            if made[layer] is not None:
                names.append(path)
            elif not isinstance(layer, nn.MultiheadAttention):
                _replace(layer, f"{path}.", make, made, names)
        new = made[layer]
        if new is not None:
            setattr(module, name, new)
            if isinstance(module, nn.TransformerEncoderLayer):
                module.activation_relu_or_gelu = 0  # torch's fused path would read the layer's own weight
