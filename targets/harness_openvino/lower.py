"""ONNX files in, OpenVINO IR out, quantized by NNCF or by the graph pass of ``dynamic``."""

from __future__ import annotations

import hashlib
import math
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.api import (
    Artifact,
    Calibration,
    Job,
    MissingDependency,
    Model,
    Options,
    Unsupported,
    stored_size,
    weight_bytes,
)
from harness_onnx import (
    Range,
    as_given,
    calibration_batches,
    calibration_items,
    float_nodes,
    is_quantized,
    override_nodes,
    quiet,
    read_encodings,
)
from harness_openvino.binary import binarize_convolutions
from harness_openvino.dynamic import quantize_dynamically
from harness_openvino.ir import weight_spans
from harness_openvino.placing import calibrated, set_ranges
from harness_openvino.probe import HINT, import_openvino, optimized_for

if TYPE_CHECKING:
    from harness_openvino.params import Params

_RANGES = {"minmax": "MINMAX", "percentile": "MEAN_QUANTILE", "mse": "HISTOGRAM"}
_NO_LAYERS = {"Add", "Constant", "Reshape"}  # what is left by a layer's name when the layer itself took another
_COUNTED = re.compile(r"^([A-Za-z]+)_\d+$")


def lower(model: Model, params: Params, options: Options, job: Job) -> Artifact:
    """Realise the wanted precision in an IR: ``model.xml`` and beside it ``model.bin``.

    Raises:
        Unsupported: OpenVINO's CPU plugin cannot realise it.
    """
    del options
    wanted = model.precision
    ways = {
        "float32": _float32,
        "float16": _float16,
        "bfloat16": _bfloat16,
        "int8": _int8,
        "dynamic-int8": _dynamic,
        "weight-only-int8": _weight_only,
        "weight-only-int4": _weight_only,
        "binary": _binary,
    }
    if wanted.name not in ways:
        known = f"known: {', '.join(ways)}"
        raise Unsupported(f"openvino's CPU plugin does not realise {wanted.name} here", hint=known)
    way = _float32 if wanted.name == "int8" and as_given(model) else ways[wanted.name]
    with quiet():
        graph, how = way(_convert(model), model, params, job)
    return _save(graph, how, model, job.out / "model.xml")


def _convert(model: Model) -> Any:
    """Read the ONNX file and give inputs and outputs exactly the model's names."""
    graph = import_openvino().convert_model(str(model.path))
    for names, ports in ((tuple(model.inputs), graph.inputs), (model.outputs, graph.outputs)):
        if len(names) != len(ports):
            raise Unsupported(f"openvino reads {len(ports)} inputs or outputs where the model has {len(names)}")
        for name, port in zip(names, ports, strict=True):
            port.get_tensor().set_names({name})
    return graph


def _save(graph: Any, how: str, model: Model, path: Path) -> Artifact:
    wanted = model.precision
    _number_names(graph)
    import_openvino().save_model(graph, str(path), compress_to_fp16=wanted.name == "float16")
    weights = path.with_suffix(".bin")
    spans = weight_spans(path)
    stored, stored_as = stored_size(weights, spans, wanted.storage)
    digest = hashlib.sha256(path.read_bytes() + weights.read_bytes())
    xml_bytes = path.stat().st_size
    return Artifact(
        path=path,
        format="openvino",
        sha256=digest.hexdigest(),
        realised=wanted.name,
        how=how,
        artifact_bytes=xml_bytes + weights.stat().st_size,
        stored_bytes=xml_bytes + stored,
        stored_as=stored_as,
        weight_bytes=weight_bytes(spans),
    )


def _number_names(graph: Any) -> None:
    """Number unnamed operations from 0: their names count up within a process, and files would differ by that."""
    seen: Counter[str] = Counter()
    for node in graph.get_ordered_ops():
        counted = _COUNTED.match(node.get_friendly_name())
        if counted and node.get_type_name() in {counted[1], "Constant"}:  # a folded operation leaves its name
            node.set_friendly_name(f"{counted[1]}_{seen[counted[1]]}")
            seen[counted[1]] += 1


def _float32(graph: Any, model: Model, params: Params, job: Job) -> tuple[Any, str]:
    del model, params, job
    return graph, "openvino.convert_model"


def _float16(graph: Any, model: Model, params: Params, job: Job) -> tuple[Any, str]:
    del model, params, job
    return graph, "openvino.save_model with compress_to_fp16"


def _bfloat16(graph: Any, model: Model, params: Params, job: Job) -> tuple[Any, str]:
    del model, params, job
    if "BF16" not in optimized_for(import_openvino()):
        raise Unsupported("openvino: this CPU has no bfloat16 units")
    return graph, "INFERENCE_PRECISION_HINT bf16; weights are stored in float32"


def _binary(graph: Any, model: Model, params: Params, job: Job) -> tuple[Any, str]:
    del model, params, job
    layers = binarize_convolutions(graph)
    if not layers:
        raise Unsupported(
            "openvino: no convolution has binary inputs, binary weights and input channels that are a multiple of 8"
        )
    return graph, f"{layers} layers: BinaryConvolution (xnor-popcount), 1-bit weights and inputs, the rest float32"


def _weight_only(graph: Any, model: Model, params: Params, job: Job) -> tuple[Any, str]:
    del params, job
    wanted = model.precision
    if wanted.granularity != "per-channel":
        raise Unsupported("openvino: nncf.compress_weights has one scale per channel or group, never one per tensor")
    nncf = _nncf()
    given = override_nodes(model.path, wanted.overrides, model.names, dtypes=("float32", "int8"))
    kept, wider = (_operations(graph, given[dtype]) for dtype in ("float32", "int8"))
    scope = _scope(nncf, kept)
    if wanted.weights == "int8":
        mode = nncf.CompressWeightsMode.INT8_SYM
        compressed = nncf.compress_weights(graph, mode=mode, ignored_scope=scope)
        return compressed, "nncf.compress_weights INT8_SYM, all layers; convolutions are unpacked to float32 at load"
    mode = nncf.CompressWeightsMode.INT4_SYM
    apart = _scope(nncf, (*kept, *wider))
    compressed = nncf.compress_weights(graph, mode=mode, group_size=-1, all_layers=True, ignored_scope=apart)
    if wider:  # what has four bits by now is left as it is
        compressed = nncf.compress_weights(compressed, mode=nncf.CompressWeightsMode.INT8_SYM, ignored_scope=scope)
    counts = Counter(node.get_element_type().to_string() for node in compressed.get_ordered_ops() if _is_packed(node))
    held = ", ".join(f"{count} weights in {kind}" for kind, count in sorted(counts.items()))
    return compressed, f"nncf.compress_weights INT4_SYM, all layers, per-channel: {held}"


def _is_packed(node: Any) -> bool:
    if node.get_type_name() != "Constant" or node.get_element_type().to_string() not in {"i4", "u4", "i8", "u8"}:
        return False
    shape = node.get_output_shape(0)
    return bool(math.prod(shape) > max(shape, default=1))  # a zero point by channel is no weight


def _dynamic(graph: Any, model: Model, params: Params, job: Job) -> tuple[Any, str]:
    del params, job
    wanted = model.precision
    layers = quantize_dynamically(
        graph, per_channel=wanted.granularity == "per-channel", exclude=_excluded(graph, model)
    )
    if not layers:
        raise Unsupported("openvino: the model has no Convolution or MatMul with constant weights to quantize")
    how = f"{layers} layers: symmetric int8, scale per item (Convolution) or row (MatMul) computed in the graph"
    return graph, f"{how}, {wanted.granularity} int8 weights"


def bound_inputs(graph: Any, model: Model) -> dict[str, Range]:
    """Return the input ranges that encodings give, by the friendly name of the layer.

    Raises:
        Unsupported: A layer is not in the graph.
    """
    wanted = model.precision
    if wanted.realise != "exact" or wanted.encodings is None:
        return {}
    given = read_encodings(wanted.encodings)
    found: dict[str, Range] = {}
    for parameter, bounds in given.items():
        layers = _operations(graph, float_nodes(model.path, {parameter: "float32"}, model.names))
        found |= dict.fromkeys(layers, bounds)
    return found


def _excluded(graph: Any, model: Model) -> tuple[str, ...]:
    """Return the operations of the graph that overrides keep float."""
    return _operations(graph, float_nodes(model.path, model.precision.overrides, model.names))


def _operations(graph: Any, nodes: Mapping[str, str]) -> tuple[str, ...]:
    """Return the operations made from nodes of the ONNX file, which stand with the parameters that named them.

    Converting may append to a node's name.

    Raises:
        Unsupported: A name is left without a layer: converting fused it, under another name.
    """
    kinds = {item.get_friendly_name(): item.get_type_name() for item in graph.get_ordered_ops()}
    found: list[str] = []
    for node, parameter in nodes.items():
        names = [name for name in kinds if name == node or name.startswith(f"{node}/")]
        if all(kinds[name] in _NO_LAYERS for name in names):
            raise Unsupported(f"override of {parameter!r}: openvino's graph has no layer by the name {node!r}")
        found += names
    return tuple(found)


def _int8(graph: Any, model: Model, params: Params, job: Job) -> tuple[Any, str]:
    wanted = model.precision
    if is_quantized(model.path):
        raise Unsupported("the file is quantized already; baseline runs it as it is")
    if not wanted.weights_symmetric:
        raise Unsupported("openvino: int8 weights are symmetric on the CPU")
    calibration = wanted.calibration or Calibration()
    nncf = _nncf()
    fixed = next(iter(model.inputs.values())).shape[0]
    # Ranges are over all axes, so batches give the same ones and far fewer runs.
    arrays = job.data.split("calibration").inputs
    feeds = calibration_batches(arrays, calibration.samples, batch=fixed)
    if not feeds:
        raise Unsupported("static int8 needs calibration items and there are none")
    ours = calibration.method not in _RANGES  # nncf lacks it
    native = "minmax" if ours else calibration.method
    bound = bound_inputs(graph, model)
    seen = calibrated(graph, feeds, calibration.method) if ours else {}
    transformer = _has_attention(graph)
    quantized = _controlled(nncf, params, job)(
        graph,
        nncf.Dataset(feeds),
        preset=nncf.QuantizationPreset.PERFORMANCE if wanted.activations_symmetric else nncf.QuantizationPreset.MIXED,
        target_device=nncf.TargetDevice.CPU,
        subset_size=len(feeds),
        fast_bias_correction=params.fast_bias_correction,
        model_type=nncf.ModelType.TRANSFORMER if transformer else None,
        ignored_scope=_scope(nncf, _excluded(graph, model)),
        advanced_parameters=_advanced(native, wanted.granularity == "per-channel", params.smooth_quant),
    )
    items = calibration_items(arrays, calibration.samples)
    preset = "performance" if wanted.activations_symmetric else "mixed"
    set_ranges(quantized, seen, bound, symmetric=bool(wanted.activations_symmetric))
    kind = ", transformer model type" if transformer else ""
    control = f" with accuracy control, drop at most {params.accuracy_drop:g}" if params.accuracy_drop else ""
    how = f"nncf.quantize{control}, {preset} preset{kind}, {wanted.granularity} int8 weights"
    given = f"; {len(bound)} ranges given by the encodings" if bound else ""
    return quantized, f"{how}, {calibration.method}{' by our own ranges' if ours else ''} over {items} items{given}"


def _controlled(nncf: Any, params: Params, job: Job) -> Any:
    """Return ``nncf.quantize``, or the same with layers put back to float until the metric drops by no more than asked.

    Raises:
        Unsupported: The selection split has no labels to measure the drop with.
    """
    if not params.accuracy_drop:
        return nncf.quantize
    items = job.data.split("selection")
    labels = items.labels
    if labels is None:
        raise Unsupported("openvino: accuracy_drop needs a labelled selection split, which this workload has not")
    sign = 1.0 if job.workload.higher_is_better else -1.0
    batches = calibration_batches(items.inputs, len(labels), batch=None)

    def validate(compiled: Any, feeds: Any) -> tuple[float, None]:
        import numpy as np

        seen = [compiled(feed) for feed in feeds]
        names = job.workload.outputs
        outputs = {name: np.concatenate([item[place] for item in seen]) for place, name in enumerate(names)}
        return sign * float(job.workload.aggregate(job.workload.score(outputs, labels))), None

    def quantize(graph: Any, dataset: Any, *, advanced_parameters: Any, **settings: Any) -> Any:
        return nncf.quantize_with_accuracy_control(
            graph, dataset, nncf.Dataset(batches), validate, max_drop=params.accuracy_drop,
            advanced_quantization_parameters=advanced_parameters, **settings,
        )  # fmt: skip

    return quantize


def _nncf() -> Any:
    try:
        import nncf
    except ImportError as error:
        raise MissingDependency(f"static int8 for openvino needs nncf: {error}", hint=HINT) from error
    return nncf


def _has_attention(graph: Any) -> bool:
    """Tell whether two computed values are multiplied as matrices: NNCF then keeps such models' softmax accurate."""
    products = [node for node in graph.get_ordered_ops() if node.get_type_name() == "MatMul"]
    fused = any(node.get_type_name() == "ScaledDotProductAttention" for node in graph.get_ordered_ops())
    return fused or any(_is_computed(node.input_value(0)) and _is_computed(node.input_value(1)) for node in products)


def _is_computed(port: Any) -> bool:
    node = port.get_node()
    while node.get_type_name() in {"Convert", "Transpose", "Reshape", "Multiply"} and node.get_input_size():
        node = node.input_value(0).get_node()
    return bool(node.get_type_name() != "Constant")


def _scope(nncf: Any, names: tuple[str, ...]) -> Any:
    return nncf.IgnoredScope(names=list(names)) if names else None


def _advanced(method: str, per_channel: bool, smooth: bool) -> Any:
    from nncf.quantization.advanced_parameters import (
        AdvancedQuantizationParameters,
        AdvancedSmoothQuantParameters,
        QuantizationParameters,
    )
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet

    off = -1.0  # nncf's own value for "do not"
    return AdvancedQuantizationParameters(
        smooth_quant_alphas=AdvancedSmoothQuantParameters() if smooth else AdvancedSmoothQuantParameters(off, off),
        weights_quantization_params=QuantizationParameters(per_channel=per_channel),
        activations_range_estimator_params=getattr(RangeEstimatorParametersSet, _RANGES[method]),
    )
