"""ONNX files in, OpenVINO IR out, quantized by NNCF or by the graph pass of ``dynamic``."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import harness_onnx
from harness.api import Artifact, Job, Model, Options, Unsupported, stored_size, weight_bytes
from harness_onnx import override_nodes, quiet
from harness_openvino.binary import binarize_convolutions
from harness_openvino.dynamic import quantize_dynamically
from harness_openvino.ir import weight_spans
from harness_openvino.operations import ignored_scope, kept_float, operations
from harness_openvino.probe import import_nncf, import_openvino, optimized_for
from harness_openvino.reading import is_quantized, read, told, unfold
from harness_openvino.static import quantize_statically, what_is_lost
from harness_openvino.values import is_half, overflowing, refuse_nan
from harness_openvino.vectors import vectors_as_rows

if TYPE_CHECKING:
    from harness_openvino.params import Params

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
        "int8": quantize_statically,
        "dynamic-int8": _dynamic,
        "weight-only-int8": _weight_only,
        "weight-only-int4": _weight_only,
        "binary": _binary,
    }
    if wanted.name not in ways:
        known = f"known: {', '.join(ways)}"
        raise Unsupported(f"openvino's CPU plugin does not realise {wanted.name} here", hint=known)
    wide = job.out / "wide.onnx"
    if model.format == "onnx" and wanted.weights in {"int8", "int4"} and wanted.realise != "exact":
        model = harness_onnx.widened(model, wide)
    with quiet():
        graph = _convert(model)
        given = is_quantized(graph) or (model.format == "onnx" and harness_onnx.is_quantized(model.path))
        if given and wanted.name != "float32" and (wanted.realise != "exact" or wanted.encodings is not None):
            raise Unsupported("the file is quantized already; baseline runs it as it is")
        if wanted.name == "float16" and is_half(model, graph):
            raise Unsupported("the weights are float16 already; baseline runs the file as it is")
        if wanted.name != "float32":
            refuse_nan(model, graph)
            unfold(graph)
            vectors_as_rows(graph)
        exact, way = graph, _float32 if given else ways[wanted.name]
        graph, how = way(exact, model, params, job)
        lost = what_is_lost(exact, graph, model, job) if way is quantize_statically else None
    wide.unlink(missing_ok=True)
    flags = (lost.flag,) if lost else ()
    return _save(graph, f"{how}; {lost.told}" if lost else how, flags, model, job.out / "model.xml")


def _convert(model: Model) -> Any:
    """Read the file and give inputs and outputs exactly the model's names, each port by its own name."""
    graph = read(model)
    for names, ports in ((tuple(model.inputs), graph.inputs), (model.outputs, graph.outputs)):
        for name, port in _bound(names, ports).items():
            port.get_tensor().set_names({name})
    _fix_sizes(graph, model)
    return graph


def _fix_sizes(graph: Any, model: Model) -> None:
    """Give free dimensions beside the batch their sizes: a session takes every free one for the batch.

    Raises:
        Unsupported: The graph does not take them.
    """
    shapes, changed = {}, False
    for port in graph.inputs:
        shape, spec = port.get_partial_shape(), model.inputs[port.any_name]
        for axis in range(shape.rank.get_length()):
            size = spec.shape[axis] if axis < len(spec.shape) else None
            if shape[axis].is_dynamic and size is not None:
                shape[axis], changed = size, True
        shapes[port] = shape
    if not changed:
        return
    try:
        graph.reshape(shapes)
    except RuntimeError as error:
        raise Unsupported(f"openvino cannot give the inputs the sizes of the data: {told(str(error))}") from error


def _bound(names: tuple[str, ...], ports: list[Any]) -> dict[str, Any]:
    """Return each name's port: the one whose tensor has that name; the order of the ports says nothing.

    Raises:
        Unsupported: A name has no port, or a port no name.
    """
    known = {name: port for port in ports for name in port.get_names()}
    lost = [name for name in names if name not in known]
    if lost or len(names) != len(ports):
        told = f"no {lost[0]!r}" if lost else f"{len(ports)} inputs or outputs where the model has {len(names)}"
        raise Unsupported(f"openvino's reading of the file has {told}")
    return {name: known[name] for name in names}


def _save(graph: Any, how: str, flags: tuple[str, ...], model: Model, path: Path) -> Artifact:
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
        flags=flags,
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
    del params, job
    beyond = overflowing(model, graph)
    lost = "; ".join(f"{count} values of {name!r} lie beyond float16" for name, count in beyond.items())
    return graph, "openvino.save_model with compress_to_fp16" + (f"; {lost}" if lost else "")


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
    del job
    wanted = model.precision
    if wanted.granularity != "per-channel":
        raise Unsupported("openvino: nncf.compress_weights has one scale per channel or group, never one per tensor")
    nncf = import_nncf()
    given = override_nodes(model.path, wanted.overrides, model.names, dtypes=("float32", "int8"))
    kept, wider = (operations(graph, model.path, given[dtype]) for dtype in ("float32", "int8"))
    scope = ignored_scope(nncf, kept)
    if wanted.weights == "int8":
        mode = nncf.CompressWeightsMode.INT8_SYM
        compressed = nncf.compress_weights(graph, mode=mode, ignored_scope=scope)
        _counted(compressed)
        return compressed, "nncf.compress_weights INT8_SYM, all layers; convolutions are unpacked to float32 at load"
    mode = nncf.CompressWeightsMode.INT4_SYM
    apart = ignored_scope(nncf, (*kept, *wider))
    group = params.group_size or -1
    adjust = nncf.AdvancedCompressionParameters(group_size_fallback_mode=nncf.GroupSizeFallbackMode.ADJUST)
    compressed = nncf.compress_weights(
        graph, mode=mode, group_size=group, all_layers=True, ignored_scope=apart, advanced_parameters=adjust
    )
    if wider:  # what has four bits by now is left as it is
        compressed = nncf.compress_weights(compressed, mode=nncf.CompressWeightsMode.INT8_SYM, ignored_scope=scope)
    held = ", ".join(f"{count} weights in {kind}" for kind, count in sorted(_counted(compressed).items()))
    grain = f"groups of {group}" if params.group_size else "per-channel"
    return compressed, f"nncf.compress_weights INT4_SYM, all layers, {grain}: {held}"


def _counted(graph: Any) -> Counter[str]:
    """Return how many weights are stored in which integers.

    Raises:
        Unsupported: None is.
    """
    counts = Counter(node.get_element_type().to_string() for node in graph.get_ordered_ops() if _is_packed(node))
    if not counts:
        raise Unsupported("openvino: nncf found no constant weights of a convolution or matrix product to compress")
    return counts


def _is_packed(node: Any) -> bool:
    if node.get_type_name() != "Constant" or node.get_element_type().to_string() not in {"i4", "u4", "i8", "u8"}:
        return False
    return len(node.get_output_shape(0)) > 1  # the modes here are symmetric: no constant is a zero point


def _dynamic(graph: Any, model: Model, params: Params, job: Job) -> tuple[Any, str]:
    del params, job
    wanted = model.precision
    layers = quantize_dynamically(
        graph, per_channel=wanted.granularity == "per-channel", exclude=kept_float(graph, model)
    )
    if not layers:
        raise Unsupported("openvino: the model has no convolution or matrix product with constant weights to quantize")
    how = f"{layers} layers: symmetric int8, scale per item (Convolution) or row (MatMul) computed in the graph"
    return graph, f"{how}, {wanted.granularity} int8 weights"
