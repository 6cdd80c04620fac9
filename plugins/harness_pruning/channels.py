"""Structured pruning: channels removed through a dependency graph (Fang et al., "DepGraph", 2023; torch-pruning)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from harness.api import Job, Model, Unsupported, param

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class Params:
    """Parameters of ``channel-pruning``."""

    ratio: float = param(0.5, "share of the channels of each layer that go, before rounding", gt=0, lt=1)
    importance: Literal["l1", "l2", "taylor", "random"] = param("l2", "how channels are ranked: the least important go")
    epochs: int = param(6, "fine-tuning epochs; 0 for none", ge=0)
    lr: float = param(3e-3, "peak learning rate of fine-tuning", gt=0)


def compress(model: Model, params: Params, job: Job) -> Model:
    """Remove channels, rounded to the vector width of the target, and fine-tune what is left.

    Raises:
        Unsupported: No channel can go, a layer would vanish, or the smaller module no longer runs.
    """
    from harness_torch import example_inputs, fit, load, parameters, save, seed_everything

    module = load(model)
    inputs = example_inputs(job, batch=2)
    before, shapes = parameters(module), _shapes(module, inputs)
    seed_everything(job.seed)
    if params.importance == "taylor":
        _gradients(module, job)
    removed = prune(module, inputs, params.ratio, importance=params.importance, multiple=job.hardware.channel_multiple)
    _check(module, inputs, shapes, removed, before, job.hardware.channel_multiple)
    if params.epochs:
        fit(module, job, epochs=params.epochs, lr=params.lr)
    return save(module, model, job)


def prune(
    module: nn.Module, inputs: Sequence[Tensor], ratio: float, *, importance: str = "l2", multiple: int = 1
) -> dict[str, tuple[int, ...]]:
    """Remove channels from a module in place.

    Kept are the channels of the outputs, those that pass through attention or grouped convolutions, and those
    of recurrent layers whose directions share them: the dependency graph cannot follow these.

    Args:
        module: In any mode; left in evaluation mode.
        inputs: Of one call, batch of 2 or more so that no dimension of size 1 is mistaken for another.
        ratio: Share of the channels of each group of coupled layers.
        importance: "l1", "l2", "taylor" (needs gradients on the parameters) or "random".
        multiple: Kept channels are the nearest multiple of it, at least one.

    Returns:
        Name of the layer that leads each group -> the channels that went.

    Raises:
        Unsupported: A layer would keep no channel.
    """
    from harness_pruning.graph import Groups

    groups = Groups(module, inputs)
    removed: dict[str, tuple[int, ...]] = {}
    for group in groups.prunable():
        count = groups.channels(group)
        going = count - kept(count, ratio, multiple, layer=groups.name(group))
        if going:
            order = groups.scores(group, importance).argsort(stable=True)
            removed[groups.name(group)] = tuple(sorted(order[:going].tolist()))
            groups.remove(group, removed[groups.name(group)])
    return removed


def kept(count: int, ratio: float, multiple: int, *, layer: str) -> int:
    """Return how many of ``count`` channels stay: the nearest multiple, a tie going up, at least one multiple.

    Raises:
        Unsupported: The ratio alone leaves less than half a channel, so the layer would vanish.
    """
    exact = count * (1 - ratio)
    if exact < 0.5:
        raise Unsupported(
            f"channel-pruning by {ratio:g} would leave none of the {count} channels of layer {layer!r}",
            hint=f"the largest ratio that leaves one is {1 - 1 / count:.3g}",
        )
    return min(count, max(1, int(exact / multiple + 0.5)) * multiple)


def _gradients(module: nn.Module, job: Job) -> None:
    """Leave the gradient of the task loss over up to 256 training items on the parameters."""
    import torch

    from harness_torch import tensors

    split = job.data.split("train")
    if split.labels is None:
        raise Unsupported(f"importance 'taylor' needs labels, and workload {job.workload.name!r} has none")
    outputs = module.eval()(*tensors(split.inputs, slice(256)))
    job.workload.loss(outputs, torch.as_tensor(split.labels[:256].copy())).backward()


def _shapes(module: nn.Module, inputs: Sequence[Tensor]) -> list[tuple[int, ...]]:
    import torch

    with torch.no_grad():
        result: Any = module.eval()(*inputs)
    return [tuple(item.shape) for item in (result if isinstance(result, (tuple, list)) else (result,))]


def _check(
    module: nn.Module,
    inputs: Sequence[Tensor],
    shapes: list[tuple[int, ...]],
    removed: dict[str, tuple[int, ...]],
    before: int,
    multiple: int,
) -> None:
    """Refuse a result that is not smaller, or that is no longer the same kind of function."""
    from harness_torch import parameters

    if not removed or parameters(module) >= before:
        raise Unsupported(
            "channel-pruning found no channels to remove: what is there is an output, passes through attention "
            f"or a grouped convolution, or rounds back to a multiple of {multiple}"
        )
    try:
        after = _shapes(module, inputs)
    except (RuntimeError, ValueError, TypeError) as error:  # what torch raises when shapes no longer fit
        raise Unsupported(f"the model fixes a number of channels in its code, and fails with fewer: {error}") from None
    if after != shapes:
        raise Unsupported(f"channel-pruning changed the output shapes from {shapes} to {after}")
