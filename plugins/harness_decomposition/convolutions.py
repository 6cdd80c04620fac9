"""Convolutions as chains of smaller ones: Tucker-2 (Kim et al., 2016) and CP (Lebedev et al., 2015), by tensorly."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.api import Asked, Job, MissingDependency, Model, param
from harness_decomposition.ranks import RankParams, by_energy, in_vectors, smaller
from harness_decomposition.steps import decomposed

if TYPE_CHECKING:
    from torch import Tensor, nn

BUDGET = 0.3


@dataclass(frozen=True)
class CpParams:
    """Parameters of ``cp``."""

    budget: float = param(BUDGET, "share of a layer's parameters that may stay", gt=0, lt=1)
    rank: int | None = param(None, "number of components, instead of a budget", ge=1)
    energy: float | None = param(
        None, "share of the kernel's squared norm that the components explain, instead of a budget", gt=0, lt=1
    )
    iterations: int = param(100, "passes of alternating least squares", ge=1)
    epochs: int = param(4, "fine-tuning epochs; 0 for none", ge=0)
    lr: float = param(2e-3, "peak learning rate of fine-tuning", gt=0)
    distill: float = param(0.0, "share of the fine-tuning loss that the dense model's outputs give", ge=0, le=1)
    T: float = param(4.0, "temperature of distill", gt=0)


def asks_cp(params: CpParams) -> Asked:
    """Return what decides the number of components."""
    if params.rank is not None:
        return Asked(f"{params.rank} components")
    if params.energy is not None:
        return Asked(f"{params.energy:g} of a layer's energy to stay")
    return Asked(f"{params.budget:g} of a layer's parameters to stay", {"parameters": 1 - params.budget})


def check_cp(params: CpParams) -> str | None:
    """Say what is wrong with a combination of parameters."""
    said = {"budget": params.budget != BUDGET, "rank": params.rank is not None, "energy": params.energy is not None}
    given = [name for name, is_given in said.items() if is_given]
    if len(given) > 1:
        return f"{' and '.join(given)} each say how many components a layer gets; give one of them"
    if params.distill and not params.epochs:
        return "distill acts in fine-tuning, so it needs epochs of at least 1"
    return None


def compress_tucker(model: Model, params: RankParams, job: Job) -> Model:
    """Replace convolutions by a 1x1, a small core and a 1x1, where that is smaller, and fine-tune.

    Raises:
        Unsupported: No layer would become smaller.
    """
    multiple = job.hardware.channel_multiple
    with _tensorly(job.threads):
        return decomposed("tucker", lambda _name, layer: tucker(layer, params, multiple), model, params, job)


def compress_cp(model: Model, params: CpParams, job: Job) -> Model:
    """Replace convolutions by a 1x1, a depthwise one and a 1x1, where that is smaller, and fine-tune.

    Raises:
        Unsupported: No layer would become smaller.
    """
    multiple = job.hardware.channel_multiple
    with _tensorly(job.threads):
        return decomposed("cp", lambda _name, layer: cp(layer, params, multiple, job.seed), model, params, job)


@contextlib.contextmanager
def _tensorly(threads: int) -> Iterator[None]:
    """Let tensorly compute with torch, on as many threads as the step may use."""
    import torch

    try:
        import tensorly
    except ImportError as error:
        raise MissingDependency(
            "tucker and cp decompose with tensorly, which is not installed",
            hint="pip install 'compression-harness[torch]'",
        ) from error
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with tensorly.backend_context("pytorch", local_threadsafe=True):
            yield
    finally:
        torch.set_num_threads(before)


def decomposable(layer: Any) -> bool:
    """Tell whether a layer is a plain convolution with a kernel of more than one place."""
    from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

    plain = isinstance(layer, _ConvNd) and not isinstance(layer, _ConvTransposeNd)
    return plain and layer.groups == 1 and math.prod(layer.kernel_size) > 1


def tucker(layer: Any, params: RankParams, multiple: int = 1) -> nn.Module | None:
    """Return a Tucker-2 chain in place of a convolution, or ``None`` where that is not smaller or not possible.

    A mode that keeps its full rank is left as it is, so the chain has three or two layers.
    """
    from torch import nn

    if not decomposable(layer):
        return None
    ranks = tucker_ranks(layer.weight, params, multiple)
    if not _smaller_chain(layer, *ranks):
        return None
    core, reduce, expand = tucker_parts(layer.weight.detach().double(), *ranks)
    chain: list[nn.Module] = []
    if reduce is not None:
        chain.append(_pointwise(layer, reduce.T, None))
    chain.append(_core(layer, core, layer.bias if expand is None else None))
    if expand is not None:
        chain.append(_pointwise(layer, expand, layer.bias))
    return nn.Sequential(*chain)


def tucker_parts(weight: Tensor, out: int, into: int) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Return core, input factor [in, r_in] and output factor [out, r_out] of a kernel; no factor at full rank.

    Args:
        weight: Kernel [out, in, *places].
        out: Rank of the output channels.
        into: Rank of the input channels.
    """
    from tensorly.decomposition import partial_tucker

    modes = [mode for mode, rank in enumerate((out, into)) if rank < weight.shape[mode]]
    (core, factors), _errors = partial_tucker(weight, rank=[(out, into)[mode] for mode in modes], modes=modes)
    found = dict(zip(modes, factors, strict=True))
    return core, found.get(1), found.get(0)


def tucker_ranks(weight: Tensor, params: RankParams, multiple: int) -> tuple[int, int]:
    """Return the ranks of output and input channels, in whole vectors.

    By energy each is taken from the spectrum of its own unfolding; by budget both keep one share s of the
    channels, the largest with s in² + s² in out places + s out² within the budget.
    """
    import torch

    out, into, places = weight.shape[0], weight.shape[1], weight[0, 0].numel()
    if params.rank is not None:
        wanted = [params.rank, params.rank]
    elif params.budget is not None:
        square, linear, dense = into * out * places, into**2 + out**2, weight.numel()
        share = (math.sqrt(linear**2 + 4 * square * params.budget * dense) - linear) / (2 * square)
        wanted = [max(1, int(share * out)), max(1, int(share * into))]
    else:
        unfolded = (weight.detach().double().movedim(mode, 0).flatten(1) for mode in (0, 1))
        wanted = [by_energy(torch.linalg.svdvals(matrix), params.energy) for matrix in unfolded]
    return in_vectors(wanted[0], multiple, out), in_vectors(wanted[1], multiple, into)


def _smaller_chain(layer: Any, out: int, into: int) -> bool:
    """Tell whether a chain has fewer parameters and fewer multiply-accumulates than the layer.

    Both matter: before a stride the first 1x1 runs on every place, so it may have few weights and many products.
    """
    places, stride = math.prod(layer.kernel_size), math.prod(layer.stride)
    reduce = layer.in_channels * into if into < layer.in_channels else 0
    expand = layer.out_channels * out if out < layer.out_channels else 0
    dense, core = layer.weight.numel(), into * out * places
    return bool(reduce + core + expand < dense and reduce * stride + core + expand < dense)


def cp(layer: Any, params: CpParams, multiple: int = 1, seed: int = 0) -> nn.Module | None:
    """Return a CP chain (1x1, depthwise, 1x1) in place of a convolution, or ``None`` where that is not smaller."""
    from torch import nn

    if not decomposable(layer):
        return None
    places, stride = math.prod(layer.kernel_size), math.prod(layer.stride)
    cost = layer.in_channels * stride + layer.out_channels + places  # products per output place and component
    dense = layer.weight.numel()
    weight = layer.weight.detach().double()
    wanted = params.rank or max(1, int(params.budget * dense / (layer.in_channels + layer.out_channels + places)))
    if params.energy is not None:
        most = (dense - 1) // cost
        wanted = cp_rank(weight, params.energy, most, iterations=params.iterations, seed=seed) if most else dense
    rank = smaller(wanted, multiple, dense, cost, dense)
    if rank is None:
        return None
    out, into, kernel = cp_parts(weight, rank, iterations=params.iterations, seed=seed)
    depthwise = kernel.T.reshape(rank, 1, *layer.kernel_size)
    return nn.Sequential(
        _pointwise(layer, into.T, None), _core(layer, depthwise, None, groups=rank), _pointwise(layer, out, layer.bias)
    )


def cp_parts(weight: Tensor, rank: int, *, iterations: int = 100, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Return factors [out, r], [in, r] and [places, r] whose outer products sum to nearly the kernel.

    The places of the kernel are one mode, so that the middle of the chain is one depthwise convolution. Each
    component's norm is shared evenly between its factors: else fine-tuning diverges on the large ones.

    Args:
        weight: Kernel [out, in, *places].
        rank: Number of components.
        iterations: Of alternating least squares.
        seed: Of the starting factors beyond the singular vectors.
    """
    import warnings

    from tensorly.decomposition import parafac

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Trying to compute SVD")  # more components than a mode has: meant
        found = parafac(weight.flatten(2), rank=rank, n_iter_max=iterations, init="svd", tol=1e-6, random_state=seed)
    return _balanced([found.factors[0] * found.weights, *found.factors[1:]])


def cp_rank(weight: Tensor, energy: float, most: int, *, iterations: int = 100, seed: int = 0) -> int:
    """Return the fewest components that explain a share of a kernel's squared norm, by bisection over fits.

    A kernel has no spectrum from which this could be read: the best r components are not among the best r + 1
    (Kolda & Bader, 2009, section 3.3), so each rank that is asked about is fitted.

    Args:
        weight: Kernel [out, in, *places].
        energy: 1 - |W - W_r|² / |W|², 0..1.
        most: The largest rank of interest.
        iterations: Of alternating least squares.
        seed: Of the starting factors beyond the singular vectors.

    Returns:
        A rank of at most ``most``, or ``most + 1`` where that many explain less.
    """
    low, high = 0, most + 1
    while high - low > 1:
        middle = (low + high) // 2
        reached = explained(weight, cp_parts(weight, middle, iterations=iterations, seed=seed)) >= energy
        low, high = (low, middle) if reached else (middle, high)
    return high


def explained(weight: Tensor, factors: tuple[Tensor, Tensor, Tensor]) -> float:
    """Return the share of a kernel's squared norm that CP factors explain."""
    import torch

    error = weight.flatten(2) - torch.einsum("or,ir,pr->oip", *factors)
    return 1 - float(error.square().sum() / weight.square().sum())


def _balanced(factors: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    import torch

    norms = torch.stack([factor.norm(dim=0) for factor in factors])
    each = norms.prod(0) ** (1 / len(factors))
    first, second, third = (
        factor * (each / norm.clamp_min(torch.finfo(norm.dtype).tiny))
        for factor, norm in zip(factors, norms, strict=True)
    )
    return first, second, third


def _pointwise(like: Any, matrix: Tensor, bias: Any) -> nn.Module:
    """Return a 1x1 convolution [out, in]."""
    made = type(like)(matrix.shape[1], matrix.shape[0], 1, bias=bias is not None)
    return _filled(made, matrix.reshape(made.weight.shape), bias)


def _core(like: Any, kernel: Tensor, bias: Any, *, groups: int = 1) -> nn.Module:
    """Return a convolution with the stride, padding and dilation of another."""
    made = type(like)(
        kernel.shape[1] * groups, kernel.shape[0], like.kernel_size, like.stride, like.padding, like.dilation,
        groups, bias is not None, like.padding_mode,
    )  # fmt: skip
    return _filled(made, kernel, bias)


def _filled(layer: Any, weight: Tensor, bias: Any) -> nn.Module:
    import torch

    with torch.no_grad():
        layer.weight.copy_(weight)
        if bias is not None:
            layer.bias.copy_(bias)
    made: nn.Module = layer
    return made
