"""Quantize a .tflite file with ai-edge-quantizer: recipes, calibration, and what to do with operators it cannot do."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.api import (
    Calibration,
    Model,
    PlanError,
    Precision,
    Split,
    TensorSpec,
    Unsupported,
    first_line,
    with_roles,
)
from harness_onnx import Loss, calibration_feeds, loss
from harness_tflite import flatbuffer
from harness_tflite.normal import normal_form
from harness_tflite.outputs import read_apart
from harness_tflite.placing import bound_ranges, calibrated, extremes, set_ranges
from harness_tflite.session import plain_session
from harness_tflite.tails import normalizations, tail, wide

# A dynamically quantized depthwise convolution has no XNNPACK kernel and made MobileNetV2 slower than float32.
DYNAMIC_OPS = ("FULLY_CONNECTED", "CONV_2D")
_ALIASES = {"TRANSPOSE_CONV": "CONV_2D_TRANSPOSE"}  # schema name -> the quantizer's
_COMPARED = 4  # items
CALIBRATIONS = {"minmax": "min_max_update", "moving-average": "moving_average_update"}


@dataclass(frozen=True)
class Quantized:
    """A quantized file and how it came about.

    Attributes:
        left_out: Operator types that stay in float because quantizing them failed, with the reason.
        flags: What the row shows beside.
    """

    path: Path
    how: str
    left_out: Mapping[str, str]
    flags: tuple[str, ...] = ()


def quantize(model: Model, data: Callable[[], Split], out: Path, *, threads: int) -> Quantized:
    """Write the file that ``model.precision`` asks for.

    Args:
        model: A float32 .tflite model.
        data: Called for the calibration split when the scheme is static.
        out: The file to write.
        threads: For calibration.

    Raises:
        Unsupported: LiteRT or its quantizer cannot realise the precision.
        PlanError: An override matches nothing.
    """
    precision = model.precision
    _check_supported(precision)
    normal, apart = out.with_name("normal.tflite"), out.with_name("apart.tflite")
    path, why = normal_form(model.path, normal)
    if precision.scheme == "static":
        path = read_apart(path, apart)
    model = dataclasses.replace(model, path=path)
    kept, wider = _override_scopes(model)
    base = _recipe(precision, (*kept, *_float_scopes(model, data)), wider)
    ranges, unbound = _calibrate(model, base, data, threads) if precision.scheme == "static" else (None, "")
    left_out = _without_failures(model.path, base, ranges, out)
    lost = _loss(model, data, out, threads) if precision.scheme == "static" else None
    for left in (normal, apart):
        left.unlink(missing_ok=True)
    as_it_came = f"the file is used as it came: {why}" if why else ""
    said = [_describe(precision, left_out), unbound, as_it_came, lost.told if lost else ""]
    flags = (*(("as_given",) if why else ()), *((lost.flag,) if lost else ()))
    return Quantized(out, "; ".join(filter(None, said)), left_out, flags)


def _loss(model: Model, data: Callable[[], Split], out: Path, threads: int) -> Loss | None:
    """Say what the quantized file loses on a few calibration items, and from where on."""
    feeds = batches(model.path, model, data(), _COMPARED)
    sessions = [plain_session(path, threads) for path in (model.path, out)]
    return loss(sessions[0], sessions[1], feeds)


def _check_supported(precision: Precision) -> None:
    if not precision.weights_symmetric:
        raise Unsupported("LiteRT kernels take symmetric weights only")
    if precision.scheme == "static" and precision.activations != "int8":
        raise Unsupported(f"static {precision.activations} activations have no fast kernel in LiteRT")


def _override_scopes(model: Model) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return patterns of output names for the operators whose weights stay float32, and for those that take int8."""
    precision, kept, wider = model.precision, [], []
    others = ("int8", "float32") if precision.name == "weight-only-int4" else ("float32",)
    for name, dtype in precision.overrides.items():
        if dtype not in {*others, precision.weights}:
            can = " and ".join(others)
            raise Unsupported(f"override {name}={dtype}: LiteRT mixes {precision.name} with {can} only")
        if name not in model.names:
            raise PlanError(f"override {name!r} matches no parameter of {model.path.name}")
        if dtype == "float32":
            kept.append(model.names[name])
        elif dtype != precision.weights:
            wider.append(model.names[name])
    return _users(model.path, kept), _users(model.path, wider)


def _float_scopes(model: Model, data: Callable[[], Split]) -> tuple[str, ...]:
    """Return patterns of output names for the operators that stay float in static int8.

    Ranges that bind may be of these operators too, and then nothing is left out.
    """
    if model.precision.scheme != "static" or model.precision.encodings is not None:
        return ()
    file = flatbuffer.open_model(model.path)
    names, nodes = flatbuffer.tensor_names(file), flatbuffer.nodes(file)
    # The quantizer's own statistics leave out what is beyond any scale, and a mask of minus infinity becomes 0.
    seen = extremes(model.path, batches(model.path, model, data(), 1))
    spans = {index: seen[name] for index, name in enumerate(names) if name in seen}
    kept = (*tail(nodes, flatbuffer.outputs(file)), *wide(nodes, spans), *normalizations(nodes))
    return tuple(dict.fromkeys(re.escape(f"{names[output]};") for node in kept for output in node.outputs))


def _users(path: Path, weights: Sequence[str]) -> tuple[str, ...]:
    """Return patterns for the output names, by which recipes go, of the operators that take these tensors."""
    if not weights:
        return ()
    file = flatbuffer.open_model(path)
    names = flatbuffer.tensor_names(file)
    wanted = {index for index, name in enumerate(names) if name in weights}
    users = [node for node in flatbuffer.nodes(file) if wanted & set(node.inputs)]
    return tuple(re.escape(f"{names[output]};") for node in users for output in node.outputs)


def _recipe(precision: Precision, float_scopes: Sequence[str], wider_scopes: Sequence[str] = ()) -> Any:
    """Return a function from operators to leave out to a recipe manager."""
    from ai_edge_quantizer import algorithm_manager, qtyping, recipe_manager

    def make(left_out: Sequence[str]) -> Any:
        manager = recipe_manager.RecipeManager()
        _add_scheme(manager, precision)
        for scope in wider_scopes:
            manager.add_weight_only_config(scope, qtyping.TFLOperationName.ALL_SUPPORTED, 8, _granularity(precision))
        keep = algorithm_manager.AlgorithmName.NO_QUANTIZE
        for op in left_out:
            manager.add_quantization_config(".*", qtyping.TFLOperationName(op), algorithm_key=keep)
        for scope in float_scopes:
            manager.add_quantization_config(scope, qtyping.TFLOperationName.ALL_SUPPORTED, algorithm_key=keep)
        return manager

    return make


def _add_scheme(manager: Any, precision: Precision) -> None:
    from ai_edge_quantizer import algorithm_manager, qtyping

    op, algorithm = qtyping.TFLOperationName, algorithm_manager.AlgorithmName
    granularity = _granularity(precision)
    bits = {"int8": 8, "int4": 4, "float16": 16}[precision.weights]
    if precision.weights == "float16":
        manager.add_weight_only_config(".*", op.ALL_SUPPORTED, bits, algorithm_key=algorithm.FLOAT_CASTING)
    elif precision.scheme == "dynamic":
        for name in DYNAMIC_OPS:
            manager.add_dynamic_config(".*", op(name), bits, granularity)
    elif precision.scheme == "weight-only":
        manager.add_weight_only_config(".*", op.ALL_SUPPORTED, bits, granularity)
    else:
        _add_static(manager, precision, bits, granularity)
        for name in ("INPUT", "OUTPUT"):  # float32 at the border, as every other target has it
            manager.add_quantization_config(".*", op(name), algorithm_key=algorithm.NO_QUANTIZE)


def _granularity(precision: Precision) -> Any:
    from ai_edge_quantizer import qtyping

    kinds = qtyping.QuantGranularity
    return kinds.TENSORWISE if precision.granularity == "per-tensor" else kinds.CHANNELWISE


def _add_static(manager: Any, precision: Precision, bits: int, granularity: Any) -> None:
    from ai_edge_quantizer import qtyping

    config = qtyping.OpQuantizationConfig(
        activation_tensor_config=qtyping.TensorQuantizationConfig(
            num_bits=8, symmetric=bool(precision.activations_symmetric)
        ),
        weight_tensor_config=qtyping.TensorQuantizationConfig(num_bits=bits, symmetric=True, granularity=granularity),
        compute_precision=qtyping.ComputePrecision.INTEGER,
        explicit_dequantize=False,
    )
    manager.add_quantization_config(".*", qtyping.TFLOperationName.ALL_SUPPORTED, config)


def _calibrate(model: Model, recipe: Any, data: Callable[[], Split], threads: int) -> tuple[Any, str]:
    """Return the quantizer's statistics, and in words which ranges bind nothing."""
    from ai_edge_quantizer import calibrator
    from ai_edge_quantizer.utils import qsv_utils

    wanted = model.precision.calibration or Calibration()
    update = getattr(qsv_utils, CALIBRATIONS.get(wanted.method, "min_max_update"))
    runner = calibrator.Calibrator(str(model.path), num_threads=threads, qsv_update_func=update)
    key = next(iter(runner.get_signature_list()), None)
    feeds = batches(model.path, model, data(), wanted.samples)
    if not feeds:
        raise Unsupported("static int8 needs calibration items and there are none")
    runner.calibrate({key: feeds}, recipe(()))
    found = runner.get_model_qsvs()
    ours = wanted.method not in CALIBRATIONS
    seen = calibrated(model.path, feeds, wanted.method) if ours else {}
    bound = bound_ranges(model)
    ranges, free = set_ranges(found, seen, bound.ranges)
    names = ", ".join(map(repr, free))
    said = f"the ranges of {names} bind nothing: the quantizer leaves them in float" if free else ""
    return ranges, "; ".join(filter(None, [bound.told.removeprefix("; "), said]))


def batches(path: Path, model: Model, split: Split, samples: int) -> list[dict[str, Any]]:
    """Return whole batches of the size and dtypes that the file takes; the last one is filled up from the start."""
    from ai_edge_litert.interpreter import Interpreter

    details = Interpreter(model_path=str(path)).get_signature_runner().get_input_details()
    declared = with_roles({name: _spec(item) for name, item in details.items()}, model.inputs)
    model = dataclasses.replace(model, inputs=declared)
    return calibration_feeds(model, split.inputs, samples, lambda: plain_session(path, 1).run)[0]


def _spec(item: Mapping[str, Any]) -> TensorSpec:
    import numpy as np

    return TensorSpec(np.dtype(item["dtype"]).name, tuple(int(size) for size in item["shape"]))


def _without_failures(path: Path, recipe: Any, ranges: Any, out: Path) -> dict[str, str]:
    """Quantize; where that fails, find the operator types that fail and leave them in float."""
    error = _attempt(path, recipe(()), ranges, out)
    if error is None:
        return {}
    types = _quantizable(path)
    for op in types:  # one culprit is the usual case
        if _attempt(path, recipe((op,)), ranges, out) is None:
            return {op: error}
    return _greedy(path, recipe, ranges, out, types)


def _greedy(path: Path, recipe: Any, ranges: Any, out: Path, types: Sequence[str]) -> dict[str, str]:
    """Add one operator type after the other, and keep those that work."""
    left_out = dict.fromkeys(types, "not tried")
    for op in types:
        others = tuple(name for name in left_out if name != op)
        error = _attempt(path, recipe(others), ranges, out)
        if error is None:
            del left_out[op]
        else:
            left_out[op] = error
    if len(left_out) == len(types) or _attempt(path, recipe(tuple(left_out)), ranges, out) is not None:
        kinds = ", ".join(types)
        raise Unsupported(f"LiteRT: ai-edge-quantizer can quantize none of the model's operators ({kinds})")
    return left_out


def _quantizable(path: Path) -> tuple[str, ...]:
    """List the operator types of the file that the quantizer knows, the costly ones last."""
    from ai_edge_quantizer import qtyping

    known = {member.value for member in qtyping.TFLOperationName}
    names = {node.op for node in flatbuffer.nodes(flatbuffer.open_model(path))}
    present = {_ALIASES.get(name, name) for name in names} & known
    return tuple(sorted(present, key=lambda op: (op in {"FULLY_CONNECTED", "CONV_2D", "DEPTHWISE_CONV_2D"}, op)))


def _attempt(path: Path, manager: Any, ranges: Any, out: Path) -> str | None:
    """Quantize, load and run once; return None, or the first line of what went wrong."""
    import numpy as np
    from ai_edge_litert.interpreter import Interpreter
    from ai_edge_quantizer import quantizer

    try:
        job = quantizer.Quantizer(str(path), manager.get_quantization_recipe())
        out.unlink(missing_ok=True)
        job.quantize(ranges).export_model(str(out))
        runner = Interpreter(model_path=str(out), num_threads=1).get_signature_runner()
        details = runner.get_input_details()
        runner(**{name: np.zeros(entry["shape"], entry["dtype"]) for name, entry in details.items()})
    except Exception as error:  # noqa: BLE001  it raises what its numpy code raises; the caller leaves an op out
        return first_line(str(error)) or type(error).__name__
    return None


def _describe(precision: Precision, left_out: Mapping[str, str]) -> str:
    text = {
        "float": "ai-edge-quantizer float casting: float16 weights, dequantized at load and computed in float32",
        "dynamic": f"ai-edge-quantizer dynamic: {precision.weights} weights of {' and '.join(DYNAMIC_OPS)} only",
        "weight-only": f"ai-edge-quantizer: {precision.weights} weights, dequantized and computed in float32",
        "static": f"ai-edge-quantizer static: {precision.weights} weights, int8 activations, float32 at the border",
    }[precision.scheme]
    parts = [text] if precision.weights == "float16" else [text, f"{precision.granularity} weights"]
    if precision.scheme == "static":
        wanted = precision.calibration or Calibration()
        ours = "" if wanted.method in CALIBRATIONS else " by our own ranges"
        parts.append(f"{wanted.method}{ours} over at most {wanted.samples} samples")
    for dtype, count in sorted(Counter(precision.overrides.values()).items()):
        parts.append(f"{count} overrides in {dtype}")
    parts += [f"{op} left in float: {reason}" for op, reason in left_out.items()]
    return "; ".join(parts)
