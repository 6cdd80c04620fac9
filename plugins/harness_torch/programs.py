"""Programs of torch.export, and what each runtime that runs them needs: other float dtypes, and the inputs of PT2E."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from harness.api import Calibration, Job, Model, TensorSpec, Unsupported, first_line, fixed_batch, items_in
from harness_torch.inference import tensors

if TYPE_CHECKING:
    from torch import Tensor, nn

_SHAPES_ONLY = 2  # items where ranges are found at run time: they only shape the observers


def export(
    module: nn.Module,
    example: tuple[Tensor, ...],
    *,
    free: bool = True,
    variadic: bool = False,
    specs: Mapping[str, TensorSpec] | None = None,
) -> Any:
    """Return the program of a module.

    Args:
        module: In evaluation mode; takes its inputs by position.
        example: Inputs; where the batch is free, of batch 2 or more: 0 and 1 would be taken for constants.
        free: In the dimension of the items; else at the batch of the example.
        specs: The inputs with their roles, where not all of them hold items on a free first dimension.
        variadic: The module is declared with ``*inputs``, whose shapes torch wants in a tuple of their own.

    Raises:
        Unsupported: torch.export cannot follow the module, or it fixes the batch.
    """
    import torch

    dim = torch.export.Dim("batch", min=1)
    places = [0] * len(example) if specs is None else [free_axis(spec) for spec in specs.values()]
    each = tuple(None if place is None else {place: dim} for place in places)
    free = free and any(place is not None for place in places)
    shapes = ((each,) if variadic else each) if free else None
    failures = []
    for strict in (False, True):
        try:
            with torch.no_grad():
                return torch.export.export(module, example, dynamic_shapes=shapes, strict=strict)
        except Exception as error:  # noqa: BLE001  torch raises of many classes; the other way is tried, both are told
            failures.append(f"{type(error).__name__}: {first_line(str(error))}")
    which = " with a free batch" if free else ""
    raise Unsupported(f"torch.export gives no program{which}: {'; '.join(dict.fromkeys(failures))}")


def free_axis(spec: TensorSpec) -> int | None:
    """Return the dimension of an input that takes any number of items."""
    return spec.axis if spec.axis is not None and spec.shape[spec.axis] is None else None


def in_dtype(module: nn.Module, name: str) -> nn.Module:
    """Return a module that computes in another float dtype and takes and gives float32."""
    import torch

    dtype = getattr(torch, name)

    class Cast(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = module.to(dtype)

        def forward(self, *inputs: Tensor) -> Any:
            given = [value.to(dtype) if value.is_floating_point() else value for value in inputs]
            result = self.inner(*given)
            several = isinstance(result, (tuple, list))
            outputs = tuple(value.to(torch.float32) for value in (result if several else (result,)))
            return outputs if several else outputs[0]

    cast: nn.Module = Cast().eval()
    return cast


def calibration_feeds(model: Model, job: Job, *, batch: int) -> list[tuple[Tensor, ...]]:
    """Return the calibration items that PT2E's observers see, in the order of the model's inputs; empty without any."""
    arrays = job.data.split("calibration").inputs
    count = next(iter(items_in(model.inputs, arrays).values())) if arrays else 0
    wanted = model.precision
    least = (wanted.calibration or Calibration()).samples if wanted.scheme == "static" else _SHAPES_ONLY
    count = min(count, least)
    named = {name: arrays[name] for name in model.inputs} if count else {}
    size = fixed_batch(model.inputs) or batch
    last = (
        count - count % size if fixed_batch(model.inputs) and count >= size else count
    )  # whole batches of a fixed one
    return [tensors(named, slice(start, min(start + size, count)), model.inputs) for start in range(0, last, size)]


def kept_in_float32(module: nn.Module, overrides: Mapping[str, str]) -> list[str]:
    """Return the layers whose weights an override keeps in float32.

    Args:
        module: Whose parameters the overrides name.
        overrides: The dtype that is asked for, by the name of the parameter.

    Raises:
        Unsupported: One names no parameter, or asks for another dtype.
    """
    known, found = dict(module.named_parameters()), []
    for name, dtype in overrides.items():
        if name not in known:
            raise Unsupported(f"override of {name!r} matches no parameter of the model")
        if dtype != "float32":
            raise Unsupported(f"override of {name!r} asks for {dtype}; a quantized program can only leave it float32")
        found.append(name.rpartition(".")[0])
    return found
