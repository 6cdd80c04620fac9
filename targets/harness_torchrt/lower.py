"""Models of PyTorch in, programs of torch.export out; int8 by torch's own quantization of programs (PT2E)."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import TYPE_CHECKING, Any

from harness.api import (
    Artifact,
    Calibration,
    Job,
    MissingDependency,
    Model,
    Options,
    Unsupported,
    items_of_call,
)
from harness_torchrt import program
from harness_torchrt.probe import EAGER, capabilities
from harness_torchrt.program import HINT

if TYPE_CHECKING:
    from torch import nn

    from harness_torchrt.params import Params

_BATCH = 32  # calibration items per run; ranges are over all of them, so batches change nothing but the time
_OBSERVERS = {
    "minmax": "MinMaxObserver", "moving-average": "MovingAverageMinMaxObserver", "mse": "HistogramObserver",
}  # fmt: skip


def lower(model: Model, params: Params, options: Options, job: Job) -> Artifact:
    """Realise the wanted precision in a program.

    Raises:
        Unsupported: PyTorch cannot realise it here.
    """
    del options
    wanted = model.precision
    if wanted.realise == "exact" and wanted.encodings is not None:
        raise Unsupported("torch: given encodings are not placed, only native scales")
    ways = {
        "float32": _float32, "float16": _half, "bfloat16": _half, "int8": _int8, "dynamic-int8": _int8,
    }  # fmt: skip
    if wanted.name not in ways:
        raise Unsupported(f"torch does not realise {wanted.name} here", hint=f"known: {', '.join(ways)}")
    if "int8" in wanted.name and params.device == "cuda":
        raise Unsupported("torch: PT2E int8 has kernels on x86 CPUs; on cuda its operators would stay float")
    if "int8" in wanted.name and params.mode == "eager":
        raise Unsupported(f"torch: {EAGER}")
    if wanted.name in {"float16", "bfloat16"} and params.device == "cpu":
        refused = capabilities(params).gaps.get(wanted.name)
        if refused:
            raise Unsupported(f"torch: {refused}")
    if wanted.overrides and wanted.name not in {"int8", "dynamic-int8"}:
        raise Unsupported("torch: overrides by parameter are placed for int8 only")
    import harness_torch

    module = harness_torch.load(model)
    made, how = ways[wanted.name](module, model, job)
    path = job.out / "model.pt2"
    program.save(made, model, path, quantized="int8" in wanted.name)
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    size = path.stat().st_size
    return Artifact(path, "pt2", digest, wanted.name, how, size, size, weight_bytes=_weights(made))


def _weights(made: Any) -> dict[str, int]:
    found: dict[str, int] = {}
    for tensor in made.state_dict.values():
        if tensor.dim() >= 2:
            dtype = str(tensor.dtype).removeprefix("torch.")
            found[dtype] = found.get(dtype, 0) + tensor.numel() * tensor.element_size()
    return found


def _example(model: Model) -> tuple[Any, ...]:
    import harness_torch

    return harness_torch.example_inputs(model.inputs, batch=2)


def _float32(module: nn.Module, model: Model, job: Job) -> tuple[Any, str]:
    del job
    return program.export(module, _example(model), model.inputs), "torch.export of the module"


def _half(module: nn.Module, model: Model, job: Job) -> tuple[Any, str]:
    del job
    from harness_torch import programs

    name = model.precision.weights
    made = program.export(programs.in_dtype(module, name), _example(model), model.inputs, variadic=True)
    return made, f"module.to({name}) and torch.export, float32 inputs and outputs"


def _int8(module: nn.Module, model: Model, job: Job) -> tuple[Any, str]:
    """Quantize by PT2E with the quantizer of the x86 backend: u8 activations, s8 weights per channel."""
    from harness_torch import programs

    wanted = model.precision
    _check(model)
    torch = program.import_torch()
    with program.quiet():
        quantizing = _pt2e()
        dynamic = wanted.scheme == "dynamic"
        quantizer = quantizing.x86.X86InductorQuantizer()
        quantizer.set_global(quantizing.config(None if dynamic else _OBSERVERS[_method(model)]))
        for name in programs.kept_in_float32(module, wanted.overrides):
            quantizer.set_module_name_qconfig(name, None)
        graph = program.export(module, _example(model), model.inputs).module(check_guards=False)
        prepared = quantizing.prepare(graph, quantizer)
        items = 0
        with torch.no_grad():
            for feed in _feeds(model, job):
                prepared(*feed)
                items += items_of_call(model.inputs, dict(zip(model.inputs, feed, strict=True)))
        converted = quantizing.convert(prepared)
        layers = sum(str(node.target).startswith("quantized_decomposed.quantize") for node in converted.graph.nodes)
        if not layers:
            raise Unsupported("torch: PT2E finds no layer of this model to quantize")
        made = program.export(converted, _example(model), model.inputs)
    kind = "dynamic, int8 linear layers alone" if dynamic else f"{_method(model)} over {items} items"
    return made, f"PT2E, X86InductorQuantizer, u8 activations, per-channel int8 weights, {kind}"


def _method(model: Model) -> str:
    return (model.precision.calibration or Calibration()).method


def _check(model: Model) -> None:
    wanted = model.precision
    if not wanted.weights_symmetric or wanted.granularity != "per-channel":
        raise Unsupported("torch: its x86 int8 has symmetric weights with one scale per channel only")
    if wanted.activations_symmetric:
        raise Unsupported("torch: its x86 int8 takes unsigned activations with a zero point only")
    if wanted.scheme == "static" and _method(model) not in _OBSERVERS:
        known = f"known: {', '.join(_OBSERVERS)}"
        raise Unsupported(f"torch: the x86 quantizer has no calibration {_method(model)!r}", hint=known)


def _feeds(model: Model, job: Job) -> list[tuple[Any, ...]]:
    """Return calibration batches; dynamic ranges are found at run time, and one item only shapes the observers."""
    from harness_torch import programs

    feeds = programs.calibration_feeds(model, job, batch=_BATCH)
    if not feeds:
        raise Unsupported("static int8 needs calibration items and there are none")
    return feeds


class _Pt2e:
    """PT2E, from the package that holds it."""

    def __init__(self) -> None:
        from torchao.quantization.pt2e import observer, quantize_pt2e
        from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer

        self.prepare, self.convert = quantize_pt2e.prepare_pt2e, quantize_pt2e.convert_pt2e
        self.x86, self.observers = x86_inductor_quantizer, observer

    def config(self, observer: str | None) -> Any:
        """Return the x86 backend's settings: dynamic, or static with an observer of activations."""
        config = self.x86.get_default_x86_inductor_quantization_config(is_dynamic=observer is None)
        if observer is None:
            return config
        ranges = getattr(self.observers, observer).with_args(eps=2**-12)  # the backend's own eps
        spec = dataclasses.replace(config.input_activation, observer_or_fake_quant_ctr=ranges)
        return dataclasses.replace(config, input_activation=spec, output_activation=spec)


def _pt2e() -> _Pt2e:
    try:
        return _Pt2e()
    except (ImportError, OSError) as error:
        raise MissingDependency(f"int8 for torch needs torchao: {error}", hint=HINT) from error
