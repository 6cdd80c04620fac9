"""ONNX files in, ONNX files out: calibrated QDQ and dynamic int8, by ONNX Runtime's own tools."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, cast

from harness.api import MissingDependency, Model, Unsupported, feed, items_in
from harness_onnx.agreement import runner
from harness_onnx.care import MASKED, UNBOUNDED, drop_last_pairs, extremes, kept_float
from harness_onnx.graph import drop_unread, import_onnx, load, normalise
from harness_onnx.ranges import Bound, ranges, tensor_runs
from harness_onnx.tidy import (
    refuse_broken_weights,
    scale_channels_behind,
    scaled_as_one,
    tidy,
    told_left,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from harness_onnx.ranges import Method

    Feed = Mapping[str, NDArray[Any]]

_FREE_BATCH = 16  # of calibration feeds, where the graph leaves it free
_METHODS = {"minmax": "MinMax", "moving-average": "MinMax", "percentile": "Percentile", "entropy": "Entropy"}
_OURS = "mse"  # a calibration that ONNX Runtime lacks
_NOTHING: Mapping[str, str] = MappingProxyType({})
_DYNAMIC = {"ConvInteger", "DynamicQuantizeLSTM", "MatMulInteger"}


@contextlib.contextmanager
def quiet() -> Iterator[io.StringIO]:
    """Keep what a library prints, warns and logs off the terminal; what it printed is in the value."""
    before = logging.root.manager.disable
    said = io.StringIO()
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield said
    finally:
        logging.disable(before)


def calibration_items(inputs: Feed, samples: int) -> int:
    """Return how many different items ``calibration_batches`` feeds."""
    return min(samples, min(len(array) for array in inputs.values()))


def calibration_batches(inputs: Feed, samples: int, *, batch: int | None = None) -> list[dict[str, NDArray[Any]]]:
    """Cut the first ``samples`` items of arrays [n, …] into feeds.

    Args:
        inputs: Items by input name.
        samples: How many to use at most.
        batch: The batch that the graph is fixed to: every feed has it, and the last is filled up with items from the
            start. None where it is free: feeds of 16, and a short last one stays, so that no item counts twice.
    """
    import numpy as np

    count, size = calibration_items(inputs, samples), batch or _FREE_BATCH
    feeds = []
    for start in range(0, count, size):
        chosen = np.arange(start, start + size if batch else min(start + size, count)) % count
        feeds.append({name: array[chosen] for name, array in inputs.items()})
    return feeds


def calibration_feeds(
    model: Model, arrays: Feed, samples: int, opened: Callable[[], Callable[[Feed], Feed]] | None = None
) -> tuple[list[dict[str, NDArray[Any]]], int]:
    """Cut the first ``samples`` items of a split into feeds by the roles of a model's inputs.

    Items lie on their axis, 16 in a feed or as many as the file is fixed to, and one where an input has no axis for
    them or a state goes from call to call; states are those that the call before gave. Constants are the same in every
    feed.

    Args:
        model: With the roles of its inputs.
        arrays: Of the calibration split: items first.
        samples: How many to use at most.
        opened: Gives what runs the model once, asked only where states are due; ONNX Runtime runs its file without.

    Returns:
        The feeds, and how many different items are in them.
    """
    specs = model.inputs
    count = min(samples, min(items_in(specs, arrays).values(), default=1))
    items = [spec for spec in specs.values() if spec.role == "item"]
    fixed = [size for spec in items if spec.axis is not None and (size := spec.shape[spec.axis]) is not None]
    states = {name: spec.source for name, spec in specs.items() if spec.role == "state"}
    alone = bool(states) or any(spec.axis is None for spec in items)
    size = 1 if alone else min(fixed, default=_FREE_BATCH)
    feeds = []
    for start in range(0, count, size):
        chosen = [place % count for place in range(start, start + size if fixed else min(start + size, count))]
        feeds.append(feed(specs, arrays, chosen))
    if not states:
        return feeds, count
    run = opened() if opened is not None else _named_runner(model.path)
    return _with_states(run, feeds, states), count


def _named_runner(path: Path) -> Callable[[Feed], Feed]:
    run, names = runner(path), [item.name for item in load(path).graph.output]
    return lambda given: dict(zip(names, run(given), strict=True))


def _with_states(
    run: Callable[[Feed], Feed], feeds: Sequence[Feed], states: Mapping[str, str]
) -> list[dict[str, NDArray[Any]]]:
    """Run the feeds one after another and give each the states that the one before it left."""
    held: dict[str, NDArray[Any]] = {}
    found = []
    for given in feeds:
        found.append({**given, **held})
        results = run(found[-1])
        held = {name: results[source] for name, source in states.items()}
    return found


def qdq(
    source: Path,
    out: Path,
    feeds: Sequence[Feed],
    *,
    calibration: str = "minmax",
    activations: Literal["uint8", "int8"] = "uint8",
    symmetric: bool = False,
    per_channel: bool = True,
    reduce_range: bool = False,
    exclude: Mapping[str, str] = _NOTHING,
    bound: Bound | None = None,
    operators: bool = False,
    only: Collection[str] = (),
) -> None:
    """Write a calibrated QDQ file as ONNX Runtime runs fastest: int8 weights, bias int32, activations as asked.

    Args:
        source: A float32 ONNX file.
        out: The file to write.
        feeds: Calibration inputs by name.
        calibration: "minmax", "moving-average", "percentile" or "entropy" by ONNX Runtime's calibrators, "mse" by ours.
        activations: Their integer type.
        symmetric: Whether the activations' zero point is the middle of the integer range.
        per_channel: One weight scale per output channel.
        reduce_range: 7-bit weights, for x86 CPUs without VNNI, whose 16-bit sums saturate.
        exclude: Nodes of ``source`` that stay float, each with the parameter whose override asks for it.
        bound: Ranges that bind, by tensor name; calibration finds the others. What cannot bind is noted in it.
        operators: QLinearConv and its like instead of Q/DQ pairs.
        only: Types of the operators to quantize; empty for all that can be.

    Raises:
        Unsupported: ONNX Runtime has no such calibration, or left nothing of a node that is to stay float.
    """
    extra = {"ActivationSymmetric": symmetric, "WeightSymmetric": True}
    kind = _Kind(activations, per_channel, reduce_range, exclude, bound or Bound(), operators, only)
    _static(source, out, feeds, calibration, kind, extra)


def symmetric_qdq(
    source: Path,
    out: Path,
    feeds: Sequence[Feed],
    *,
    calibration: str = "minmax",
    per_channel: bool = True,
    exclude: Mapping[str, str] = _NOTHING,
) -> None:
    """Write the QDQ dialect of TensorRT: int8 weights and activations with zero point 0, float bias.

    Arguments and errors are those of ``qdq``.
    """
    extra = {"ActivationSymmetric": True, "WeightSymmetric": True, "QuantizeBias": False}
    _static(source, out, feeds, calibration, _Kind("int8", per_channel, False, exclude), extra)


@dataclass(frozen=True)
class _Kind:
    activations: str
    per_channel: bool
    reduce_range: bool
    exclude: Mapping[str, str]
    bound: Bound = field(default_factory=Bound)
    operators: bool = False
    only: Collection[str] = ()


def _static(
    source: Path, out: Path, feeds: Sequence[Feed], calibration: str, kind: _Kind, extra: Mapping[str, Any]
) -> None:
    if calibration not in {*_METHODS, _OURS}:
        known = f"known: {', '.join(_METHODS)}, {_OURS}"
        raise Unsupported(f"ONNX Runtime has no calibration {calibration!r}", hint=known)
    if not feeds:
        raise Unsupported("static int8 needs calibration items and there are none")
    toolkit = tools()
    prepared = prepare(source, out.with_suffix(".pre.onnx"))
    seen = extremes(prepared, feeds)
    model = load(prepared)
    careful = kept_float(model, seen)
    if "QuantizeBias" in extra:  # TensorRT places its own kernels
        careful = {name: why for name, why in careful.items() if why in {UNBOUNDED, MASKED}}
    left = [node.name for node in model.graph.node if kind.only and node.op_type not in kind.only]
    kept = dict.fromkeys([*kept_nodes(source, prepared, kind.exclude), *careful, *left])
    # A stride of one feed bounds memory: ranges or histograms are merged before the next feed is run.
    options = {**extra, "CalibStridedMinMax": 1, "CalibMovingAverage": calibration == "moving-average"}
    alone = [{"quant_type": toolkit.QuantType.QInt8, "symmetric": True}]
    options["TensorQuantOverrides"] = dict.fromkeys(scaled_as_one(model), alone) if kind.per_channel else {}
    loose = {name for name, item in seen.items() if not item.finite}
    ours = calibration == _OURS or bool(kind.bound.ranges) or bool(loose)
    given = _given(prepared, feeds, calibration, kind.bound, loose) if ours else None
    with quiet():
        toolkit.quantize_static(
            str(prepared),
            str(out),
            reader(feeds),
            quant_format=toolkit.QuantFormat.QOperator if kind.operators else toolkit.QuantFormat.QDQ,
            activation_type=toolkit.QuantType.QUInt8 if kind.activations == "uint8" else toolkit.QuantType.QInt8,
            weight_type=toolkit.QuantType.QInt8,
            per_channel=kind.per_channel,
            reduce_range=kind.reduce_range,
            nodes_to_exclude=list(kept),
            calibrate_method=getattr(toolkit.CalibrationMethod, "MinMax" if given else _METHODS[calibration]),
            extra_options=options,
            calibration_cache_path=given,
        )
    written = load(out)
    if not any(node.op_type.startswith(("QuantizeLinear", "QLinear")) for node in written.graph.node):
        raise Unsupported(f"the model has no operator that ONNX Runtime quantizes statically{told_left(model)}")
    if not kind.operators and "QuantizeBias" not in extra:
        drop_last_pairs(written, model, kept)
        import_onnx().save(written, str(out))
    prepared.unlink()
    if given is not None:
        given.unlink()


def _given(prepared: Path, feeds: Sequence[Feed], calibration: str, bound: Bound, loose: Collection[str]) -> Path:
    """Write ranges that are not ONNX Runtime's own as its calibration cache, which it then takes instead of running.

    What is in ``loose`` holds infinite values and gets no range.

    Raises:
        Unsupported: Ranges are given, and no tensor of the prepared file takes one.
    """
    import numpy as np
    from onnxruntime.quantization.calibrate import CalibrationMethod, TensorsData, save_tensors_data

    with quiet():
        runs = tensor_runs(prepared, feeds)
        tight = ({name: array for name, array in run.items() if name not in loose} for run in runs)
        found = ranges(tight, cast("Method", calibration))
    bound.drop(sorted(set(bound.ranges) - set(found)), "ONNX Runtime's fusions take its input away")
    bound.refuse_nothing()
    data = {name: (np.float32(low), np.float32(high)) for name, (low, high) in {**found, **bound.ranges}.items()}
    path = prepared.with_suffix(".ranges.json")
    save_tensors_data(TensorsData(CalibrationMethod.MinMax, data), path)
    return path


def dynamic_int8(source: Path, out: Path, *, per_channel: bool = True, exclude: Mapping[str, str] = _NOTHING) -> int:
    """Write a file with int8 weights whose activations are quantized at run time, where kernels exist.

    Conv becomes ConvInteger, MatMul and Gemm become MatMulInteger, LSTM becomes DynamicQuantizeLSTM; GRU has no
    such kernel and stays float. ConvInteger takes one weight scale; ``per_channel`` puts those of channels behind it
    where they differ much. Its weights are uint8 with zero point 128: on x86 its kernel for int8 weights ran five times
    slower (1.31).

    Returns:
        How many convolutions have a factor for each channel behind them.

    Raises:
        Unsupported: Nothing in the model has such a kernel, or a layer's weights are not numbers.
    """
    toolkit = tools()
    prepared = prepare(source, out.with_suffix(".pre.onnx"))
    kept = kept_nodes(source, prepared, exclude)
    kept += [f"{name}_MatMul" for name in kept]  # what ``quantize_dynamic`` turns every Gemm into, before it excludes
    _unshare_gemm_weights(prepared)
    behind = 0
    if per_channel:
        model = load(prepared)
        behind = scale_channels_behind(model, kept)
        drop_unread(model)
        import_onnx().save(model, str(prepared))
    graph = load(prepared).graph
    single = scaled_as_one(load(prepared))
    alone = [node.name for node in graph.node if set(single).intersection(node.input)]
    others = [node.name for node in graph.node if node.name not in alone]
    uint8, int8 = toolkit.QuantType.QUInt8, toolkit.QuantType.QInt8
    passes = (
        (prepared, ["Conv"], uint8, False, kept),
        (out, ["MatMul"], int8, False, [*kept, *others, *(f"{name}_MatMul" for name in others)]),
        (out, ["MatMul", "LSTM"], int8, per_channel, kept),
    )
    for path, operators, weights, channels, left in passes[:1] + passes[1 if alone else 2 :]:
        with quiet():
            toolkit.quantize_dynamic(
                str(path),
                str(out),
                op_types_to_quantize=operators,
                per_channel=channels,
                weight_type=weights,
                nodes_to_exclude=left,
                extra_options={"WeightSymmetric": True, "DefaultTensorType": import_onnx().TensorProto.FLOAT},
            )
    prepared.unlink()
    if not any(node.op_type in _DYNAMIC for node in load(out).graph.node):
        raise Unsupported(
            "the model has no convolution, matrix product or LSTM that ONNX Runtime quantizes dynamically"
            f"{told_left(load(source))}"
        )
    return behind


def prepare(source: Path, out: Path) -> Path:
    """Fold constants and batch norms by ONNX Runtime before quantizing, as its documentation asks.

    A node that is fused with the next one changes its name: MatMul ``a`` and Add become Gemm ``a/MatMulAddFusion``.
    """
    onnx = import_onnx()
    tools()
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with quiet():
        # Symbolic inference would need sympy, and the shapes it adds are dropped below.
        quant_pre_process(str(source), str(out), skip_symbolic_shape=True)
    model = load(out)
    normalise(model)
    refuse_broken_weights(model)
    tidy(model)
    onnx.save(model, str(out))
    return out


def kept_nodes(source: Path, prepared: Path, exclude: Mapping[str, str]) -> list[str]:
    """Return what became of nodes in the prepared file, where fusions rename them.

    Raises:
        Unsupported: Nothing that can be told did; the quantizers would ignore the unknown name and quantize the layer.
    """
    if not exclude:
        return []
    nodes = load(prepared).graph.node
    before = load(source).graph
    stored = {item.name for item in before.initializer}
    weights = {node.name: stored.intersection(node.input) for node in before.node if node.name in exclude}
    found: list[str] = []
    for name, parameter in exclude.items():
        same = [node.name for node in nodes if node.name == name]
        fused = [node.name for node in nodes if node.name.startswith(f"{name}/")]
        readers = [node.name for node in nodes if node.name and weights.get(name, set()).intersection(node.input)]
        if not (same or fused or readers):
            raise Unsupported(f"override of {parameter!r}: node {name!r} is not in the graph that is quantized")
        found += same or fused or readers
    return found


def _unshare_gemm_weights(path: Path) -> None:
    """Give each Gemm a weight of its own.

    ONNX Runtime 1.31's ``quantize_dynamic`` turns Gemm into MatMul by transposing the weight in place, once for
    every Gemm that reads it: a square weight that two layers share comes out wrong, without a word.
    """
    onnx = import_onnx()
    model = load(path)
    weights = {item.name: item for item in model.graph.initializer}
    seen = set()
    for node in model.graph.node:
        if node.op_type != "Gemm" or node.input[1] not in weights:
            continue
        if node.input[1] in seen:
            copy = onnx.TensorProto()
            copy.CopyFrom(weights[node.input[1]])
            copy.name = node.input[1] = f"{node.input[1]}/{node.name or node.output[0]}"
            model.graph.initializer.append(copy)
        seen.add(node.input[1])
    onnx.save(model, str(path))


def tools() -> Any:
    """Return ``onnxruntime.quantization``.

    Raises:
        MissingDependency: It is not installed.
    """
    import_onnx()
    try:
        import onnxruntime.quantization as toolkit
    except ImportError as error:
        hint = "pip install 'compression-harness[onnxruntime]'"
        raise MissingDependency(f"quantizing an ONNX file needs onnxruntime: {error}", hint=hint) from error
    return toolkit


def reader(feeds: Sequence[Feed]) -> Any:
    """Return the calibration reader of these feeds."""
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # the base is untyped
        """Serve feeds in ranges, as the strided calibration asks for them."""

        def __init__(self) -> None:
            self.left = iter(feeds)

        def __len__(self) -> int:
            return len(feeds)

        def set_range(self, start_index: int, end_index: int) -> None:
            self.left = iter(feeds[start_index:end_index])

        def get_next(self) -> dict[str, Any] | None:
            feed = next(self.left, None)
            return None if feed is None else dict(feed)

    return Reader()
