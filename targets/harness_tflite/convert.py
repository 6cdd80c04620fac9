"""The way from torch to .tflite: litert-torch, one file per batch size."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import harness_torch
from harness.api import HarnessError, Job, MissingDependency, Model, Options, Unsupported, feed, first_line, items_in
from harness_onnx import answers_differ
from harness_tflite import flatbuffer
from harness_tflite.chatter import captured

# the orders of dimensions in which a file may hold a parameter: kernels have their input channels last, depthwise and
# transposed ones their first dimension last
_ORDERS = defaultdict(tuple, {2: ((0, 1),), 3: ((0, 2, 1), (1, 2, 0)), 4: ((0, 2, 3, 1), (1, 2, 3, 0))})
TOLERANCE = 1e-3  # of the largest output: float32 sums in another order differ by 1e-6, a wrong graph by 1e-1


def export(model: Model, options: Options, job: Job) -> Model:
    """Convert a torch model into ``job.out`` and check its outputs against torch on one batch.

    Inputs and outputs keep the model's names and layouts (images stay NCHW); 64-bit integer inputs become 32-bit.

    Raises:
        MissingDependency: litert-torch is not installed.
        Unsupported: The model has an operator that litert-torch cannot lower.
        HarnessError: The converted model computes something else.
    """
    litert_torch = _import_converter(job.log)
    job.progress(0.2, "converting to TFLite")
    module = harness_torch.load(model)
    sample = harness_torch.example_inputs(model.inputs, options.batch)
    path = job.out / "model.tflite"
    _convert(litert_torch, module, sample, path, job.log)
    flatbuffer.rename_signature(path, _new_names(model))
    job.progress(0.9, "checking against torch")
    _check(module, _items(model, options.batch, job) or sample, model, path)
    flags = (*model.flags, "unrolled_rnn") if _recurrent(module) else model.flags
    return dataclasses.replace(model, format="tflite", path=path, names=weight_names(module, path), flags=flags)


def _recurrent(module: Any) -> bool:
    """Tell whether a module has a recurrent layer: litert-torch writes each of its steps out."""
    from torch import nn

    return any(isinstance(part, nn.RNNBase) for part in module.modules())


def _import_converter(log: logging.Logger) -> Any:
    try:
        with captured(log):
            import litert_torch
    except ImportError as error:
        raise MissingDependency(
            f"litert-torch cannot be imported: {error}", hint="pip install 'compression-harness[tflite-convert]'"
        ) from error
    return litert_torch


def _convert(litert_torch: Any, module: Any, sample: tuple[Any, ...], path: Path, log: logging.Logger) -> None:
    try:
        with captured(log):
            litert_torch.convert(module.eval(), sample).export(str(path))
    except Exception as error:  # litert-torch raises whatever torch.export, MLIR or its own passes raise
        missing = re.search(r"(Lowering not found|Unsupported ir element type): (\S+)", str(error))
        if missing:
            raise Unsupported(f"litert-torch has no lowering for {missing[2]}") from error
        first = first_line(str(error)) or type(error).__name__
        raise HarnessError(f"litert-torch could not convert the model: {first}") from error


def _new_names(model: Model) -> dict[str, str]:
    """Map litert-torch's positional names to the model's."""
    inputs = {f"args_{index}": name for index, name in enumerate(model.inputs)}
    outputs = {f"output_{index}": name for index, name in enumerate(model.outputs)}
    return {**inputs, **outputs}


def _items(model: Model, batch: int, job: Job) -> tuple[Any, ...]:
    """Return one call of real items, on which zeros mean what they should; nothing where there are too few."""
    import torch

    arrays = job.data.split("calibration").inputs
    if set(arrays) != set(model.inputs) or min(items_in(model.inputs, arrays).values(), default=0) < batch:
        return ()
    return tuple(torch.from_numpy(value) for value in feed(model.inputs, arrays, range(batch)).values())


def _check(module: Any, sample: tuple[Any, ...], model: Model, path: Path) -> None:
    import torch
    from ai_edge_litert.interpreter import Interpreter

    with torch.inference_mode():
        wanted = module(*sample)
    wanted = wanted if isinstance(wanted, tuple) else (wanted,)
    runner = Interpreter(model_path=str(path), num_threads=1).get_signature_runner()
    types = {name: details["dtype"] for name, details in runner.get_input_details().items()}
    arrays = {name: value.numpy().astype(types[name]) for name, value in zip(model.inputs, sample, strict=True)}
    found = runner(**arrays)
    for name, value in zip(model.outputs, wanted, strict=True):
        if answers_differ(value.numpy(), found[name], TOLERANCE):
            raise HarnessError(f"output {name!r} of the converted model differs from the module's")


def weight_names(module: Any, path: Path) -> dict[str, str]:
    """Map parameter names to the constant tensors of the file that hold them.

    A matrix or kernel is the only tensor with its values, if there is one: the projections of attention are used
    without being called, the matrices of a recurrent layer can be of one size, and a layer that is called twice has two
    scopes, so that nothing else finds them. For what was changed by folding, litert-torch writes the scope of a layer,
    ``package.Net/torch.nn.modules.conv.Conv2d_stem``, into the names of its tensors; the one of the parameter's size is
    taken. A parameter that was folded away is left out.
    """
    constants = flatbuffer.constants(flatbuffer.open_model(path))
    values: dict[bytes, list[str]] = {}
    for tensor, raw in flatbuffer.constant_bytes(path):
        values.setdefault(hashlib.sha256(raw).digest(), []).append(tensor)
    found = {}
    for name, parameter in module.named_parameters():
        forms = [parameter.detach().permute(order).contiguous().numpy() for order in _ORDERS[parameter.dim()]]
        same = {tensor for form in forms for tensor in values.get(hashlib.sha256(form.tobytes()).digest(), [])}
        match = next(iter(same)) if len(same) == 1 else None
        if match is None:
            scope = f"{_scope(module, name.split('.')[:-1])};"
            sizes = {tensor: size for tensor, size in constants.items() if scope in f"{tensor};"}
            match = next((tensor for tensor, size in sizes.items() if size == parameter.numel()), None)
        if match is not None:
            found[name] = match
    return found


def _scope(module: Any, path: list[str]) -> str:
    from torch.nn import ModuleDict, ModuleList

    parts = [_class_name(module)]
    for step in path:
        module = getattr(module, step)
        if not isinstance(module, (ModuleDict, ModuleList)):  # nobody calls them, so that they are in no scope
            parts.append(f"{_class_name(module)}_{step}")
    return "/".join(parts)


def _class_name(module: Any) -> str:
    return f"{type(module).__module__}.{type(module).__qualname__}"
