"""Which layers follow each other in a module, read from its exported program: to fold batch norms, to scale pairs."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

_LAYERS = {f"aten.{kind}.default" for kind in ("conv1d", "conv2d", "conv3d", "linear")}
_TRANSPOSED = {"aten.conv_transpose1d.default", "aten.conv_transpose2d.input", "aten.conv_transpose3d.input"}
_LINEAR = "aten.linear.default"
_CONVOLUTIONS = (_LAYERS | _TRANSPOSED) - {_LINEAR}
_NORM = "aten.batch_norm.default"
# f(s * x) = s * f(x) for s > 0, channel by channel
_HOMOGENEOUS = {"aten.relu.default", "aten.relu_.default", "aten.dropout.default", "aten.max_pool2d.default"}
log = logging.getLogger("harness")


def fold_batch_norms(module: nn.Module, inputs: Sequence[Tensor]) -> tuple[str, ...]:
    """Fold each batch norm that directly follows a convolution or linear layer into it, in place, for evaluation mode.

    w' = w * gamma / sqrt(var + eps), b' = (b - mean) * gamma / sqrt(var + eps) + beta; the norm becomes an identity.

    Args:
        module: Changed in place; its parameters keep their names, except those of the norms, which go.
        inputs: Of one call, by position.

    Returns:
        Names of the norms that were folded; none where the module cannot be exported.
    """
    from torch import nn
    from torch.nn.modules.batchnorm import _BatchNorm
    from torch.nn.utils.fusion import fuse_conv_bn_weights

    folded = []
    for layer_name, norm_name in _normalised(module, inputs):
        layer, norm = module.get_submodule(layer_name), module.get_submodule(norm_name)
        if not isinstance(norm, _BatchNorm) or norm.running_mean is None or norm.running_var is None:
            continue
        layer.weight, layer.bias = fuse_conv_bn_weights(
            layer.weight,
            layer.bias,
            norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias,
            transpose=bool(getattr(layer, "transposed", False)),
        )  # fmt: skip
        module.set_submodule(norm_name, nn.Identity())
        folded.append(norm_name)
    return tuple(folded)


def _normalised(module: nn.Module, inputs: Sequence[Tensor]) -> list[tuple[str, str]]:
    """Return (layer, batch norm) by name where the second is the only reader of the first, each called once."""
    nodes, names = _program(module, inputs)
    norms = [node for node in nodes if str(node.target) == _NORM]
    times = Counter(names.get(node.args[3].name) for node in norms)
    pairs = []
    for node in norms:
        source, held = node.args[0], names.get(node.args[3].name)
        if node.args[5] or held is None or times[held] != 1 or not _one_channel_dim(source):
            continue
        if len(source.users) == 1 and _used_once(source, nodes, names):
            pairs.append((_owner(names[source.args[1].name]), _owner(held)))
    return pairs


def _one_channel_dim(node: Any) -> bool:
    """Tell whether what a norm sees as channels, the second dimension, is what the layer before it makes."""
    if str(node.target) in _CONVOLUTIONS:
        return True
    return str(node.target) == _LINEAR and node.meta["val"].dim() == 2


def chained_weights(module: nn.Module, inputs: Sequence[Tensor]) -> list[tuple[str, str]]:
    """Return pairs of weights by name: the output of the first reaches the second alone, through a ReLU at most.

    Scaling a channel of the first by 1/s and the second's by s changes nothing but the ranges of the weights.
    Dropout, identity and max pooling in between are looked through. Empty where the module cannot be exported.
    """
    nodes, names = _program(module, inputs)
    pairs = []
    for node in nodes:
        if str(node.target) not in _LAYERS or not _used_once(node, nodes, names):
            continue
        reader = node
        while len(reader.users) == 1:
            reader = next(iter(reader.users))
            if str(reader.target) not in _HOMOGENEOUS:
                break
        same = str(reader.target) == str(node.target) and reader is not node
        if same and reader.args[1].name in names and _used_once(reader, nodes, names):
            pairs.append((names[node.args[1].name], names[reader.args[1].name]))
    return pairs


def _program(module: nn.Module, inputs: Sequence[Tensor]) -> tuple[list[Any], dict[str, str]]:
    """Return the nodes of the exported program, and parameter and buffer names by placeholder."""
    import warnings

    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.export.export(module.eval(), tuple(inputs))
    except Exception as error:  # noqa: BLE001  torch.export raises what its tracers raise; nothing is then known
        log.warning("the model cannot be traced, so its layers are taken one by one: %s", type(error).__name__)
        return [], {}
    signature = program.graph_signature
    names = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    return [node for node in program.graph.nodes if node.op == "call_function"], names


def _used_once(node: Any, nodes: Sequence[Any], names: dict[str, str]) -> bool:
    weight = getattr(node.args[1], "name", "")
    layers = _LAYERS | _TRANSPOSED
    uses = sum(str(other.target) in layers and getattr(other.args[1], "name", "") == weight for other in nodes)
    return weight in names and uses == 1


def _owner(parameter: str) -> str:
    return parameter.rpartition(".")[0]
