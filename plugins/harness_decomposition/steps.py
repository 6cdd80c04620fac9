"""What every decomposition does around its own work: load, replace, check, fine-tune, save."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from harness.api import Job, Model, Unsupported, first_line

if TYPE_CHECKING:
    from torch import nn


class Tuned(Protocol):
    """Parameters that fine-tuning reads."""

    @property
    def epochs(self) -> int:
        """Epochs."""
        ...

    @property
    def lr(self) -> float:
        """Peak learning rate."""
        ...

    @property
    def distill(self) -> float:
        """Share of the teacher's loss."""
        ...

    @property
    def T(self) -> float:  # noqa: N802  the field's own name
        """Temperature."""
        ...


def decomposed(
    method: str, make: Callable[[str, nn.Module], nn.Module | None], model: Model, params: Tuned, job: Job
) -> Model:
    """Replace layers by smaller ones that compute nearly the same, and fine-tune.

    Raises:
        Unsupported: No layer would become smaller, or the module reads the weights of a layer that is gone.
    """
    from harness_torch import example_inputs, fine_tune, load, save, seed_everything
    from harness_torch.replacing import replace_layers

    module = load(model)
    seed_everything(job.seed)
    touched = replace_layers(module, make)
    if not touched:
        raise Unsupported(f"{method} found no layer that it would make smaller at these ranks")
    runs(method, module, example_inputs(job, batch=2))
    fine_tune(module, job, epochs=params.epochs, lr=params.lr, distill=params.distill, temperature=params.T)
    return save(module, model, job, counted={"layers_touched": float(len(touched))})


def runs(method: str, module: nn.Module, inputs: Any) -> Any:
    """Return the outputs of a changed module.

    Raises:
        Unsupported: It no longer runs.
    """
    import torch

    try:
        with torch.no_grad():
            return module.eval()(*inputs)
    except (AttributeError, RuntimeError, TypeError, ValueError) as error:
        raise Unsupported(
            f"{method} leaves a model that no longer runs: its code uses a layer's parts: {first_line(str(error))}"
        ) from None
