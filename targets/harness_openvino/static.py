"""Static int8 by NNCF, with its own ranges or ours, and with layers put back to float where accuracy drops too far."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness.api import Calibration, Job, Model, Unsupported
from harness_onnx import Loss, calibration_batches, calibration_feeds, loss
from harness_openvino.operations import MULTIPLIERS, bound_inputs, ignored_scope, kept_float
from harness_openvino.placing import calibrated, centre_transposed, quantized_layers, set_ranges
from harness_openvino.probe import import_nncf
from harness_openvino.session import plain_session

if TYPE_CHECKING:
    from harness_openvino.params import Params

# The plugin (2026.4) multiplies quantized recurrent operators with the state's scale for the inputs too: NNCF gives an
# initial state of zeros a range of almost nothing, and what comes out is wrong.
RECURRENT = ("LSTMSequence", "GRUSequence", "RNNSequence", "LSTMCell", "GRUCell", "RNNCell", "TensorIterator", "Loop")
_COMPARED = 4  # items
_NOTHING = "openvino: nncf found no convolution or matrix product that it could quantize"
_RANGES = {"minmax": "MINMAX", "percentile": "MEAN_QUANTILE", "mse": "HISTOGRAM"}


def quantize_statically(graph: Any, model: Model, params: Params, job: Job) -> tuple[Any, str]:
    """Quantize a float graph over the calibration items, and say how.

    Raises:
        Unsupported: It, its precision or its data do not allow it.
        MissingDependency: NNCF is not installed.
    """
    wanted = model.precision
    if not wanted.weights_symmetric:
        raise Unsupported("openvino: int8 weights are symmetric on the CPU")
    calibration = wanted.calibration or Calibration()
    nncf = import_nncf()
    _refuse_nothing(graph)
    # Ranges are over all axes, so batches give the same ones and far fewer runs.
    arrays = job.data.split("calibration").inputs
    feeds, items = calibration_feeds(model, arrays, calibration.samples, lambda: plain_session(graph).run)
    feeds = _cast(graph, feeds)
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
        fast_bias_correction=params.bias_correction != "full",
        model_type=nncf.ModelType.TRANSFORMER if transformer else None,
        ignored_scope=ignored_scope(nncf, kept_float(graph, model), _recurrent(graph)),
        advanced_parameters=_advanced(native, wanted.granularity == "per-channel", params),
    )
    if not quantized_layers(quantized):
        raise Unsupported(_NOTHING)
    preset = "performance" if wanted.activations_symmetric else "mixed"
    centre_transposed(quantized)
    free = set_ranges(quantized, seen, bound, symmetric=bool(wanted.activations_symmetric))
    kind = ", transformer model type" if transformer else ""
    control = f" with accuracy control, drop at most {params.accuracy_drop:g}" if params.accuracy_drop else ""
    how = f"nncf.quantize{control}, {preset} preset{kind}, {wanted.granularity} int8 weights"
    given = f"; {len(bound) - len(free)} ranges given by the encodings" if bound else ""
    given += f"; those of {', '.join(map(repr, free))} bind nothing: nncf leaves these layers in float" if free else ""
    given += "" if params.bias_correction == "off" else f"; {params.bias_correction} bias correction"
    given += "; recurrent layers stay float32" if _recurrent(graph) else ""
    return quantized, f"{how}, {calibration.method}{' by our own ranges' if ours else ''} over {items} items{given}"


def _refuse_nothing(graph: Any) -> None:
    """Refuse a graph without a layer: nncf looks for one in branches, and fails there.

    Raises:
        Unsupported: All layers lie in branches or loops, or there is none.
    """
    kinds = {node.get_type_name() for node in graph.get_ordered_ops()}
    if not kinds & set(MULTIPLIERS):
        inside = ": its layers lie in branches or loops" if kinds & {"If", "Loop", "TensorIterator"} else ""
        raise Unsupported(f"{_NOTHING}{inside}")


def what_is_lost(exact: Any, quantized: Any, model: Model, job: Job) -> Loss | None:
    """Compare a float graph and what was made of it on a few calibration items."""
    session = plain_session(exact)
    feeds, _count = calibration_feeds(model, job.data.split("calibration").inputs, _COMPARED, lambda: session.run)
    return loss(session, plain_session(quantized), feeds)


def _cast(graph: Any, feeds: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return feeds in the graph's own dtypes: NNCF hands arrays over as they are."""
    dtypes = {port.any_name: port.get_element_type().to_dtype() for port in graph.inputs}
    return [{name: array.astype(dtypes[name], copy=False) for name, array in feed.items()} for feed in feeds]


def _recurrent(graph: Any) -> tuple[str, ...]:
    return tuple({node.get_type_name() for node in graph.get_ordered_ops()} & set(RECURRENT))


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


def _advanced(method: str, per_channel: bool, params: Params) -> Any:
    from nncf.quantization.advanced_parameters import (
        AdvancedQuantizationParameters,
        AdvancedSmoothQuantParameters,
        QuantizationParameters,
    )
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet

    off = -1.0  # nncf's own value for "do not"
    return AdvancedQuantizationParameters(
        disable_bias_correction=params.bias_correction == "off",
        smooth_quant_alphas=AdvancedSmoothQuantParameters()
        if params.smooth_quant
        else AdvancedSmoothQuantParameters(off, off),
        weights_quantization_params=QuantizationParameters(per_channel=per_channel),
        activations_range_estimator_params=getattr(RangeEstimatorParametersSet, _RANGES[method]),
    )
