"""Programs of torch.export as modules of torch.nn layers, which methods find, train and save like any others."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from harness_torch.calling import Call, bound

if TYPE_CHECKING:
    from torch import Tensor, nn

    Values = Mapping[str, Any]  # an operator's arguments by name, nodes and constants
    Make = Callable[["_Place", Values], "nn.Module | None"]


def lifted(program: Any) -> nn.Module:
    """Return a program of torch.export as a module whose operators with weights are layers of torch.nn.

    A weight that is its layer's alone keeps its name; one that stands beside others (``block.w1``) becomes a layer of
    that name (``block.w1.weight``). The module takes the program's inputs by position and returns one tensor or a
    tuple. What no layer stands for stays an operator.

    Args:
        program: A ``torch.export.ExportedProgram`` of a module in evaluation mode.
    """
    import torch

    module = program.module(check_guards=False)
    graph = torch.fx.Graph()  # one that knows nothing of the tracer and of the call's structure
    results = graph.graph_copy(module.graph, {})
    known = {node.name: node.meta.get("val") for node in graph.nodes}
    sizes = {name: tuple(value.shape) for name, value in known.items() if isinstance(value, torch.Tensor)}
    several = tuple(results) if isinstance(results, (tuple, list)) else (results,)
    several = tuple(item for item in several if isinstance(item, torch.fx.Node))
    none = {
        spec.arg.name for spec in program.graph_signature.input_specs if type(spec.arg).__name__ == "ConstantArgument"
    }
    for node in list(graph.nodes):
        if node.op == "placeholder" and node.target in none and not node.users:
            graph.erase_node(node)  # an argument that was None when the program was made
    graph.output(several[0] if len(several) == 1 else several)
    module.graph = graph
    _hoisted(module)
    root = torch.fx.GraphModule(module, graph)
    for node in list(graph.nodes):
        make = _MAKERS.get(str(node.target)) if node.op == "call_function" else None
        if make is not None:
            _lift(_Place(root, node, sizes), make)
    graph.eliminate_dead_code()
    plain: nn.Module = torch.fx.GraphModule(root, graph)
    return plain.eval()


def exported(module: nn.Module, call: Call, inputs: Sequence[Tensor], items: Sequence[bool]) -> Any:
    """Return a module's program with a free batch; of TorchScript where that alone gives one.

    Args:
        module: In evaluation mode.
        call: How it takes the inputs.
        inputs: Two items or more of each that holds items, for a free batch; of one item the batch stays fixed.
        items: Which of them hold items.

    Raises:
        Exception: What torch.export raises where it cannot follow the module.
    """
    import torch

    dim = torch.export.Dim("batch", min=1)
    many = [holds and len(value) > 1 for value, holds in zip(inputs, items, strict=True)]
    free = tuple({0: dim} if holds else None for holds in many)
    try:
        with torch.no_grad():
            return torch.export.export(bound(_holder()(module), call, always=True), tuple(inputs), dynamic_shapes=free)
    except Exception:
        in_order = call.style == "args" and not call.keywords
        if not isinstance(module, torch.jit.ScriptModule) or not in_order:
            raise
        from torch._export.converter import TS2EPConverter

        return TS2EPConverter(module, tuple(inputs)).convert()


def _holder() -> Any:
    from torch import nn

    class Holder(nn.Module):
        """A module inside another: what cannot be given a class of its own can be held by one that can."""

        def __init__(self, module: nn.Module) -> None:
            super().__init__()
            self.held = module

        def forward(self, *given: Any, **named: Any) -> Any:
            return self.held(*given, **named)

    return Holder


def _hoisted(module: Any) -> None:
    """Take the held module's name off what lies in it."""
    held = module._modules.pop("held", None)
    if held is None:
        return
    for name, child in held._modules.items():
        module._modules[name] = child
    for space in ("_parameters", "_buffers"):
        getattr(module, space).update(getattr(held, space))
    for node in module.graph.nodes:
        if node.op in {"get_attr", "call_module"}:
            node.target = str(node.target).removeprefix("held.")


_FLATTENED = {"aten.reshape.default", "aten.view.default", "aten.flatten.using_ints"}


class _Place:
    """A node of a graph, the module that holds what it reads, and the sizes of each value."""

    def __init__(self, root: Any, node: Any, sizes: dict[str, tuple[Any, ...]]) -> None:
        self.root, self.node, self.sizes = root, node, sizes

    def held(self, value: Any) -> Any:
        """Return the parameter, buffer or constant that a node reads, or ``None``."""
        if getattr(value, "op", "") != "get_attr":
            return None
        found = self.root
        for part in str(value.target).split("."):
            found = getattr(found, part)
        return found

    def put(self, name: str, layer: nn.Module, arguments: tuple[Any, ...]) -> Any:
        """Put a layer into the module under a name and call it where the node is."""
        from torch import nn

        owner: nn.Module = self.root
        *path, last = name.split(".")
        for part in path:
            if part not in owner._modules:
                owner.add_module(part, nn.Module())
            owner = owner.get_submodule(part)
        owner._parameters.pop(last, None)
        owner._modules[last] = layer
        graph = self.root.graph
        with graph.inserting_before(self.node):
            return graph.call_module(name, arguments)


def _lift(place: _Place, make: Make) -> None:
    node = place.node
    names = [item.name for item in node.target._schema.arguments]
    defaults = {item.name: item.default_value for item in node.target._schema.arguments}
    values = {**defaults, **dict(zip(names, node.args, strict=False)), **node.kwargs}
    layer = make(place, values)
    if layer is None:
        return
    weight = next((item for item in _flat(values.values()) if place.held(item) is not None), None)
    if weight is None:
        return
    source = str(weight.target)
    name = _name(place.root, source, node, layer)
    call = place.put(name, layer, (_read(values),))
    _reroute(place, node, call)
    for other in list(place.root.graph.nodes):  # what else reads the parameter finds it in the layer
        if other.op == "get_attr" and str(other.target) == source and not _has(place.root, source):
            other.target = f"{name}.weight"


def _read(values: Values) -> Any:
    """Return what a layer reads: a bag of one size, the indices before they were laid end to end."""
    if "offsets" in values:
        return values["indices"].args[0]
    return values.get("input", values.get("indices"))


def _flat(values: Any) -> list[Any]:
    found: list[Any] = []
    for value in values:
        found.extend(_flat(value) if isinstance(value, (list, tuple)) else [value])
    return found


def _has(root: Any, target: str) -> bool:
    from torch import nn

    found = root
    for part in target.split("."):
        found = getattr(found, part, None)
    return found is not None and not isinstance(found, nn.Module)


def _name(root: Any, source: str, node: Any, layer: nn.Module) -> str:
    """Return where a layer goes: in the place of its weight's owner, where that holds nothing else."""
    from torch import nn

    owner, _, attribute = source.rpartition(".")
    there = root.get_submodule(owner)
    own = {name for name, _ in (*there.named_parameters(recurse=False), *there.named_buffers(recurse=False))}
    if type(there) is type(layer):  # it was called with this weight before
        return owner if _same(there, layer) else str(node.name)
    if type(there) is nn.Module and own <= set(layer.state_dict()) and not there._modules:
        return owner
    return source if attribute in there._parameters and type(there) in {nn.Module, type(root)} else str(node.name)


def _same(one: nn.Module, two: nn.Module) -> bool:
    return one.extra_repr() == two.extra_repr() and getattr(one, "bias", None) is getattr(two, "bias", None)


def _reroute(place: _Place, node: Any, call: Any) -> None:
    """Let what read the operator read the layer: a recurrent one returns (output, states)."""
    graph = place.root.graph
    target = str(node.target)
    if not target.startswith(("aten.lstm", "aten.gru", "aten.embedding_bag")):
        place.sizes[call.name] = place.sizes.get(node.name, ())
        node.replace_all_uses_with(call)
        graph.erase_node(node)
        return
    for user in list(node.users):
        index = user.args[1]
        with graph.inserting_before(user):
            path = _path(target, index)
            found = call
            for step in path:
                found = graph.call_function(operator.getitem, (found, step))
        user.replace_all_uses_with(found)
        graph.erase_node(user)
    graph.erase_node(node)


def _path(target: str, index: int) -> list[int]:
    """Return where in what a layer gives the operator's result of this index lies."""
    if target.startswith("aten.embedding_bag"):
        return []  # a bag gives its one tensor
    return [0] if index == 0 else [1, index - 1] if "lstm" in target else [1]


def _filled(layer: Any, place: _Place, values: Values, names: Sequence[tuple[str, str]]) -> Any:
    """Give a layer made without memory the very tensors of the program."""
    from torch import nn

    for attribute, argument in names:
        held = place.held(values[argument])
        if attribute in layer._buffers:
            layer._buffers[attribute] = held
        elif held is None or isinstance(held, nn.Parameter):
            setattr(layer, attribute, held)
        else:
            setattr(layer, attribute, nn.Parameter(held, requires_grad=False))
    return layer


def _convolution(place: _Place, values: Values) -> nn.Module | None:
    from torch import nn

    weight, bias = place.held(values["weight"]), place.held(values["bias"])
    if weight is None or (values["bias"] is not None and bias is None):
        return None
    size = weight.dim() - 2
    transposed = bool(values.get("transposed")) or "transpose" in str(place.node.target)
    kinds = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
    groups = int(values["groups"])
    ins, outs = weight.shape[1] * groups, weight.shape[0]
    if transposed:
        kinds, (ins, outs) = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d), (outs, ins)
    padding = values["padding"]
    options: dict[str, Any] = {"output_padding": _sizes(values["output_padding"], size)} if transposed else {}
    layer = kinds[size - 1](
        ins, outs, tuple(weight.shape[2:]), stride=_sizes(values["stride"], size),
        padding=padding if isinstance(padding, str) else _sizes(padding, size),
        dilation=_sizes(values["dilation"], size), groups=groups, bias=bias is not None, device="meta", **options,
    )  # fmt: skip
    return _filled(layer, place, values, [("weight", "weight"), ("bias", "bias")])


def _sizes(value: Any, count: int) -> tuple[int, ...]:
    given = list(value) if isinstance(value, (list, tuple)) else [value]
    return tuple(given * count if len(given) == 1 else given)


def _linear(place: _Place, values: Values) -> nn.Module | None:
    from torch import nn

    weight, bias = place.held(values["weight"]), place.held(values["bias"])
    if weight is None or weight.dim() != 2 or (values["bias"] is not None and bias is None):
        return None
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    return _filled(layer, place, values, [("weight", "weight"), ("bias", "bias")])


def _embedding(place: _Place, values: Values) -> nn.Module | None:
    from torch import nn

    weight = place.held(values["weight"])
    if weight is None:
        return None
    padding = int(values["padding_idx"])
    layer = nn.Embedding(*weight.shape, padding_idx=padding if padding >= 0 else None, device="meta")
    return _filled(layer, place, values, [("weight", "weight")])


def _bag(place: _Place, values: Values) -> nn.Module | None:
    """Return an embedding bag whose bags are the rows of a matrix of indices; ragged ones stay an operator."""
    from harness_torch.layers import Bag

    weight, indices, offsets = place.held(values["weight"]), values["indices"], values["offsets"]
    rows = indices.args[0] if str(indices.target) in _FLATTENED else None
    width = place.sizes.get(getattr(rows, "name", ""), ())
    starts: tuple[Any, ...] = getattr(offsets, "args", ())
    of_rows = str(getattr(offsets, "target", "")) == "aten.arange.start_step" and starts[0] == 0 and len(starts) > 2
    if weight is None or len(width) != 2 or not of_rows or starts[2] != width[1]:
        return None
    plain = values["per_sample_weights"] is None and not values["include_last_offset"]
    padding = values.get("padding_idx")
    only_first = all(user.args[1] == 0 or not user.users for user in place.node.users)
    if not plain or not only_first or (padding is not None and padding >= 0):
        return None
    layer = Bag(*weight.shape, mode=("sum", "mean", "max")[int(values["mode"])], device="meta")
    return _filled(layer, place, values, [("weight", "weight")])


def _batch_norm(place: _Place, values: Values) -> nn.Module | None:
    import torch
    from torch import nn

    mean, weight = place.held(values["running_mean"]), place.held(values["weight"])
    dims = len(place.sizes.get(values["input"].name, ()))
    kind = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}.get(dims)
    if mean is None or weight is None or values["training"] or kind is None:
        return None
    layer = kind(len(mean), eps=values["eps"], momentum=values["momentum"], device="meta")
    layer.num_batches_tracked = torch.zeros((), dtype=torch.long)
    names = ("weight", "bias", "running_mean", "running_var")
    return _filled(layer, place, values, [(name, name) for name in names])


def _layer_norm(place: _Place, values: Values) -> nn.Module | None:
    from torch import nn

    weight, bias = place.held(values["weight"]), place.held(values["bias"])
    if weight is None:
        return None
    layer = nn.LayerNorm(list(values["normalized_shape"]), eps=values["eps"], bias=bias is not None, device="meta")
    return _filled(layer, place, values, [("weight", "weight"), ("bias", "bias")])


def _group_norm(place: _Place, values: Values) -> nn.Module | None:
    from torch import nn

    weight = place.held(values["weight"])
    if weight is None:
        return None
    layer = nn.GroupNorm(int(values["num_groups"]), len(weight), eps=values["eps"], device="meta")
    return _filled(layer, place, values, [("weight", "weight"), ("bias", "bias")])


def _recurrent(place: _Place, values: Values) -> nn.Module | None:
    """Return an LSTM or GRU that starts from zeros; one with a state of its own stays an operator."""
    from torch import nn

    lstm = "lstm" in str(place.node.target)
    states = values["hx"] if isinstance(values["hx"], (list, tuple)) else [values["hx"]]
    weights = [place.held(item) for item in values["params"]]
    if any(str(getattr(state, "target", "")) != "aten.zeros.default" for state in states) or None in weights:
        return None
    layer = (nn.LSTM if lstm else nn.GRU)(
        weights[0].shape[1], weights[1].shape[1], num_layers=int(values["num_layers"]), bias=bool(values["has_biases"]),
        batch_first=bool(values["batch_first"]), dropout=float(values["dropout"]),
        bidirectional=bool(values["bidirectional"]),
    )  # fmt: skip
    pairs = list(zip([name for names in layer._all_weights for name in names], weights, strict=False))
    if any(getattr(layer, name).shape != value.shape for name, value in pairs):
        return None  # with projections
    for name, value in pairs:
        setattr(layer, name, value if isinstance(value, nn.Parameter) else nn.Parameter(value.clone()))
    return layer


_MAKERS: dict[str, Make] = {
    "aten.linear.default": _linear,
    "aten.embedding.default": _embedding,
    "aten.embedding_bag.default": _bag,
    "aten.embedding_bag.padding_idx": _bag,
    "aten.batch_norm.default": _batch_norm,
    "aten.layer_norm.default": _layer_norm,
    "aten.group_norm.default": _group_norm,
    "aten.lstm.input": _recurrent,
    "aten.gru.input": _recurrent,
    "aten.convolution.default": _convolution,
    "aten._convolution.default": _convolution,
    **{f"aten.conv{n}d.{kind}": _convolution for n in (1, 2, 3) for kind in ("default", "padding")},
    "aten.conv_transpose1d.default": _convolution,
    "aten.conv_transpose2d.input": _convolution,
    "aten.conv_transpose3d.input": _convolution,
}
