"""What a module holds, for ``harness inspect``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from harness.api import Inspected, Model, Operators, Shapes, TensorSpec, Weights
from harness_torch.counting import macs_by_kind
from harness_torch.files import load
from harness_torch.inference import example_inputs

if TYPE_CHECKING:
    from torch import nn

_FRAME = {"Sequential", "ModuleList", "ModuleDict", "Identity", "GraphModule", "InterpreterModule"}
_CALLS = {"call_function", "call_method"}


def inspect(model: Model, shapes: Shapes) -> Inspected:
    """Load a module and call it once on seeded values: what its layers multiply is known from a call alone.

    Args:
        model: In format "torch".
        shapes: Of its inputs at one item.
    """
    import torch

    module = load(model)
    counts = _kinds(module)
    macs, problem = _macs(module, model.inputs, shapes)
    kinds = dict.fromkeys((*counts, *macs))
    rows = (Operators(kind, counts.get(kind, 0), macs.get(kind)) for kind in kinds)
    operators = tuple(sorted(rows, key=lambda row: (-(row.macs or 0), -row.count, row.op)))
    remarks = (*_remarks(module), *((problem,) if problem else ()))
    return Inspected("torch", "", {"PyTorch": str(torch.__version__)}, operators, tuple(_weights(module)), remarks)


def nan_weights(model: Model) -> dict[str, int]:
    """Return the parameters and buffers of a module that hold NaN, and how many."""
    module = load(model)
    floats = ((name, tensor) for name, tensor in module.state_dict().items() if _is_float(tensor))
    counts = {name: int(tensor.float().isnan().sum()) for name, tensor in floats}
    return {name: count for name, count in counts.items() if count}


def _is_float(tensor: Any) -> bool:
    return bool(getattr(tensor, "is_floating_point", lambda: False)())


def _kinds(module: nn.Module) -> Counter[str]:
    """Count layers by class; of a program of torch.export, the calls in its graph."""
    graph = getattr(module, "graph", None)
    if graph is not None:
        return Counter(_name(node.target) for node in graph.nodes if node.op in _CALLS)
    found = Counter(type(item).__name__ for item in module.modules() if next(item.children(), None) is None)
    return Counter({kind: count for kind, count in found.items() if kind not in _FRAME})


def _name(target: Any) -> str:
    return target if isinstance(target, str) else str(getattr(target, "__name__", target))


def _macs(module: nn.Module, inputs: Mapping[str, TensorSpec], shapes: Shapes) -> tuple[dict[str, int], str]:
    """Return multiply-accumulates by kind of layer, or why they cannot be counted."""
    known = {name: TensorSpec(spec.dtype, shapes.get(name, spec.shape)) for name, spec in inputs.items()}
    try:
        return macs_by_kind(module, example_inputs(known)), ""
    except Exception as error:  # noqa: BLE001  the user's own forward may raise anything; the rest is told all the same
        first = (str(error).strip().splitlines() or [""])[0]
        return {}, f"it cannot be called on one item of zeros and noise: {type(error).__name__}: {first[:200]}"


def _weights(module: nn.Module) -> Iterator[Weights]:
    found: dict[tuple[str, str], list[int]] = {}
    for where, held in (("parameters", module.named_parameters()), ("buffers", module.named_buffers())):
        for _name, value in held:
            row = found.setdefault((where, str(value.dtype).removeprefix("torch.")), [0, 0])
            row[0] += 1
            row[1] += value.numel() * value.element_size()
    rows = (Weights(where, dtype, *row) for (where, dtype), row in found.items())
    yield from sorted(rows, key=lambda row: -row.bytes)


def _remarks(module: nn.Module) -> Iterator[str]:
    from torch.nn.utils import parametrize

    named = sum(1 for _ in module.named_parameters(remove_duplicate=False))
    shared = named - sum(1 for _ in module.named_parameters())
    if shared:
        yield f"parameters shared by several layers: {shared}; compressing one changes the others"
    held = sum(parametrize.is_parametrized(item) for item in module.modules())
    if held:
        yield f"layers that compute their weights from other parameters (parametrizations): {held}"
    frozen = sum(not value.requires_grad for value in module.parameters())
    if frozen:
        yield f"frozen parameters: {frozen}; training methods leave them as they are"
    wide = [name for name, value in module.named_parameters() if not bool(value.isfinite().all())]
    if wide:
        yield f"parameters with values that are not finite: {len(wide)} ({', '.join(map(repr, wide[:3]))})"
