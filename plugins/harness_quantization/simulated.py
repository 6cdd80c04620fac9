"""Integer arithmetic simulated in float: what QAT trains through, and what sensitivity is measured with."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from harness.api import Job, Unsupported

if TYPE_CHECKING:
    from torch import Tensor, nn

    from harness_torch.weights import Weight

    See = Callable[[Tensor], Tensor]

LEVELS = 255  # steps between the ends of an 8-bit grid
_TINY = 1e-8  # a range of nothing would divide by zero


def round_weight(weight: Tensor, out_dim: int, bits: int = 8) -> Tensor:
    """Return weights on a symmetric grid with one scale, max|w| / (2^(bits-1) - 1), per output channel.

    Rounding the result again changes nothing: so every runtime's symmetric per-channel quantizer finds these scales.
    """
    import torch

    top = 2 ** (bits - 1) - 1
    others = [dim for dim in range(weight.dim()) if dim != out_dim]
    peak = weight.abs().amax(dim=others, keepdim=True)
    scale = torch.where(peak > 0, peak / top, torch.ones_like(peak))
    return (weight / scale).round().clamp(-top, top) * scale


def round_input(value: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Return values on the affine 8-bit grid of a range that holds 0, with gradients for the values and the range.

    s = (high - low) / 255, z = round(-low / s), x' = (clamp(round(x / s) + z, 0, 255) - z) * s; rounding passes
    gradients straight through, which gives the range the gradient of LSQ+ (Bhalgat et al., 2020).
    """
    from harness_torch.grids import straight_through

    scale = ((high - low) / LEVELS).clamp(min=_TINY)
    ratio = -low / scale
    zero = straight_through(ratio, ratio.round())
    steps = value / scale
    whole = straight_through(steps, steps.round())
    return ((whole + zero).clamp(0, LEVELS) - zero) * scale


def grid_range(low: float, high: float) -> tuple[float, float]:
    """Return the range that a grid really covers once its zero point is a whole number."""
    scale = max((high - low) / LEVELS, _TINY)
    zero = min(max(round(-low / scale), 0), LEVELS)
    return -zero * scale, (LEVELS - zero) * scale


def layers(
    module: nn.Module, inputs: Sequence[Tensor], *, attention: bool = False, recurrent: bool = False
) -> list[Weight]:
    """Return the weights of the convolutions and linear layers that are called as such, first used first.

    Recurrent layers and the projections inside attention are left to the target's own quantizer unless asked for.

    Args:
        module: Left as it is.
        inputs: Of one call, by position.
        attention: Return the projections inside attention too, whose inputs no hook sees.
        recurrent: Return the matrices of GRU, LSTM and RNN layers too. A hook sees the sequence that enters, not the
            state nor what passes between stacked layers.

    Raises:
        Unsupported: There is none.
    """
    from torch import nn
    from torch.nn.modules.conv import _ConvNd

    from harness_torch.weights import weights_in_order

    attends = [item for item in module.modules() if isinstance(item, nn.MultiheadAttention)]
    inner = {layer for item in attends for layer in (item, item.out_proj)}
    kinds = (_ConvNd, nn.Linear, nn.RNNBase) if recurrent else (_ConvNd, nn.Linear)
    found = [
        item
        for item in weights_in_order(module, inputs)
        if (attention if item.owner in inner else isinstance(item.owner, kinds))
    ]
    if not found:
        known = "convolution, linear or recurrent layer" if recurrent else "convolution or linear layer"
        raise Unsupported(f"the model has no {known} to quantize")
    return found


@contextlib.contextmanager
def hooked(chosen: Sequence[Weight], see: Mapping[str, See]) -> Iterator[None]:
    """Let each layer see its input through a function, by the name of its weight."""

    def hook(function: See) -> Any:
        return lambda _layer, given: (function(given[0]), *given[1:])

    handles = [item.owner.register_forward_pre_hook(hook(see[item.name])) for item in chosen if item.name in see]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def input_leaders(module: nn.Module, chosen: Sequence[Weight], inputs: Sequence[Tensor]) -> dict[str, str]:
    """Return, for each layer by its weight, the first layer that reads the same tensor or a view of it: often itself.

    A runtime has one scale for a tensor, however many layers read it.
    """
    import torch

    first: dict[int, str] = {}
    leaders: dict[str, str] = {}
    alive = []  # storage that was freed could come back for another tensor

    def note(name: str) -> See:
        def see(value: Tensor) -> Tensor:
            alive.append(value)
            leaders[name] = first.setdefault(value.untyped_storage().data_ptr(), name)
            return value

        return see

    with torch.no_grad(), hooked(chosen, {item.name: note(item.name) for item in chosen}):
        module.eval()(*inputs)
    return leaders


def calibration(job: Job, samples: int) -> Mapping[str, Any]:
    """Return the first items of the calibration split.

    Raises:
        Unsupported: It is empty.
    """
    inputs = job.data.split("calibration").inputs
    if not len(next(iter(inputs.values()))):
        raise Unsupported(f"the calibration split of workload {job.workload.name!r} is empty")
    return {name: array[:samples] for name, array in inputs.items()}


def input_ranges(module: nn.Module, chosen: Sequence[Weight], job: Job, samples: int) -> dict[str, tuple[float, float]]:
    """Return the least and the largest input of each layer over calibration items, with 0 between them."""
    from harness_torch import call

    found = {item.name: (0.0, 0.0) for item in chosen}

    def watch(name: str) -> See:
        def see(value: Tensor) -> Tensor:
            low, high = found[name]
            found[name] = (min(low, float(value.min())), max(high, float(value.max())))
            return value

        return see

    with hooked(chosen, {item.name: watch(item.name) for item in chosen}):
        call(module, calibration(job, samples))
    return found
