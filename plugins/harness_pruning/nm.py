"""N:M sparsity: of every M weights along the input channels the N largest stay (Mishra et al., 2021, for 2:4)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.api import Asked, Job, Model, Unsupported, param
from harness_pruning.magnitude import inner, no_epochs
from harness_pruning.masks import hold, n_of_m

if TYPE_CHECKING:
    from harness_torch.weights import Weight


@dataclass(frozen=True)
class Params:
    """Parameters of ``n-m-pruning``."""

    n: int = param(2, "weights that stay in every group", ge=1)
    m: int = param(4, "weights of a group, neighbours along the input channels", ge=2)
    first: bool = param(False, "prune the first layer too")
    last: bool = param(False, "prune the last layer too")
    epochs: int = param(3, "fine-tuning epochs, zeros held; 0 for none", ge=0)
    lr: float = param(2e-3, "peak learning rate of fine-tuning", gt=0)
    distill: float = param(0.0, "share of the fine-tuning loss that the dense model's outputs give", ge=0, le=1)
    T: float = param(4.0, "temperature of distill", gt=0)


def asks(params: Params) -> Asked:
    """Return the share of the weights that is to become zero."""
    share = 1 - params.n / params.m
    return Asked(f"{params.n} of every {params.m} weights to stay", {"nonzero_parameters": share})


def check(params: Params) -> str | None:
    """Say what is wrong with a combination of parameters."""
    if params.n >= params.m:
        return f"n is the number of weights that stay of every m, so it is below m; got n={params.n}, m={params.m}"
    return no_epochs(params.epochs, params.distill)


def compress(model: Model, params: Params, job: Job) -> Model:
    """Zero M - N of every M weights along the input channels and fine-tune the rest with the zeros held.

    A layer whose input channels are no multiple of M stays dense: no kernel takes a ragged group.

    Raises:
        Unsupported: No layer has a multiple of M input channels.
    """
    from harness_torch import example_inputs, fine_tune, load, save
    from harness_torch.weights import weights_in_order

    module = load(model)
    found = inner(weights_in_order(module, example_inputs(job)), "n-m-pruning", params.first, params.last)
    chosen = fitting(found, params.m)
    masks = [n_of_m(weight.parameter, params.n, params.m, dim=1 - weight.out_dim) for weight in chosen]

    def again(*_step: Any) -> None:
        hold(chosen, masks)

    again()
    fine_tune(
        module, job, epochs=params.epochs, lr=params.lr, distill=params.distill, temperature=params.T, on_batch=again
    )
    wanted = dataclasses.replace(model.precision, storage="sparse", pattern=f"{params.n}:{params.m}")
    return save(module, model, job, precision=wanted)


def fitting(weights: Sequence[Weight], m: int) -> list[Weight]:
    """Return the weights whose input channels are a multiple of m.

    Raises:
        Unsupported: There is none.
    """
    chosen = [weight for weight in weights if weight.parameter.shape[1 - weight.out_dim] % m == 0]
    if not chosen:
        counts = sorted({int(weight.parameter.shape[1 - weight.out_dim]) for weight in weights})
        raise Unsupported(
            f"n-m-pruning with m={m} found no layer whose input channels are a multiple of {m}; they are {counts}"
        )
    return chosen
