"""Models of PyTorch in, ExecuTorch programs out; int8 by PT2E with XNNPACK's own quantizer."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from harness.api import (
    Artifact,
    Calibration,
    Job,
    MissingDependency,
    Model,
    Options,
    TensorSpec,
    Unsupported,
    first_line,
    items_of_call,
)
from harness_executorch import runtime
from harness_executorch.probing import GAPS, PORTABLE

if TYPE_CHECKING:
    from torch import Tensor, nn

    from harness_executorch.params import Params

FACTS = "harness_facts"  # a method of the program that returns what the program does not say itself
_BATCH = 32  # calibration items per run
_OBSERVERS = {
    "minmax": "MinMaxObserver", "moving-average": "MovingAverageMinMaxObserver", "mse": "HistogramObserver",
}  # fmt: skip


def lower(model: Model, params: Params, options: Options, job: Job) -> Artifact:
    """Write a program of one batch size into ``job.out``.

    Raises:
        Unsupported: ExecuTorch cannot realise the precision, or the model.
    """
    check_supported(model, params)
    import harness_torch
    from harness_torch import programs

    wanted = model.precision
    module = harness_torch.load(model).eval()
    job.progress(0.1, f"exporting for {wanted.name}")
    example = harness_torch.example_inputs(model.inputs, batch=options.batch)
    with runtime.quiet():
        if "int8" in wanted.name:
            module, how = _quantized(module, model, example, job)
        elif wanted.name == "float16":
            module, how = programs.in_dtype(module, "float16"), "module in float16, float32 inputs and outputs"
        else:
            how = "torch.export of the module"
        job.progress(0.6, "lowering")
        program = _program(programs.export(module, example, free=False), model, options, xnnpack=params.xnnpack)
    path = job.out / "model.pte"
    path.write_bytes(program)
    by = "XNNPACK" if params.xnnpack else "portable kernels"
    digest = hashlib.sha256(program).hexdigest()
    return Artifact(path, "pte", digest, wanted.name, f"{how}; {by}", len(program), len(program))


def check_supported(model: Model, params: Params) -> None:
    """Refuse what no program of ours can be.

    Raises:
        Unsupported: With the reason.
    """
    wanted = model.precision
    known = ("float32", "float16", "int8", "dynamic-int8")
    if wanted.name not in known:
        why = GAPS.get(wanted.name, f"it realises {', '.join(known)}")
        raise Unsupported(f"executorch does not realise {wanted.name} here: {why}")
    if wanted.realise == "exact" and wanted.encodings is not None:
        raise Unsupported("executorch: given encodings are not placed, only native scales")
    if "int8" not in wanted.name:
        if wanted.overrides:
            raise Unsupported("executorch: overrides by parameter are placed for int8 only")
        return
    if not params.xnnpack:
        raise Unsupported(f"executorch: {PORTABLE}")
    if not wanted.weights_symmetric:
        raise Unsupported("executorch: XNNPACK's int8 weights are symmetric")
    if wanted.activations_symmetric:
        raise Unsupported("executorch: XNNPACKQuantizer gives activations a zero point")
    method = (wanted.calibration or Calibration()).method
    if wanted.scheme == "static" and method not in _OBSERVERS:
        raise Unsupported(f"executorch: PT2E has no calibration {method!r}", hint=f"known: {', '.join(_OBSERVERS)}")


def _sizes(spec: TensorSpec, batch: int) -> list[int]:
    return [(batch if at == spec.axis else 1) if size is None else size for at, size in enumerate(spec.shape)]


def _program(exported: Any, model: Model, options: Options, *, xnnpack: bool) -> bytes:
    try:
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import EdgeCompileConfig, to_edge_transform_and_lower
    except (ImportError, OSError) as error:
        raise MissingDependency(f"executorch cannot be imported: {error}", hint=runtime.HINT) from error
    facts = json.dumps({
        "inputs": {name: [spec.dtype, _sizes(spec, options.batch)] for name, spec in model.inputs.items()},
        "outputs": list(model.outputs),
    })  # fmt: skip
    try:
        edge = to_edge_transform_and_lower(
            exported,
            partitioner=[XnnpackPartitioner()] if xnnpack else None,
            compile_config=EdgeCompileConfig(_check_ir_validity=False),
            constant_methods={FACTS: facts},
        )
        return bytes(edge.to_executorch().buffer)
    except Exception as error:  # its passes raise of many classes; the model cannot be had, and this says why
        text = first_line(str(error))
        raise Unsupported(f"executorch cannot lower this model: {type(error).__name__}: {text}") from error


def _quantized(module: nn.Module, model: Model, example: tuple[Tensor, ...], job: Job) -> tuple[Any, str]:
    """Quantize by PT2E: signed activations with a zero point, symmetric weights."""
    import torch

    from harness_torch import programs

    quantizing = _pt2e()
    wanted = model.precision
    dynamic, per_channel = wanted.scheme == "dynamic", wanted.granularity == "per-channel"
    method = (wanted.calibration or Calibration()).method
    quantizer = quantizing.XNNPACKQuantizer()
    config = quantizing.get_symmetric_quantization_config(is_per_channel=per_channel, is_dynamic=dynamic)
    quantizer.set_global(config if dynamic else _observed(config, _OBSERVERS[method]))
    kept = [quantizing.inside(name) for name in programs.kept_in_float32(module, wanted.overrides)]
    quantizer.set_filter_function(lambda node: not any(inside(node) for inside in kept))
    feeds = programs.calibration_feeds(model, job, batch=_BATCH)
    if not feeds:
        raise Unsupported("int8 needs calibration items and there are none")
    prepared = quantizing.prepare_pt2e(_graph(module, model, example, feeds, job), quantizer)
    items = 0
    with torch.no_grad():
        for feed in feeds:
            prepared(*feed)
            items += _items(model, feed)
    converted = quantizing.convert_pt2e(prepared)
    if not any("quantized_decomposed.quantize" in str(node.target) for node in converted.graph.nodes):
        raise Unsupported("executorch: XNNPACKQuantizer finds no layer of this model to quantize")
    grain = f"PT2E, XNNPACKQuantizer, {wanted.granularity} int8 weights"
    return converted, f"{grain}, {'dynamic' if dynamic else f'{method} over {items} items'}"


def _items(model: Model, given: tuple[Tensor, ...]) -> int:
    return items_of_call(model.inputs, dict(zip(model.inputs, given, strict=True)))


def _graph(module: nn.Module, model: Model, example: tuple[Tensor, ...], feeds: list[Any], job: Job) -> Any:
    """Return the graph to quantize: of any batch where torch.export gives one, so that calibration takes few runs."""
    import harness_torch
    from harness_torch import programs

    try:
        return programs.export(module, harness_torch.example_inputs(model.inputs, batch=2), specs=model.inputs).module(
            check_guards=False
        )
    except Unsupported:
        size = _items(model, example)
        feeds[:] = [feed for feed in programs.calibration_feeds(model, job, batch=size) if _items(model, feed) == size]
        return programs.export(module, example, free=False).module(check_guards=False)


def _observed(config: Any, observer: str) -> Any:
    """Return the quantizer's settings with another observer of activations."""
    import dataclasses

    from torchao.quantization.pt2e import observer as observers

    ranges = getattr(observers, observer).with_args(eps=2**-12)  # the quantizer's own eps
    changed = {
        name: dataclasses.replace(getattr(config, name), observer_or_fake_quant_ctr=ranges)
        for name in ("input_activation", "output_activation")
        if getattr(config, name) is not None
    }
    return dataclasses.replace(config, **changed)


class _Pt2e:
    def __init__(self) -> None:
        from executorch.backends.xnnpack.quantizer import xnnpack_quantizer
        from torchao.quantization.pt2e import quantize_pt2e, quantizer

        self.inside = quantizer.get_module_name_filter
        self.prepare_pt2e, self.convert_pt2e = quantize_pt2e.prepare_pt2e, quantize_pt2e.convert_pt2e
        self.XNNPACKQuantizer = xnnpack_quantizer.XNNPACKQuantizer
        self.get_symmetric_quantization_config = xnnpack_quantizer.get_symmetric_quantization_config


def _pt2e() -> _Pt2e:
    try:
        return _Pt2e()
    except (ImportError, OSError) as error:
        raise MissingDependency(f"int8 for executorch needs torchao: {error}", hint=runtime.HINT) from error
