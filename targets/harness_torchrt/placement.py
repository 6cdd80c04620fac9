"""Read torch's profile: which operator ran by which kernel, in which dtype, for how long, with how many MACs."""

from __future__ import annotations

import ast
import json
import math
import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.api import Placement

Shape = tuple[int, ...]

_DTYPES = {
    "float": "float32", "double": "float64", "c10::Half": "float16", "c10::BFloat16": "bfloat16",
    "unsigned char": "uint8", "signed char": "int8", "long int": "int64", "int": "int32", "bool": "bool",
}  # fmt: skip
_FLOATS = {"float32", "float64", "float16", "bfloat16"}
# Frames around what runs: the compiler's own bookkeeping.
_FRAMES = ("Torch-Compiled Region", "TorchDynamo Cache Lookup", "## Call CompiledFxGraph", "Pregraph bytecode",
           "CompiledFunction", "AOTDispatcher", "inductor")  # fmt: skip
# These compute nothing: they give the same memory another shape.
_VIEWS = {
    "aten::view", "aten::t", "aten::permute", "aten::transpose", "aten::detach", "aten::alias", "aten::unsqueeze",
    "aten::squeeze", "aten::expand", "aten::select", "aten::slice", "aten::as_strided", "aten::_unsafe_view",
    "aten::numpy_T", "aten::detach_", "aten::lift_fresh", "aten::empty", "aten::empty_strided", "aten::resolve_conj",
}  # fmt: skip
_MAY_VIEW = {"aten::to", "aten::reshape", "aten::flatten", "aten::contiguous", "aten::dropout", "aten::_to_copy"}


@dataclass
class Call:
    """One call of an operator, with those that it made.

    Attributes:
        dims: Shape of each argument: a list of shapes for lists of tensors, empty where it is no tensor.
        concrete: Value of each argument that is no tensor, as text.
    """

    name: str
    start_us: float
    dur_us: float
    dims: Sequence[Any]
    types: Sequence[Any]
    concrete: Sequence[str]
    correlation: int | None = None
    inner: list[Call] = field(default_factory=list)

    @property
    def end_us(self) -> float:
        """When it returned."""
        return self.start_us + self.dur_us


def profile(torch: Any, run: Callable[[], object], *, runs: int, items: int) -> tuple[Placement, ...]:
    """Profile some runs and return one placement per operator that the program called, in order.

    Args:
        torch: The module.
        run: Runs once; it was run before.
        runs: A time is the median over them.
        items: Items per run; MACs are per item.
    """
    cuda = torch.cuda.is_available()
    kinds = [torch.profiler.ProfilerActivity.CPU, *([torch.profiler.ProfilerActivity.CUDA] if cuda else [])]
    traces = []
    with tempfile.TemporaryDirectory(prefix="harness-torch-") as folder:
        path = Path(folder) / "trace.json"
        for _ in range(runs):
            with torch.profiler.profile(activities=kinds, record_shapes=True) as profiler:
                run()
                if cuda:
                    torch.cuda.synchronize()
            profiler.export_chrome_trace(str(path))
            traces.append(read_trace(path.read_bytes(), items=items))
    return _medians(traces)


def _medians(traces: Sequence[tuple[Placement, ...]]) -> tuple[Placement, ...]:
    """Return the last trace with the median share of each row over the traces that have the same rows."""
    import dataclasses

    last = traces[-1]
    same = [trace for trace in traces if [row.op for row in trace] == [row.op for row in last]]
    shares = [statistics.median(trace[place].time_share or 0.0 for trace in same) for place in range(len(last))]
    total = sum(shares)
    return tuple(
        dataclasses.replace(row, time_share=share / total if total else None)
        for row, share in zip(last, shares, strict=True)
    )


def read_trace(raw: bytes, *, items: int) -> tuple[Placement, ...]:
    """Return one placement per outermost operator of a Chrome trace that ``torch.profiler`` wrote.

    Time is that of the kernels which an operator launched on the GPU, where there are any, else its own.
    """
    events = json.loads(raw)["traceEvents"]
    calls = [call for call in _outermost(_tree(events)) if not _is_view(call)]
    on_gpu = _gpu_us(events)
    times = [_device_us(call, on_gpu) for call in calls]
    device = "cuda" if on_gpu else "cpu"
    spent = [us if us is not None else (0.0 if on_gpu else call.dur_us) for call, us in zip(calls, times, strict=True)]
    total = sum(spent)
    return tuple(
        _placement(call, number, us / total if total else None, device, items)
        for number, (call, us) in enumerate(zip(calls, spent, strict=True))
    )


def _tree(events: Sequence[Mapping[str, Any]]) -> list[Call]:
    """Nest the operators of the thread that called most of them."""
    found = [event for event in events if event.get("ph") == "X" and event.get("cat") in {"cpu_op", "user_annotation"}]
    threads = [event["tid"] for event in found if event["cat"] == "cpu_op"]
    main = max(set(threads), key=threads.count, default=None)
    roots: list[Call] = []
    open_calls: list[Call] = []
    for event in sorted((item for item in found if item["tid"] == main), key=lambda item: (item["ts"], -item["dur"])):
        call = _call(event)
        while open_calls and open_calls[-1].end_us < call.end_us:
            open_calls.pop()
        (open_calls[-1].inner if open_calls else roots).append(call)
        open_calls.append(call)
    return roots


def _call(event: Mapping[str, Any]) -> Call:
    args = event.get("args", {})
    return Call(
        event["name"], event["ts"], event["dur"], args.get("Input Dims", ()), args.get("Input type", ()),
        args.get("Concrete Inputs", ()), args.get("External id"),
    )  # fmt: skip


def _outermost(calls: Sequence[Call]) -> Iterator[Call]:
    for call in calls:
        if call.name.startswith(_FRAMES):
            yield from _outermost(call.inner)
        elif not call.name.startswith(("ProfilerStep", "[pytorch|")):
            yield call


def _is_view(call: Call) -> bool:
    if call.name in _VIEWS:
        return True
    return call.name in _MAY_VIEW and all(_is_view(inner) for inner in call.inner)


def _gpu_us(events: Sequence[Mapping[str, Any]]) -> dict[int, float]:
    """Return external id of an operator -> time of the kernels that it launched."""
    found: dict[int, float] = {}
    for event in events:
        if event.get("cat") in {"kernel", "gpu_memcpy", "gpu_memset"}:
            number = event["args"].get("External id", -1)
            found[number] = found.get(number, 0.0) + event["dur"]
    return found


def _device_us(call: Call, on_gpu: Mapping[int, float]) -> float | None:
    own = on_gpu.get(call.correlation) if call.correlation is not None else None
    inner = [us for us in (_device_us(item, on_gpu) for item in call.inner) if us is not None]
    return (own or 0.0) + sum(inner) if own is not None or inner else None


def _placement(call: Call, number: int, share: float | None, device: str, items: int) -> Placement:
    worker = _worker(call)
    macs = _macs(call)
    return Placement(
        op="fused" if call.name.startswith("graph_") else call.name.rpartition("::")[2],  # a generated kernel
        name=f"{number}:{call.name}",
        kernel=worker.name,
        device=device,
        precision=_precision(call, worker),
        macs=None if macs is None else macs // items,
        time_share=share,
    )


def _worker(call: Call) -> Call:
    """Return the innermost call that takes most of the time: the kernel behind the operator's wrappers."""
    while call.inner:
        longest = max(call.inner, key=lambda inner: inner.dur_us)
        if longest.dur_us < call.dur_us / 2 or longest.name in _VIEWS:
            return call
        call = longest
    return call


def _precision(call: Call, worker: Call) -> str:
    """Return the dtype of the arithmetic: integers in oneDNN's quantized operators, else that of the first tensor."""
    counted = next((item for item in _walk(call) if item.name in _FORMULAS), call)
    for item in (counted, worker):
        dtypes = [_DTYPES[kind] for kind in _flat(item.types) if kind in _DTYPES]
        if item.name.startswith(("onednn::q", "aten::_int_mm", "quantized::")):
            return "int8"
        if item.name.startswith("quantized_decomposed::"):  # conversions that no kernel took in
            return "float32"
        floats = [dtype for dtype in dtypes if dtype in _FLOATS]
        if floats or dtypes:
            return (floats or dtypes)[0]
    return "float32"


def _flat(values: Any) -> Iterator[Any]:
    for value in values:
        if isinstance(value, (list, tuple)):
            yield from _flat(value)
        else:
            yield value


def _walk(call: Call) -> Iterator[Call]:
    yield call
    for inner in call.inner:
        yield from _walk(inner)


def _macs(call: Call) -> int | None:
    """Return multiply-accumulates of a call: by its shapes where a formula is known, else of its inner calls."""
    formula = _FORMULAS.get(call.name)
    if formula is not None:
        try:
            return formula(call)
        except (IndexError, TypeError, ValueError):  # arguments that the trace does not show
            pass
    found = [macs for macs in map(_macs, call.inner) if macs is not None]
    return sum(found) if found else None


def _numbers(call: Call) -> list[Shape]:
    """Return the arguments that are lists of numbers, in order: strides, paddings, dilations."""
    lists = [text for text in call.concrete if text.startswith("[") and text != "[]"]
    return [tuple(ast.literal_eval(text)) for text in lists]


def _spatial(value: Shape, weight: Shape, stride: Shape, padding: Shape, dilation: Shape) -> int:
    """Return the number of output positions of a convolution."""
    total, rank = 1, len(weight) - 2
    for axis in range(rank):
        step, pad, spread = (item[axis if len(item) == rank else 0] for item in (stride, padding, dilation))
        total *= (value[2 + axis] + 2 * pad - spread * (weight[2 + axis] - 1) - 1) // step + 1
    return total


def _convolution(order: str, weight_at: int = 1) -> Callable[[Call], int]:
    def count(call: Call) -> int:
        value, weight = tuple(call.dims[0]), tuple(call.dims[weight_at])
        given = dict(zip(order, _numbers(call)[:3], strict=True))
        transposed = len(call.concrete) > 6 and call.name == "aten::convolution" and call.concrete[6] == "True"
        if transposed:
            return math.prod(value) * math.prod(weight[1:])
        return value[0] * _spatial(value, weight, given["s"], given["p"], given["d"]) * math.prod(weight)

    return count


def _pointwise(call: Call) -> int:
    """Count a convolution with what was fused behind it: (input, [other,] weight, bias, padding, stride, dilation)."""
    weight_at = list(call.types).index("ScalarList") - 2
    in_place = call.name.endswith("_")  # (other, input, weight, …)
    value = call.dims[weight_at - 1 if in_place else 0]
    padding, stride, dilation = _numbers(call)[:3]
    weight = tuple(call.dims[weight_at])
    return int(value[0]) * _spatial(tuple(value), weight, stride, padding, dilation) * math.prod(weight)


def _transposed(call: Call) -> int:
    return math.prod(call.dims[0]) * math.prod(call.dims[1][1:])


def _product(left_at: int, columns_at: int, axis: int) -> Callable[[Call], int]:
    def count(call: Call) -> int:
        return math.prod(call.dims[left_at]) * int(call.dims[columns_at][axis])

    return count


def _attention(call: Call) -> int:
    query, key, value = (tuple(shape) for shape in call.dims[:3])
    return math.prod(query[:-1]) * key[-2] * (query[-1] + value[-1])


def _recurrent(call: Call) -> int:
    value, weights = tuple(call.dims[0]), call.dims[2]
    return math.prod(value[:-1]) * sum(math.prod(shape) for shape in weights if len(shape) == 2)


_FORMULAS: Mapping[str, Callable[[Call], int]] = {
    "aten::conv1d": _convolution("spd"),
    "aten::conv2d": _convolution("spd"),
    "aten::conv3d": _convolution("spd"),
    "aten::convolution": _convolution("spd"),
    "aten::mkldnn_convolution": _convolution("psd"),
    "mkldnn::_convolution_pointwise": _pointwise,
    "mkldnn::_convolution_pointwise_": _pointwise,
    "onednn::qconv_pointwise": _convolution("spd", 3),
    "onednn::qconv2d_pointwise": _convolution("spd", 3),
    "aten::conv_transpose2d": _transposed,
    "aten::linear": _product(0, 1, 0),
    "aten::addmm": _product(1, 2, 1),
    "aten::mm": _product(0, 1, 1),
    "aten::bmm": _product(0, 1, 2),
    "aten::baddbmm": _product(1, 2, 2),
    "mkldnn::_linear_pointwise": _product(0, 1, 0),
    "mkl::_mkl_linear": _product(0, 2, 0),
    "onednn::qlinear_pointwise": _product(0, 3, 1),
    "aten::scaled_dot_product_attention": _attention,
    "aten::_scaled_dot_product_flash_attention_for_cpu": _attention,
    "aten::gru": _recurrent,
    "aten::lstm": _recurrent,
}
