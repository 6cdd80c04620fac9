"""Count parameters and multiply-accumulates."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn


def parameters(module: nn.Module) -> int:
    """Return the number of parameters; a shared one counts once, buffers do not."""
    return sum(item.numel() for item in module.parameters())


def nonzero(module: nn.Module) -> int:
    """Return the number of parameters that are not zero."""
    return sum(int((item != 0).sum()) for item in module.parameters())


def macs(module: nn.Module, inputs: Sequence[Tensor]) -> int:
    """Return the multiply-accumulates of one call, in evaluation mode; with batch 1 they are those per item.

    Counted are convolutions, transposed convolutions, linear layers, matrix products, recurrent layers and both
    products of attention. Biases, normalisation, activations and pooling are not, as is the custom of the field.
    """
    return sum(macs_by_kind(module, inputs).values())


def macs_by_kind(module: nn.Module, inputs: Sequence[Tensor]) -> dict[str, int]:
    """Return the same by class of the layer that computes them, or by function where no layer of its own does."""
    import torch

    training, fast = module.training, torch.backends.mha.get_fastpath_enabled()
    counter = _counter()
    leaves = [item for item in module.modules() if next(item.children(), None) is None and item is not module]
    hooks = [hook for item in leaves for hook in (item.register_forward_pre_hook(counter.enter),
                                                  item.register_forward_hook(counter.leave))]  # fmt: skip
    hooks += [
        item.register_forward_hook(counter.attention, with_kwargs=True)
        for item in module.modules()
        if isinstance(item, torch.nn.MultiheadAttention)
    ]
    torch.backends.mha.set_fastpath_enabled(False)  # the fused encoder layer would hide its products
    module.eval()
    try:
        with torch.no_grad(), counter:
            module(*inputs)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        module.train(training)
        for hook in hooks:
            hook.remove()
    return {kind: int(count) for kind, count in counter.found.items()}


def _conv(_input: Tensor, weight: Tensor, result: Any) -> int:
    return int(result.numel() * weight[0].numel())  # weight [out, in / groups, *kernel]


def _conv_transpose(value: Tensor, weight: Tensor, _result: Any) -> int:
    return value.numel() * weight[0].numel()  # weight [in, out / groups, *kernel]


def _linear(_input: Tensor, weight: Tensor, result: Any) -> int:
    return int(result.numel() * weight.shape[-1])


def _matmul(left: Tensor, _right: Tensor, result: Any) -> int:
    return int(result.numel() * left.shape[-1])


def _addmm(_bias: Tensor, left: Tensor, result: Any) -> int:
    return int(result.numel() * left.shape[-1])


def _attention(query: Tensor, key: Tensor, result: Any) -> int:
    # query [..., L, d] by key [..., S, d], then weights [..., L, S] by value [..., S, e]
    return query.numel() * key.shape[-2] + int(result.numel()) * key.shape[-2]


def _recurrent(value: Tensor, _state: Any, weights: Sequence[Tensor]) -> int:
    # each matrix multiplies once per item and time step: [gates x hidden, in], [gates x hidden, hidden], projection
    steps = math.prod(value.shape[:-1])
    return steps * sum(weight.numel() for weight in weights if weight.dim() == 2)


def _einsum(equation: str, operands: Sequence[Tensor]) -> int:
    terms = equation.replace(" ", "").split("->")[0].split(",")
    sizes: dict[str, int] = {}
    for term, operand in zip(terms, operands, strict=True):
        sizes.update(zip(term, operand.shape, strict=True))
    return math.prod(sizes.values()) * (len(terms) - 1)


def _table() -> Mapping[Any, Callable[[tuple[Any, ...], Mapping[str, Any], Any], int]]:
    import torch
    from torch import Tensor
    from torch.nn import functional

    def two(formula: Callable[[Tensor, Tensor, Any], int], second: str) -> Callable[..., int]:
        def count(args: tuple[Any, ...], kwargs: Mapping[str, Any], result: Any) -> int:
            left = args[0] if args else kwargs["input"]
            return formula(left, args[1] if len(args) > 1 else kwargs[second], result)

        return count

    def recurrent(args: tuple[Any, ...], _kwargs: Mapping[str, Any], _result: Any) -> int:
        # (data, batch sizes, state, weights, …) of a packed sequence, else (input, state, weights, with biases, …)
        packed = not isinstance(args[3], bool)
        return _recurrent(args[0], args[1], args[3] if packed else args[2])

    def einsum(args: tuple[Any, ...], _kwargs: Mapping[str, Any], _result: Any) -> int:
        operands = args[1] if len(args) == 2 and isinstance(args[1], (tuple, list)) else args[1:]
        return _einsum(args[0], operands)

    attention = two(_attention, "key")
    table: dict[Any, Callable[..., int]] = {
        functional.linear: two(_linear, "weight"),
        functional.scaled_dot_product_attention: lambda args, kwargs, result: attention(
            args or (kwargs["query"],), kwargs, result
        ),
        torch.einsum: einsum,
        torch.addmm: two(_addmm, "mat1"),
        torch.baddbmm: two(_addmm, "batch1"),
    }
    for name in ("conv1d", "conv2d", "conv3d"):
        table[getattr(functional, name)] = two(_conv, "weight")
        table[getattr(functional, name.replace("conv", "conv_transpose"))] = two(_conv_transpose, "weight")
    for product in (torch.matmul, torch.mm, torch.bmm, Tensor.matmul, Tensor.__matmul__, Tensor.mm, Tensor.bmm):
        table[product] = two(_matmul, "mat2")
    for name in ("linear", "matmul", "mm", "bmm", "addmm", "baddbmm", "conv1d", "conv2d", "conv3d", "einsum"):
        function = table.get(getattr(functional, name, None)) or table[getattr(torch, name)]
        table[getattr(torch.ops.aten, name).default] = function  # what a program of torch.export calls
    table[torch.ops.aten.scaled_dot_product_attention.default] = table[functional.scaled_dot_product_attention]
    for name in ("gru", "lstm", "rnn_tanh", "rnn_relu"):
        table[getattr(torch._VF, name)] = recurrent  # the functions that torch.nn's recurrent layers call
        table[getattr(torch, name)] = recurrent
    return table


def _counter() -> Any:
    """Return a function mode that adds up the products of the calls made in it, by the layer or function.

    A mode sees functional calls and layers alike. ``multi_head_attention_forward`` is one call to it, so
    the module's own hook counts that.
    """
    from torch.overrides import TorchFunctionMode

    class Counter(TorchFunctionMode):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.inside = _table(), [""]
            self.found: dict[str, int] = {}

        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = func(*args, **(kwargs or {}))
            if func in self.table:
                self.add(self.inside[-1] or func.__name__, self.table[func](args, kwargs or {}, result))
            return result

        def add(self, kind: str, count: int) -> None:
            self.found[kind] = self.found.get(kind, 0) + int(count)

        def enter(self, layer: Any, _args: Any) -> None:
            self.inside.append(type(layer).__name__)

        def leave(self, _layer: Any, _args: Any, _result: Any) -> None:
            self.inside.pop()

        def attention(self, layer: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], _result: Any) -> None:
            query, key, value = (
                args[i] if len(args) > i else kwargs[name] for i, name in enumerate(("query", "key", "value"))
            )
            self.add("MultiheadAttention", _multihead(layer, query, key, value))

    return Counter()


def _multihead(layer: Any, query: Tensor, key: Tensor, value: Tensor) -> int:
    """Projections of query, key, value and output, then both products over all heads (width E in total)."""
    width = layer.embed_dim
    first = 1 if layer.batch_first else 0
    keys = key.shape[first] if key.dim() == 3 else key.shape[0]
    queries = query.numel() // width
    projections = query.numel() * width + key.numel() * width + value.numel() * width + query.numel() * width
    return int(projections + 2 * queries * keys * width)
