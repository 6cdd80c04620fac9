"""A user's module in the form that every method reads: torch.nn layers with plain weights, tensors in and out.

It is done once, where a module enters: wrappers are taken off, lazy layers get their sizes, parametrizations, weight
norm and pruning masks are computed into the weights, and other float dtypes become float32.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.api import BadModel
from harness_torch import calling, travelling
from harness_torch.lifting import exported, lifted

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor, nn

    Batch = Mapping[str, NDArray[Any]]

CAST = "cast_to_float32"  # the flag of a model whose own floats were wider or narrower
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_ALIKE = 1e-3  # largest difference between two answers to the same items, over the largest output: below it is rounding


@dataclass(frozen=True)
class Plain:
    """A module in plain form.

    Attributes:
        module: In evaluation mode; takes its inputs by position and returns a tensor or a tuple.
        outputs: Name and first items of each output, in order.
        dtypes: Of the inputs, as the module takes them.
        zeros: Parameter name -> where a pruning mask holds it at zero.
        flags: What every cell made from it shows.
    """

    module: nn.Module
    outputs: Mapping[str, NDArray[Any]]
    dtypes: Mapping[str, str]
    zeros: Mapping[str, Tensor] = dataclasses.field(default_factory=dict)
    flags: tuple[str, ...] = ()

    def hold(self, module: nn.Module) -> None:
        """Put a trained module's masked weights back to zero."""
        import torch

        with torch.no_grad():
            for name, parameter in module.named_parameters():
                if name in self.zeros:
                    parameter.masked_fill_(self.zeros[name], 0)


def plain(
    module: Any, batch: Batch, *, outputs: Sequence[str] = (), whole: Collection[str] = (), what: str = "the module"
) -> Plain:
    """Bring a module into plain form; the module that is given may be changed in place.

    Args:
        module: A torch.nn.Module in any of its wrappings.
        batch: A few items of each input by name.
        outputs: Names that the user gives the outputs: one for each, or keys of what the module returns, of which
            only these are then outputs. Empty for the module's own names, "logits" for a lone tensor.
        whole: Inputs that hold no items on their first dimension.
        what: Names the module in errors.

    Raises:
        BadModel: It cannot run these inputs, or its outputs are not what the names say; one sentence says why.
    """
    import torch

    module = _unwrapped(module).eval()
    with torch.random.fork_rng(devices=[]):
        call, result, batch, flags = _first_call(module, batch, what)
    zeros = _baked(module)
    call, named = _named(call, result, tuple(outputs), what)
    items = [name not in whole for name in batch]
    made = _finished(module, call, named, batch, items, zeros, flags, what)
    for name, before, after in zip(named, _several(call.read(result)), made.outputs.values(), strict=True):
        if not flags and not _alike(before.float(), torch.from_numpy(after)):
            raise BadModel(f"{what} gives another {name!r} once it is made of plain layers")
    return made


def _finished(
    module: nn.Module, call: calling.Call, names: tuple[str, ...], batch: Batch, items: Sequence[bool],
    zeros: Mapping[str, Tensor], flags: tuple[str, ...], what: str,
) -> Plain:  # fmt: skip
    made = _travelling(module, call, batch, items, what)
    answers = [_several(_run(made, calling.Call("args", call.names, tuple(range(len(batch)))), batch)) for _ in "12"]
    for name, one, two in zip(names, *answers, strict=True):
        if one.shape == two.shape and not _alike(one, two):
            raise BadModel(
                f"{what} gives other values of {name!r} for the same items at each call, in evaluation mode too",
                hint="dropout that is called as a function needs training=self.training; random draws have no figures",
            )
    shown = {name: value.detach().float().numpy() for name, value in zip(names, answers[0], strict=True)}
    return Plain(made, shown, {name: str(value.dtype) for name, value in batch.items()}, zeros, flags)


def _travelling(module: nn.Module, call: calling.Call, batch: Batch, items: Sequence[bool], what: str) -> nn.Module:
    """Return the module in a form that a file takes: itself, or layers made of its exported program."""
    import torch

    scripted = any(isinstance(layer, torch.jit.ScriptModule) for layer in module.modules())
    fixed = isinstance(module, torch.fx.GraphModule) or "forward" in module.__dict__
    why = "it is TorchScript" if scripted else "its class is its own" if fixed else travelling.obstacle(module)
    if why is None:
        return calling.bound(module, call)
    try:
        return lifted(exported(module, call, [torch.from_numpy(value.copy()) for value in batch.values()], items))
    except Exception as error:
        raise BadModel(f"{what} cannot be written to a file ({why}), nor exported: {said(error)}") from error


def _alike(one: Tensor, two: Tensor) -> bool:
    import torch

    scale = float(one.double().abs().nan_to_num(0, 0, 0).max()) if one.numel() else 0.0
    return torch.allclose(one.double(), two.double(), rtol=0, atol=_ALIKE * scale, equal_nan=True)


def _several(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, (tuple, list)) else (value,)


def _unwrapped(module: Any) -> Any:
    """Take wrappers off the module and off every layer in it."""
    from torch import nn

    module = _inner(module)
    for layer in list(module.modules()):
        if "_compiled_call_impl" in layer.__dict__:
            layer._compiled_call_impl = None
        for name, child in layer._modules.items():
            if isinstance(child, nn.Module) and _inner(child) is not child:
                layer._modules[name] = _inner(child)
    return module


def _inner(module: Any) -> Any:
    from torch import nn
    from torch.optim.swa_utils import AveragedModel

    while True:
        if "_orig_mod" in module._modules:  # of torch.compile
            module = module._orig_mod
        elif isinstance(module, (nn.DataParallel, nn.parallel.DistributedDataParallel, AveragedModel)):
            module = module.module
        else:
            return module


def _first_call(module: nn.Module, batch: Batch, what: str) -> tuple[calling.Call, Any, Batch, tuple[str, ...]]:
    """Find how a module takes its inputs by calling it, which also gives lazy layers their sizes."""
    told = ", ".join(f"{name} {value.dtype}{list(value.shape)}" for name, value in batch.items())
    try:
        ways = calling.ways(module, list(batch))
    except ValueError as error:
        raise BadModel(f"{what} does not fit its inputs: {error}", hint="name the inputs as forward does") from error
    problem: Exception | None = None
    for cast, flags in _forms(module, batch):
        for number, way in enumerate(ways):
            try:
                return way, _run(module, way, cast), cast, flags
            except Exception as error:  # noqa: BLE001  the user's code may raise anything
                if number == 0 and (problem is None or not flags):
                    problem = error
    if ways[0].style != "args":
        told = ", ".join(batch)
        raise BadModel(
            f"{what} does not fit its inputs: forward takes one argument; the inputs are {told}"
        ) from problem
    raise BadModel(f"{what} cannot run its own inputs ({told}): {said(problem)}") from problem


def said(error: BaseException | None) -> str:
    """Return what an error says first, on one line and without the colours of a terminal."""
    lines = [line.strip() for line in _COLOURS.sub("", str(error)).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__


def _forms(module: nn.Module, batch: Batch) -> Iterator[tuple[Batch, tuple[str, ...]]]:
    """Yield the batch in the dtypes that the module may take: all in float32 first, then as they are.

    A module of other floats is in float32 meanwhile, and in its own again where its code does not run in that.
    """
    import torch

    single = {name: value.astype("float32") if value.dtype.kind == "f" else value for name, value in batch.items()}
    values = [*module.parameters(), *module.buffers()]
    if not any(value.is_floating_point() and value.dtype != torch.float32 for value in values):
        yield batch, ()
        yield single, ()
        return
    parameters = [(value, value.data) for value in module.parameters()]
    buffers = [(layer._buffers, dict(layer._buffers)) for layer in module.modules()]
    module.float()
    yield single, (CAST,)
    for value, data in parameters:
        value.data = data
    for space, held in buffers:
        space.update(held)
    yield batch, ()
    for kind in ("float16", "float64"):
        yield {name: value.astype(kind) if value.dtype.kind == "f" else value for name, value in batch.items()}, ()


def _run(module: nn.Module, call: calling.Call, batch: Batch) -> Any:
    import torch

    given, named = call.given([torch.from_numpy(value.copy()) for value in batch.values()])
    with torch.no_grad():
        return call.read(module(*given, **named))


def _baked(module: nn.Module) -> dict[str, Tensor]:
    """Compute what is laid over the weights into them, and return where masks hold weights at zero."""
    from torch import nn

    from harness_torch.layers import Bag

    zeros: dict[str, Tensor] = {}
    for name, layer in module.named_modules():
        _without_parametrizations(layer)
        zeros.update({f"{name}.{key}" if name else key: mask for key, mask in _without_hooks(layer).items()})
    for layer in module.modules():
        _cut_off(layer)
        if type(layer) is nn.EmbeddingBag:
            layer.__class__ = Bag
    return zeros


def _without_parametrizations(layer: nn.Module) -> None:
    from torch import nn
    from torch.nn.utils import parametrize

    if parametrize.is_parametrized(layer):
        for name in list(layer.parametrizations):
            learned = any(True for _ in layer.parametrizations[name].parameters(recurse=False))
            parametrize.remove_parametrizations(layer, name, leave_parametrized=True)
            if learned and name in layer._buffers:  # where all that it came of was frozen
                value = layer._buffers.pop(name)
                setattr(layer, name, nn.Parameter(value, requires_grad=False))


def _without_hooks(layer: nn.Module) -> dict[str, Tensor]:
    """Take off the weight norm, spectral norm and pruning that work by a hook before each call."""
    from torch.nn.utils import prune, remove_spectral_norm, remove_weight_norm
    from torch.nn.utils.spectral_norm import SpectralNorm
    from torch.nn.utils.weight_norm import WeightNorm

    zeros = {}
    for hook in list(layer._forward_pre_hooks.values()):
        if isinstance(hook, prune.BasePruningMethod):
            zeros[hook._tensor_name] = getattr(layer, f"{hook._tensor_name}_mask") == 0
            prune.remove(layer, hook._tensor_name)
        elif isinstance(hook, WeightNorm):
            remove_weight_norm(layer, hook.name)
        elif isinstance(hook, SpectralNorm):
            remove_spectral_norm(layer, hook.name)
    return zeros


def _cut_off(layer: nn.Module) -> None:
    """Cut tensors that are no parameters from the graph that made them: neither copies nor files take them with it."""
    import torch

    for space in (layer.__dict__, layer._buffers):
        for name, value in list(space.items()):
            if isinstance(value, torch.Tensor) and not value.is_leaf:
                space[name] = value.detach()


def _named(call: calling.Call, result: Any, wanted: tuple[str, ...], what: str) -> tuple[calling.Call, tuple[str, ...]]:
    """Return the call that reads the outputs, and their names."""
    found = calling.leaves(result)
    if not found:
        raise BadModel(f"{what} returns {type(result).__name__} in which there is no tensor")
    own = [name or "logits" for name, _ in found]
    paths = [path for _, path in found]
    names = wanted or tuple(own)
    if wanted and set(wanted) <= set(own):
        paths = [paths[own.index(name)] for name in wanted]
    elif len(names) != len(found):
        told = ", ".join(own)
        raise BadModel(
            f"{what} returns {len(found)} outputs ({told}), but {len(names)} are named: {', '.join(names)}",
            hint=f"outputs=({', '.join(map(repr, own))},)",
        )
    in_row = [(("index", index),) for index in range(len(paths))]  # the members of a tuple, all of them in their order
    whole = paths == [()] or (
        type(result) is tuple and len(result) > 1 and paths == in_row and len(in_row) == len(result)
    )
    return (call if whole else dataclasses.replace(call, paths=tuple(paths))), names
