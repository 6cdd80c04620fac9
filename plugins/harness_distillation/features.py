"""Match hidden layers of a student with those of its teacher, through adapters that are thrown away."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.api import Job, Unsupported

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class Point:
    """A layer with the shape of its output for one item; channels are dimension 1 of maps, else the last one."""

    name: str
    layer: nn.Module
    shape: tuple[int, ...]
    maps: bool

    @property
    def channels(self) -> int:
        """Size of the channel dimension."""
        return self.shape[1] if self.maps else self.shape[-1]

    def fits(self, other: Point) -> bool:
        """Tell whether two outputs differ in nothing that an adapter and pooling cannot bridge."""
        alike = self.maps == other.maps and len(self.shape) == len(other.shape)
        return alike and (self.maps or self.shape[:-1] == other.shape[:-1])


def hidden_points(module: nn.Module, inputs: Sequence[Tensor]) -> list[Point]:
    """Return the layers with weights in the order in which a call uses them, without the last one.

    Args:
        module: Left as it is.
        inputs: Of one call, by position.
    """
    import torch
    from torch.nn.modules.conv import _ConvNd

    from harness_torch.weights import weights_in_order

    layers = dict.fromkeys(weight.owner for weight in weights_in_order(module, inputs))
    names = {layer: name for name, layer in module.named_modules()}
    training = module.training
    module.eval()
    with torch.no_grad(), watched(layers) as seen:
        module(*inputs)
    module.train(training)
    found = [
        Point(names[layer], layer, tuple(seen[layer][0].shape), isinstance(layer, _ConvNd))
        for layer in layers
        if layer in seen  # the output projection of attention is used without being called
    ]
    return found[:-1]


@contextlib.contextmanager
def watched(layers: Any) -> Iterator[dict[Any, list[Tensor]]]:
    """Collect what layers return, call by call, as long as the context lasts."""
    import torch

    seen: dict[Any, list[Tensor]] = {}

    def note(layer: nn.Module, _inputs: object, output: Any) -> None:
        seen.setdefault(layer, []).append(output[0] if isinstance(output, (tuple, list)) else output)

    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # the fused encoder layer calls no inner layer
    hooks = [layer.register_forward_hook(note) for layer in layers]
    try:
        yield seen
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        for hook in hooks:
            hook.remove()


def pairs(student: Sequence[Point], teacher: Sequence[Point], points: int) -> list[tuple[Point, Point]]:
    """Choose layers at even shares of the student's depth, each with the fitting one nearest to it in the teacher's.

    Args:
        student: Its hidden layers in order.
        teacher: Likewise.
        points: How many are wanted; one is the middle, two are a third and two thirds.
    """
    chosen = dict.fromkeys(_at((number + 1) / (points + 1), len(student)) for number in range(points))
    found: list[tuple[Point, Point]] = []
    for index in chosen if student else ():
        own = student[index]
        share = (index + 0.5) / len(student)
        fitting = [number for number, other in enumerate(teacher) if own.fits(other)]
        if fitting:
            nearest = min(fitting, key=lambda number: abs((number + 0.5) / len(teacher) - share))
            found.append((own, teacher[nearest]))
    return found


def _at(share: float, count: int) -> int:
    return min(count - 1, int(share * count))


def adapter(own: Point, other: Point) -> nn.Module:
    """Return the linear map from the student's channels to the teacher's: 1x1 for maps."""
    from torch import nn

    if not own.maps:
        return nn.Linear(own.channels, other.channels)
    kinds = {3: nn.Conv1d, 4: nn.Conv2d, 5: nn.Conv3d}
    return kinds[len(own.shape)](own.channels, other.channels, 1)


def feature_loss(own: Tensor, other: Tensor, adapt: nn.Module, *, maps: bool) -> Tensor:
    """Return the mean squared error of the adapted features over the mean square of the teacher's.

    The division makes layers of different scale weigh alike. Maps of different size are averaged down to the
    smaller one first.

    Args:
        own: Student's output: [n, channels, …] for maps, else [n, …, channels].
        other: Teacher's output, without gradient.
        adapt: From ``adapter``.
        maps: Whether they are maps.
    """
    if maps and own.shape[2:] != other.shape[2:]:
        own, other = _pooled(own, other)
    return (adapt(own) - other).square().mean() / other.square().mean().clamp_min(1e-12)


def _pooled(own: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    from torch.nn import functional

    pool: Any = {
        3: functional.adaptive_avg_pool1d,
        4: functional.adaptive_avg_pool2d,
        5: functional.adaptive_avg_pool3d,
    }[own.dim()]
    size = tuple(min(pair) for pair in zip(own.shape[2:], other.shape[2:], strict=True))
    return pool(own, size), pool(other, size)


def distil_features(
    student: nn.Module, teacher: nn.Module, job: Job, *,
    temperature: float, alpha: float, beta: float, points: int, epochs: int, lr: float,
) -> None:  # fmt: skip
    """Train a student in place on the mixed loss of its outputs + beta x the mean loss of the matched layers.

    Raises:
        Unsupported: No hidden layer of the student has a counterpart, or the train split has no labels.
    """
    import torch
    from torch import nn

    from harness_distillation.training import mixed, numbered, several, train_labels
    from harness_torch import example_inputs, fit, seed_everything

    example = example_inputs(job)
    matched = pairs(hidden_points(student, example), hidden_points(teacher, example), points)
    if not matched:
        raise Unsupported(
            f"no hidden layer of the student has a counterpart in the model of workload {job.workload.name!r}"
        )
    seed_everything(job.seed)
    adapters = nn.ModuleList(adapter(own, other) for own, other in matched)
    job.log.info("matched %s", ", ".join(f"{own.name} with {other.name}" for own, other in matched))
    labels = train_labels(job)
    teacher.eval()

    with watched([own.layer for own, _other in matched]) as seen:

        def loss(outputs: Any, items: Tensor, inputs: tuple[Tensor, ...]) -> Tensor:
            mine = [torch.cat(seen[own.layer]) for own, _other in matched]
            seen.clear()
            with torch.no_grad(), watched([other.layer for _own, other in matched]) as theirs:
                taught = several(teacher(*inputs))
            inside = [
                feature_loss(value, torch.cat(theirs[other.layer]), adapt, maps=own.maps)
                for value, (own, other), adapt in zip(mine, matched, adapters, strict=True)
            ]
            outside = mixed(outputs, taught, labels[items], job, temperature=temperature, alpha=alpha)
            return outside + beta * torch.stack(inside).mean()

        module = _together(student, adapters)
        fit(module, numbered(job), epochs=epochs, lr=lr, loss=loss, augment=job.workload.augment)


def _together(student: nn.Module, adapters: nn.Module) -> nn.Module:
    """Return a module that calls as the student and trains the adapters too."""
    from torch import nn

    class Together(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.student, self.adapters = student, adapters

        def forward(self, *inputs: Tensor) -> Any:
            return self.student(*inputs)

    return Together()
