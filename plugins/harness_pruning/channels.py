"""Structured pruning: channels removed through a dependency graph (Fang et al., "DepGraph", 2023; torch-pruning)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Protocol

from harness.api import Asked, Job, Model, Unsupported, first_line, param
from harness_pruning.magnitude import no_epochs

if TYPE_CHECKING:
    from torch import Tensor, nn

    from harness_pruning.importance import Evidence

LEAST_SHARE = 0.1  # of a group's channels that a global ranking leaves; a layer of one channel is a broken network


@dataclass(frozen=True)
class Params:
    """Parameters of ``channel-pruning``, ``filter-pruning``, ``unit-pruning`` and ``head-pruning``."""

    ratio: float = param(0.5, "share of the channels of each layer that go, before rounding", gt=0, lt=1)
    importance: Literal["l1", "l2", "linf", "snr", "gradient", "taylor", "random"] = param(
        "l2", "the least important go: norms, signal-to-noise of the response, |g|/‖g‖, |w g|, or by chance"
    )
    allocation: Literal["uniform", "global"] = param(
        "uniform",
        "the same share of each layer, or of all channels ranked together, each layer's scores over their mean",
    )
    epochs: int = param(6, "fine-tuning epochs; 0 for none", ge=0)
    lr: float = param(3e-3, "peak learning rate of fine-tuning", gt=0)
    distill: float = param(0.0, "share of the fine-tuning loss that the dense model's outputs give", ge=0, le=1)
    T: float = param(4.0, "temperature of distill", gt=0)


@dataclass(frozen=True)
class Scope:
    """What a method may remove.

    Attributes:
        method: Its name, for messages.
        kinds: Of the layers that lead a group: "conv", "linear", "recurrent".
        own: Rank by the weights that make a channel alone, not also by those that read it.
    """

    method: str
    kinds: frozenset[str]
    own: bool = False


CHANNELS = Scope("channel-pruning", frozenset({"conv", "linear", "recurrent"}))
FILTERS = Scope("filter-pruning", frozenset({"conv"}), own=True)
UNITS = Scope("unit-pruning", frozenset({"linear", "recurrent"}))


class Prune(Protocol):
    """Remove channels from a module in place; returns what went by layer."""

    def __call__(self, module: nn.Module, inputs: Sequence[Tensor], params: Params, job: Job) -> Mapping[str, Any]:
        """Return name of a layer -> the channels that went."""
        ...


def asks(what: str, params: Params) -> Asked:
    """Return the share of channels, filters, units or heads that is to go: at least so much of the parameters."""
    return Asked(f"{params.ratio:g} of the {what}", {"parameters": params.ratio})


def check(params: Params) -> str | None:
    """Say what is wrong with a combination of parameters."""
    return no_epochs(params.epochs, params.distill)


def compress(scope: Scope, model: Model, params: Params, job: Job) -> Model:
    """Remove channels, rounded to the vector width of the target, and fine-tune what is left.

    Raises:
        Unsupported: No channel can go, a layer would vanish, or the smaller module no longer runs.
    """
    return structured(scope.method, partial(_prune, scope), model, params, job)


def structured(method: str, remove: Prune, model: Model, params: Params, job: Job) -> Model:
    """Remove, check that a smaller network of the same shapes is left, and fine-tune it.

    Raises:
        Unsupported: Nothing can go, a layer would vanish, or the smaller module no longer runs.
    """
    from harness_torch import example_inputs, fine_tune, load, parameters, save, seed_everything

    module = load(model)
    inputs = example_inputs(job, batch=2)
    before, shapes = parameters(module), _shapes(module, inputs)
    frozen = {name for name, value in module.named_parameters() if not value.requires_grad}
    seed_everything(job.seed)
    removed = remove(module, inputs, params, job)
    if not removed or parameters(module) >= before:
        raise Unsupported(
            f"{method} found no channels to remove: what is there is an output, passes through attention, is "
            f"concatenated for a grouped convolution, or rounds back to a multiple of {job.hardware.channel_multiple}"
        )
    _check_shapes(method, module, inputs, shapes)
    for name, value in module.named_parameters():  # smaller parameters are new ones
        value.requires_grad_(name not in frozen)
    fine_tune(module, job, epochs=params.epochs, lr=params.lr, distill=params.distill, temperature=params.T)
    return save(module, model, job)


def _prune(scope: Scope, module: nn.Module, inputs: Sequence[Tensor], params: Params, job: Job) -> Mapping[str, Any]:
    from harness_pruning.importance import gather

    return prune(
        module, inputs, params.ratio, scope=scope, evidence=gather(module, params.importance, job),
        allocation=params.allocation, multiple=job.hardware.channel_multiple,
    )  # fmt: skip


def prune(
    module: nn.Module,
    inputs: Sequence[Tensor],
    ratio: float,
    *,
    scope: Scope = CHANNELS,
    importance: str = "l2",
    evidence: Evidence | None = None,
    allocation: str = "uniform",
    multiple: int = 1,
) -> dict[str, tuple[int, ...]]:
    """Remove channels from a module in place.

    Kept are the channels of the outputs, those that pass through attention, and those of recurrent layers whose
    directions share them: the dependency graph cannot follow these. Of a grouped convolution the same channels of each
    group go, and none where it reads a concatenation.

    Args:
        module: In any mode; left in evaluation mode.
        inputs: Of one call, batch of 2 or more so that no dimension of size 1 is mistaken for another.
        ratio: Share of the channels of each group of coupled layers, or of all.
        scope: Which groups.
        importance: The criterion, where it needs no evidence beside the weights.
        evidence: What the criterion looks at.
        allocation: "uniform" or "global".
        multiple: Kept channels are the nearest multiple of it, at least one.

    Returns:
        Name of the layer that leads each group -> the channels that went.

    Raises:
        Unsupported: A layer would keep no channel.
    """
    from harness_pruning.graph import Groups
    from harness_pruning.grouped import marked
    from harness_pruning.importance import gather

    evidence = evidence or gather(module, importance, None)
    removed: dict[str, tuple[int, ...]] = {}
    with marked(module):
        groups = Groups(module, inputs)
        found = {groups.name(group): group for group in groups.prunable() if groups.kind(group) in scope.kinds}
        folds = {name: groups.fold(group) for name, group in found.items()}
        scores = {
            name: groups.scores(group, evidence, own=scope.own).unflatten(0, (folds[name], -1)).sum(0)
            for name, group in found.items()
        }
        stay = allocate(scores, ratio, multiple, method=scope.method, everywhere=allocation == "global", folds=folds)
        for name, group in found.items():
            size = len(scores[name])
            going = sorted(scores[name].argsort(stable=True)[: size - stay[name]].tolist())
            if going:
                removed[name] = tuple(part * size + index for part in range(folds[name]) for index in going)
                groups.remove(group, removed[name])
    return removed


def allocate(
    scores: Mapping[str, Tensor],
    ratio: float,
    multiple: int,
    *,
    method: str,
    everywhere: bool,
    folds: Mapping[str, int] | None = None,
) -> dict[str, int]:
    """Return how many channels of each group stay.

    Args:
        scores: By group, shape [channels].
        ratio: Share that goes: of each group, or, ``everywhere``, of all channels ranked together by their score
            over the mean of their group; then a tenth of each group stays whatever the ranking says.
        multiple: What is kept is the nearest multiple.
        method: For the message.
        everywhere: Rank all groups together.
        folds: Equal parts of a group's channels that one score stands for, each of which keeps as many.

    Raises:
        Unsupported: A group would keep no channel.
    """
    import math

    import torch

    parts = {name: (folds or {}).get(name, 1) for name in scores}
    multiples = {name: multiple // math.gcd(multiple, parts[name]) for name in scores}
    if not everywhere or not scores:
        return {
            name: kept(len(part), ratio, multiples[name], layer=name, method=method) for name, part in scores.items()
        }
    relative = [part / part.mean().clamp_min(torch.finfo(torch.float32).tiny) for part in scores.values()]
    going = round(ratio * sum(len(part) for part in relative))
    gone = torch.zeros(sum(len(part) for part in relative), dtype=torch.bool)
    gone[torch.cat(relative).argsort(stable=True)[:going]] = True
    result: dict[str, int] = {}
    for (name, part), out in zip(scores.items(), gone.split([len(part) for part in relative]), strict=True):
        share = min(int(out.sum()) / len(part), 1 - max(LEAST_SHARE, 1 / len(part)))
        result[name] = kept(len(part), share, multiples[name], layer=name, method=method)
    return result


_KINDS = {"head-pruning": "heads", "filter-pruning": "filters", "unit-pruning": "units"}


def kept(count: int, ratio: float, multiple: int, *, layer: str, method: str = "channel-pruning") -> int:
    """Return how many of ``count`` channels stay: the nearest multiple, a tie going up, at least one multiple.

    Raises:
        Unsupported: The ratio alone leaves less than half a channel, so the layer would vanish.
    """
    exact = count * (1 - ratio)
    if exact < 0.5:
        what = _KINDS.get(method, "channels")
        raise Unsupported(
            f"{method} by {ratio:g} would leave none of the {count} {what} of layer {layer!r}",
            hint=f"the largest ratio that leaves one is {1 - 1 / count:.3g}",
        )
    return min(count, max(1, int(exact / multiple + 0.5)) * multiple)


def _shapes(module: nn.Module, inputs: Sequence[Tensor]) -> list[tuple[int, ...]]:
    import torch

    with torch.no_grad():
        result: Any = module.eval()(*inputs)
    return [tuple(item.shape) for item in (result if isinstance(result, (tuple, list)) else (result,))]


def _check_shapes(method: str, module: nn.Module, inputs: Sequence[Tensor], shapes: list[tuple[int, ...]]) -> None:
    """Refuse a result that is no longer the same kind of function."""
    try:
        after = _shapes(module, inputs)
    except (RuntimeError, ValueError, TypeError) as error:  # what torch raises when shapes no longer fit
        raise Unsupported(
            f"the model fixes a number of channels in its code, and fails with fewer: {first_line(str(error))}"
        ) from None
    if after != shapes:
        raise Unsupported(f"{method} changed the output shapes from {shapes} to {after}")
