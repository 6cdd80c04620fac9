"""How important a channel is: norms of its weights, its response, or what the loss says about it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from harness.api import Job, Unsupported
from harness_pruning.grouped import by_input, by_output, is_grouped

if TYPE_CHECKING:
    from torch import Tensor, nn

FROM_LOSS = {"gradient", "taylor"}
ITEMS = 256  # of the train split, that gradients and responses are taken over
BATCH = 16  # items of one gradient: over many, those of a trained network cancel out and leave noise


@dataclass(frozen=True)
class Evidence:
    """What a ranking looks at besides the weights.

    Attributes:
        importance: The criterion.
        gradients: Magnitude of the task's gradient by parameter, averaged over small batches (gradient, taylor).
        ratios: Signal-to-noise ratio of each output channel's response by layer (snr).
    """

    importance: str
    gradients: Mapping[Any, Tensor] = field(default_factory=dict)
    ratios: Mapping[Any, Tensor] = field(default_factory=dict)

    def entries(self, weight: Any) -> Tensor:
        """Return the importance of each entry of a weight, in the weight's shape.

        l1 and linf: abs(w); l2: w²; taylor: abs(w ∂L/∂w) (Molchanov et al., 2019); gradient:
        abs(∂L/∂w) / ‖∂L/∂w‖₂, the norm being that of the whole weight. Here abs(∂L/∂w) is its mean over batches.
        """
        import torch

        value = weight.detach()
        if self.importance in {"l1", "linf"}:
            return value.abs()
        if self.importance == "l2":
            return value.square()
        slope = self.gradients.get(weight)
        if slope is None:  # the loss does not depend on it
            return torch.zeros_like(value)
        if self.importance == "taylor":
            return (value * slope).abs()
        return slope.abs() / slope.norm().clamp_min(torch.finfo(torch.float32).tiny)

    def add(self, total: Tensor, index: Tensor, part: Tensor) -> None:
        """Take the scores of some weights into the scores of their channels, in place: largest for linf, else sum."""
        if self.importance == "linf":
            total.scatter_reduce_(0, index, part, "amax")
        else:
            total.index_add_(0, index, part)

    def over(self, value: Tensor, dim: int) -> Tensor:
        """Reduce entries to the channels of a dimension: largest for linf, else sum."""
        flat = value.movedim(dim, 0).flatten(1)
        return flat.amax(1) if self.importance == "linf" else flat.sum(1)

    def finish(self, total: Tensor) -> Tensor:
        """Return scores in the criterion's own unit: the root of the sum of squares for l2."""
        return total.sqrt() if self.importance == "l2" else total


def gather(module: nn.Module, importance: str, job: Job | None) -> Evidence:
    """Collect what a criterion needs, over up to 256 items of the train split.

    Raises:
        Unsupported: The criterion needs data or labels that are not there.
    """
    if importance in FROM_LOSS:
        return Evidence(importance, gradients=_gradients(module, _given(job, importance), importance))
    if importance == "snr":
        return Evidence(importance, ratios=_ratios(module, _given(job, importance)))
    return Evidence(importance)


def _given(job: Job | None, importance: str) -> Job:
    if job is None or not len(next(iter(job.data.split("train").inputs.values()))):
        raise Unsupported(f"importance {importance!r} needs items of the train split, and there are none")
    return job


def _gradients(module: nn.Module, job: Job, importance: str) -> dict[Any, Tensor]:
    """Return the mean over small batches of the gradients' magnitudes.

    Training has brought the gradient over all items near zero, by items that pull against each other. How much they
    pull shows in small batches, as the estimator is published: averaged over batches.
    """
    import torch

    from harness_torch import tensors

    labels, found = labels_of(job, importance), dict[Any, torch.Tensor]()
    module.eval().requires_grad_()
    starts = range(0, len(labels), BATCH)
    for start in starts:
        items = slice(start, min(start + BATCH, len(labels)))
        outputs = module(*tensors(job.data.split("train").inputs, items))
        job.workload.loss(outputs, labels[items]).backward()
        for weight in (item for item in module.parameters() if item.grad is not None):
            found[weight] = found.get(weight, 0) + weight.grad.detach().abs() / len(starts)
        module.zero_grad(set_to_none=True)
    return found


def labels_of(job: Job, importance: str) -> Tensor:
    """Return the labels of the items that evidence is taken over.

    Raises:
        Unsupported: There are none.
    """
    import torch

    split = job.data.split("train")
    if split.labels is None:
        raise Unsupported(f"importance {importance!r} needs labels, and workload {job.workload.name!r} has none")
    return torch.as_tensor(split.labels[:ITEMS].copy())


def _ratios(module: nn.Module, job: Job) -> dict[Any, Tensor]:
    import torch
    from torch import nn

    from harness_torch import tensors

    found: dict[Any, Tensor] = {}
    labels = labels_of(job, "snr")

    def note(layer: Any, _given: Any, result: Any) -> None:
        value = result[0] if isinstance(result, tuple) else result
        if isinstance(layer, nn.RNNBase) and not layer.batch_first:
            value = value.movedim(1, 0)
        if len(value) == len(labels):  # else the model has folded something into the items
            found[layer] = snr(value, labels, 1 if isinstance(layer, nn.modules.conv._ConvNd) else -1)

    kinds = (nn.modules.conv._ConvNd, nn.Linear, nn.RNNBase)
    hooks = [layer.register_forward_hook(note) for layer in module.modules() if isinstance(layer, kinds)]
    try:
        with torch.no_grad():
            module.eval()(*tensors(job.data.split("train").inputs, slice(ITEMS)))
    finally:
        for hook in hooks:
            hook.remove()
    return found


def snr(response: Tensor, labels: Tensor, dim: int) -> Tensor:
    """Return the signal-to-noise ratio of each channel's response: shape [channels].

    The signal is the variance that the labels explain, the noise the rest: for classes the variance between their
    means over that within them, as for the response of a neuron to stimuli; for numbers that of a straight line.

    Args:
        response: Items first; averaged over places and steps.
        labels: Shape [n]: whole numbers are classes.
        dim: Of the channels.
    """
    import torch
    from torch.nn import functional

    value = response.detach().movedim(dim, 1).double()
    value = value.reshape(*value.shape[:2], -1).mean(2)
    value = value - value.mean(0)
    target = labels.reshape(len(labels), -1)[:, 0]
    if target.is_floating_point():
        basis = (target.double() - target.double().mean())[:, None]
    else:
        basis = functional.one_hot(target.long()).double()
    weights = basis.square().sum(0).clamp_min(torch.finfo(torch.float64).tiny)
    fitted = basis @ ((basis.T @ value) / weights[:, None])
    signal, noise = fitted.square().mean(0), (value - fitted).square().mean(0)
    return (signal / noise.clamp_min(torch.finfo(torch.float32).eps)).float()


def by_channel(layer: Any, evidence: Evidence, *, out: bool) -> Iterator[Tensor]:
    """Yield for each weight of a layer its importance by output channel, or by input channel: shape [channels]."""
    from torch import nn

    if isinstance(layer, nn.RNNBase):
        yield from _of_recurrent(layer, evidence, out=out)
    elif isinstance(layer, (nn.modules.conv._ConvNd, nn.Linear)):
        if is_grouped(layer):
            turn = by_output if out else by_input
            yield evidence.over(turn(layer, evidence.entries(layer.weight)), 0)
            return
        depthwise = getattr(layer, "groups", 1) > 1
        dim = 0 if out != getattr(layer, "transposed", False) or depthwise else 1
        yield evidence.over(evidence.entries(layer.weight), dim)


def _of_recurrent(layer: Any, evidence: Evidence, *, out: bool) -> Iterator[Tensor]:
    for name, weight in layer.named_parameters():
        if not name.startswith("weight_"):
            continue
        value = evidence.entries(weight)
        reads_input = name.startswith("weight_ih_l0")
        if out:  # rows of all gates
            rows = value.view(-1, layer.hidden_size, value.shape[1])
            yield evidence.over(rows, 1)
        if out != reads_input:  # columns that read the hidden state, or the layer's input
            yield evidence.over(value, 1)
