"""Low-rank factorisation by truncated SVD of linear layers, 1x1 convolutions and what recurrent layers read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness.api import Job, Model
from harness_decomposition.ranks import RankParams, by_energy, smaller
from harness_decomposition.steps import decomposed

if TYPE_CHECKING:
    from torch import Tensor, nn


def compress(model: Model, params: RankParams, job: Job) -> Model:
    """Factorise the matrices of a model in two where that makes them smaller, and fine-tune.

    Of recurrent layers the input matrices are factorised; the matrices that read the state stay, since no
    runtime's recurrent kernel takes them in factors.

    Raises:
        Unsupported: No layer would become smaller.
    """
    multiple = job.hardware.channel_multiple
    return decomposed("low-rank", lambda _name, layer: factored(layer, params, multiple), model, params, job)


def factored(layer: Any, params: RankParams, multiple: int = 1) -> nn.Module | None:
    """Return two layers of lower rank in place of one, or ``None`` where that is not smaller or not possible."""
    from torch import nn
    from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

    if isinstance(layer, nn.Linear):
        return _linear(layer, params, multiple)
    pointwise = isinstance(layer, _ConvNd) and not isinstance(layer, _ConvTransposeNd)
    if pointwise and layer.groups == 1 and set(layer.kernel_size) == {1} and set(layer.padding) == {0}:
        return _pointwise(layer, params, multiple)
    if isinstance(layer, nn.RNNBase) and not layer.proj_size:
        return _recurrent(layer, params, multiple)
    return None


def split(weight: Tensor, params: RankParams, multiple: int) -> tuple[Tensor, Tensor] | None:
    """Return (out [rows, r], in [r, columns]) with out @ in the best approximation of a matrix of that rank.

    The singular values are shared between both (Eckart & Young, 1936); ``None`` where no rank makes it smaller.
    """
    import torch

    left, values, right = torch.linalg.svd(weight.detach().double(), full_matrices=False)
    rank = smaller(_wanted(values, weight, params), multiple, len(values), sum(weight.shape), weight.numel())
    if rank is None:
        return None
    root = values[:rank].sqrt()
    return (left[:, :rank] * root).to(weight.dtype), (root[:, None] * right[:rank]).to(weight.dtype)


def _wanted(values: Tensor, weight: Tensor, params: RankParams) -> int:
    if params.rank is not None:
        return params.rank
    if params.budget is not None:
        return max(1, int(params.budget * weight.numel() / sum(weight.shape)))
    return by_energy(values, params.energy)


def _linear(layer: Any, params: RankParams, multiple: int) -> nn.Module | None:
    from torch import nn

    parts = split(layer.weight, params, multiple)
    if parts is None:
        return None
    first = nn.Linear(layer.in_features, parts[1].shape[0], bias=False)
    second = nn.Linear(parts[0].shape[1], layer.out_features, bias=layer.bias is not None)
    _fill(first, second, parts, layer.bias)
    return nn.Sequential(first, second)


def _pointwise(layer: Any, params: RankParams, multiple: int) -> nn.Module | None:
    from torch import nn

    parts = split(layer.weight.flatten(1), params, multiple)
    if parts is None:
        return None
    rank = parts[0].shape[1]
    first = type(layer)(layer.in_channels, rank, layer.kernel_size, layer.stride, bias=False)
    second = type(layer)(rank, layer.out_channels, layer.kernel_size, bias=layer.bias is not None)
    _fill(first, second, parts, layer.bias)
    return nn.Sequential(first, second)


def _fill(first: Any, second: Any, parts: tuple[Tensor, Tensor], bias: Any) -> None:
    import torch

    with torch.no_grad():
        first.weight.copy_(parts[1].view(first.weight.shape))
        second.weight.copy_(parts[0].view(second.weight.shape))
        if bias is not None:
            second.bias.copy_(bias)


def _recurrent(layer: Any, params: RankParams, multiple: int) -> nn.Module | None:
    """Factorise what each layer of a stack reads; both directions read through one narrow map."""
    from torch import nn

    from harness_torch.recurrent import FactoredRecurrent

    reduce: list[nn.Module] = []
    layers: list[Any] = []
    for i in range(layer.num_layers):
        names = [f"weight_ih_l{i}", *([f"weight_ih_l{i}_reverse"] if layer.bidirectional else [])]
        parts = split(_stacked(layer, names), params, multiple)
        reduce.append(nn.Identity() if parts is None else _narrow(parts[1]))
        layers.append(_one_layer(layer, i, None if parts is None else parts[0]))
    if all(isinstance(item, nn.Identity) for item in reduce):
        return None
    return FactoredRecurrent(reduce, layers, layer.dropout).train(layer.training)


def _stacked(layer: Any, names: list[str]) -> Tensor:
    import torch

    return torch.cat([getattr(layer, name) for name in names])


def _narrow(weight: Tensor) -> nn.Linear:
    import torch
    from torch import nn

    made = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    with torch.no_grad():
        made.weight.copy_(weight)
    return made


def _one_layer(layer: Any, index: int, reads: Tensor | None) -> Any:
    """Return layer ``index`` of a stack alone; with ``reads`` [directions x gates x hidden, r] it reads r values."""
    import torch
    from torch import nn

    kinds: dict[str, Any] = {"GRU": nn.GRU, "LSTM": nn.LSTM, "RNN_TANH": nn.RNN, "RNN_RELU": nn.RNN}
    extra = {"nonlinearity": layer.mode[4:].lower()} if layer.mode.startswith("RNN") else {}
    width = getattr(layer, f"weight_ih_l{index}").shape[1] if reads is None else reads.shape[1]
    made = kinds[layer.mode](
        width, layer.hidden_size, bias=layer.bias, batch_first=layer.batch_first, bidirectional=layer.bidirectional,
        **extra,
    )  # fmt: skip
    rows = None if reads is None else iter(reads.chunk(2 if layer.bidirectional else 1))
    with torch.no_grad():
        for name, value in made.named_parameters():
            old = getattr(layer, name.replace("_l0", f"_l{index}"))
            value.copy_(next(rows) if rows is not None and name.startswith("weight_ih") else old)
    return made
