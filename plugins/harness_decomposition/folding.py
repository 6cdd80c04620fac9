"""BatchNorm folded into the layer before it: the same function with fewer operators."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from harness.api import Job, Model, NoParams, Unsupported
from harness_decomposition.steps import runs

if TYPE_CHECKING:
    from torch import nn

CLOSE = 1e-3  # relative, of outputs before and after: float32 rounding reordered, nothing more


def compress(model: Model, _params: NoParams, job: Job) -> Model:
    """Fold every batch normalisation that directly follows a convolution or a linear layer.

    Raises:
        Unsupported: There is none, the code of the model cannot be followed, or the outputs would change.
    """
    import torch

    from harness_torch import example_inputs, load, save

    module = load(model)
    inputs = example_inputs(job, batch=2)
    before = runs("batchnorm-folding", module, inputs)
    if not fold(module):
        raise Unsupported("batchnorm-folding found no batch normalisation right after a convolution or linear layer")
    after = runs("batchnorm-folding", module, inputs)
    for old, new in zip(_several(before), _several(after), strict=True):
        if not torch.allclose(old, new, rtol=CLOSE, atol=CLOSE * float(old.abs().max())):
            raise Unsupported("batchnorm-folding would change the outputs: a layer is used in more than one way")
    return save(module, model, job)


def _several(outputs: Any) -> tuple[Any, ...]:
    return tuple(outputs) if isinstance(outputs, (tuple, list)) else (outputs,)


def fold(module: nn.Module) -> tuple[str, ...]:
    """Fold in place and return the names of the normalisations that are gone.

    Raises:
        Unsupported: ``torch.fx`` cannot trace the module.
    """
    from torch import nn
    from torch.nn.utils import fusion

    module.eval()
    pairs = _pairs(module)
    for first, norm in pairs:
        layer: Any = module.get_submodule(first)
        fuse = fusion.fuse_linear_bn_eval if isinstance(layer, nn.Linear) else fusion.fuse_conv_bn_eval
        transposed = {"transpose": True} if getattr(layer, "transposed", False) else {}
        _put(module, first, fuse(layer, module.get_submodule(norm), **transposed))
        _put(module, norm, nn.Identity())
    return tuple(norm for _first, norm in pairs)


def _pairs(module: nn.Module) -> list[tuple[str, str]]:
    """Return (layer, normalisation) by name where the latter alone reads the former, each called once."""
    from torch import fx, nn

    try:
        graph = fx.Tracer().trace(module)
    except Exception as error:  # noqa: BLE001  any error of the model's own code under tracing
        raise Unsupported(f"batchnorm-folding cannot follow the code of this model: {error}") from None
    layers = dict(module.named_modules())
    calls = [node for node in graph.nodes if node.op == "call_module"]
    times = Counter(id(layers[node.target]) for node in calls)
    kinds = (nn.Linear, nn.modules.conv._ConvNd)
    found = []
    for node in calls:
        norm, given = layers[node.target], node.args[0] if node.args else None
        if not isinstance(norm, nn.modules.batchnorm._BatchNorm) or norm.running_var is None:
            continue
        if not isinstance(given, fx.Node) or given.op != "call_module" or len(given.users) != 1:
            continue
        layer = layers[given.target]
        if isinstance(layer, kinds) and times[id(layer)] == times[id(norm)] == 1:
            found.append((str(given.target), str(node.target)))
    return found


def _put(module: nn.Module, name: str, layer: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    setattr(module.get_submodule(parent), last, layer)
