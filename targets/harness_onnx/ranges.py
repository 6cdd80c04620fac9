"""Ranges of activations, for quantizers that lack a calibration or must take given ranges."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from harness.api import Model, Unsupported
from harness_onnx.graph import import_onnx, layer_nodes, load

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]
    Feed = Mapping[str, Array]

Range = tuple[float, float]
Method = Literal["minmax", "percentile", "entropy", "mse", "moving-average"]
BINS = 4096  # over [-M, M]; M doubles with the data, so at least a quarter of them lie within the largest magnitude
PERCENTILE = 99.99  # of the items that stay inside the range, both tails cut alike
SMOOTHING = 0.95  # weight of what was seen before in a moving average of each feed's least and largest value
_LEVELS = 256
_SAME_SCALE = {"Flatten", "Identity", "MaxPool", "Reshape", "Squeeze", "Transpose", "Unsqueeze"}
_ATOM, _ATOM_SHARE = 10, 0.01  # a bin above so many times its neighbours' mean, and this share of all, is one value
_SHRINKS = 100  # candidate ranges of "mse": the full one times 1/100 … 100/100


@dataclass
class Seen:
    """What is known of one tensor: extremes, their moving average, and a histogram whose width doubles as needed."""

    low: float = float("inf")
    high: float = float("-inf")
    mean_low: float | None = None
    mean_high: float | None = None
    width: float = 0.0
    counts: Array = field(default_factory=lambda: _zeros())
    zeros: int = 0

    def update(self, values: Array) -> None:
        """Add the values of one feed."""
        import numpy as np

        if not values.size:
            return
        low, high = float(values.min()), float(values.max())
        if not (np.isfinite(low) and np.isfinite(high)):
            raise Unsupported("an activation is infinite or not a number on a calibration item")
        self.low, self.high = min(self.low, low), max(self.high, high)
        self.mean_low = low if self.mean_low is None else SMOOTHING * self.mean_low + (1 - SMOOTHING) * low
        self.mean_high = high if self.mean_high is None else SMOOTHING * self.mean_high + (1 - SMOOTHING) * high
        self._widen(max(abs(low), abs(high)))
        self.zeros += int(values.size - np.count_nonzero(values))
        self.counts += np.histogram(values, BINS, (-self.width, self.width))[0]

    def _widen(self, magnitude: float) -> None:
        if not self.width:
            self.width = max(magnitude, 1e-12)
        while magnitude > self.width:  # the old bins fill the middle half, two to one
            merged = self.counts.reshape(-1, 2).sum(1)
            self.counts = _zeros()
            self.counts[BINS // 4 : -BINS // 4] = merged
            self.width *= 2

    def range(self, method: Method) -> Range:
        """Return the range by a method, with 0 inside it, as the integer grids need.

        Minmax; moving-average (Jacob et al., 2018); percentile; entropy, the threshold of least KL divergence
        (Migacz, "8-bit inference with TensorRT", 2017); mse, the least squared rounding error on 256 levels.
        """
        if method == "moving-average":
            low, high = float(self.mean_low or 0), float(self.mean_high or 0)
        elif method == "percentile":
            low, high = self._percentile()
        elif method == "entropy":
            low, high = self._clipped(self._threshold())
        elif method == "mse":
            low, high = self._least_error()
        else:
            low, high = self.low, self.high
        return min(low, 0.0), max(high, 0.0)

    def _clipped(self, threshold: float) -> Range:
        return max(self.low, -threshold), min(self.high, threshold)

    def _percentile(self) -> Range:
        import numpy as np

        edges = np.linspace(-self.width, self.width, BINS + 1)
        share = np.concatenate([[0.0], np.cumsum(self.counts) / self.counts.sum()])
        tail = (1 - PERCENTILE / 100) / 2
        low, high = np.interp([tail, 1 - tail], share, edges)
        return max(self.low, float(low)), min(self.high, float(high))

    def _threshold(self) -> float:
        import numpy as np

        magnitudes = self.counts[BINS // 2 :] + self.counts[: BINS // 2][::-1]
        # A zero is exact on every grid. Those that a ReLU leaves, half of all items, would hide what clipping costs.
        magnitudes[0] -= self.zeros
        magnitudes = _without_atoms(magnitudes)
        if not magnitudes.any():
            return self.width
        levels = _LEVELS // 2  # of magnitudes, as published
        last = int(np.nonzero(magnitudes)[0].max()) + 1
        if last <= levels:
            return self.width
        losses = [divergence(magnitudes[:last], stop, levels) for stop in range(levels, last + 1)]
        return self.width * (levels + int(np.argmin(losses))) / (BINS // 2)

    def _least_error(self) -> Range:
        import numpy as np

        used = np.nonzero(self.counts)[0]
        centres = (np.linspace(-self.width, self.width, BINS + 1)[:-1] + self.width / BINS)[used]
        best, found = np.inf, (self.low, self.high)
        for part in range(_SHRINKS, 0, -1):
            low, high = min(self.low * part / _SHRINKS, 0.0), max(self.high * part / _SHRINKS, 0.0)
            step = max((high - low) / (_LEVELS - 1), 1e-30)
            zero = np.rint(-low / step)
            rounded = (np.clip(np.rint(centres / step) + zero, 0, _LEVELS - 1) - zero) * step
            error = float((self.counts[used] * (rounded - centres) ** 2).sum())
            if error < best:
                best, found = error, (low, high)
        return found


def _without_atoms(counts: Array) -> Array:
    """Return a histogram without single values that repeat, such as the background of images and what follows from it.

    Like the zeros of a ReLU they are off by a constant wherever one clips, and by their number they would hide what
    clipping costs all other values. Such a bin gets what its neighbours hold.
    """
    import numpy as np

    padded = np.pad(counts, 2)
    beside = (padded[:-4] + padded[1:-3] + padded[3:-1] + padded[4:]) / 4
    atom = (counts > _ATOM * beside) & (counts > _ATOM_SHARE * counts.sum())
    return np.asarray(np.where(atom, beside, counts))


def _zeros() -> Array:
    import numpy as np

    return np.zeros(BINS, np.float64)


def divergence(counts: Array, stop: int, levels: int) -> float:
    """Return KL(P, Q): P has what lies beyond bin ``stop`` in its last bin, Q is the kept part on ``levels`` levels."""
    import numpy as np

    kept = counts[:stop]
    reference = kept.copy()
    reference[-1] += counts[stop:].sum()
    group = np.arange(stop) * levels // stop
    filled = reference > 0  # a level spreads over the bins that P fills
    mass = np.bincount(group, kept, levels)
    sizes = np.bincount(group, filled, levels)
    quantized = np.where(filled, (mass / np.maximum(sizes, 1))[group], 0)
    if not quantized.sum():
        return float("inf")
    p, q = reference[filled] / reference.sum(), quantized[filled] / quantized.sum()
    return float("inf") if (q <= 0).any() else float((p * np.log(p / q)).sum())


def ranges(runs: Iterable[Mapping[str, Array]], method: Method) -> dict[str, Range]:
    """Return the range of every tensor over runs that give its values by name."""
    seen: dict[str, Seen] = {}
    for values in runs:
        for name, array in values.items():
            seen.setdefault(name, Seen()).update(array)
    return {name: item.range(method) for name, item in seen.items()}


def tensor_runs(path: Path, feeds: Sequence[Feed]) -> Iterator[dict[str, Array]]:
    """Run an ONNX file on each feed and yield all its float tensors that depend on an input, inputs among them."""
    import numpy as np
    import onnxruntime

    onnx = import_onnx()
    model = onnx.shape_inference.infer_shapes(load(path))
    known = {item.name: item for item in [*model.graph.value_info, *model.graph.output]}
    have = {item.name for item in model.graph.output}
    for node in model.graph.node:
        for name in node.output:
            if name in known and name not in have:
                model.graph.output.append(known[name])
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 3
    settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), settings, providers=["CPUExecutionProvider"])
    names = [item.name for item in session.get_outputs() if item.type == "tensor(float)"]
    for feed in feeds:
        # asked for no output by name, ONNX Runtime gives all of them
        found = dict(zip(names, session.run(names, dict(feed)), strict=True)) if names else {}
        found |= {name: array for name, array in feed.items() if array.dtype == np.float32}
        yield found


def read_encodings(path: Path) -> dict[str, Range]:
    """Return the input range of each layer, by the name of its weight, from an encodings file.

    The file is JSON: ``{"schema": 1, "layers": {"conv.weight": {"input": [low, high]}}}``.

    Raises:
        Unsupported: It cannot be read, has another schema, or a range that is none.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise Unsupported(f"the encodings file {path.name} cannot be read: {error}") from error
    if data.get("schema") != 1:
        raise Unsupported(f"{path.name} has schema {data.get('schema')!r}; schema 1 is read")
    found = {}
    for name, layer in data["layers"].items():
        low, high = (float(bound) for bound in layer["input"])
        if not low <= 0 <= high or low == high:
            raise Unsupported(f"{path.name} gives the input of {name!r} the range [{low}, {high}], without a 0 inside")
        found[name] = (low, high)
    return found


@dataclass
class Bound:
    """Ranges that a model's encodings give, as far as a file shows the layers that they are of.

    Attributes:
        ranges: Range by tensor, or by layer where a runtime goes by that.
        left: Parameter -> why its layer keeps the range that the runtime finds itself.
        owners: Name in ``ranges`` -> the parameter whose range it is.
    """

    ranges: dict[str, Range] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)
    owners: dict[str, str] = field(default_factory=dict)

    def take(self, parameter: str, names: Iterable[str], bounds: Range) -> None:
        """Bind the range of one parameter's layer; where another one has bound a name, that one stays."""
        for name in names:
            self.owners.setdefault(name, parameter)
            if self.ranges.setdefault(name, bounds) != bounds:
                self.left[parameter] = "another layer reads the same tensor with another range"

    def drop(self, names: Iterable[str], why: str) -> None:
        """Note that names cannot take their ranges after all."""
        for name in names:
            if name in self.ranges:
                del self.ranges[name]
                self.left[self.owners[name]] = why

    def refuse_nothing(self) -> None:
        """Raise Unsupported where encodings were given and none of them is bound."""
        if self.left and not self.ranges:
            parameter, why = next(iter(self.left.items()))
            raise Unsupported(f"no range of the encodings can be bound, such as that of {_layer(parameter)!r}: {why}")

    @property
    def told(self) -> str:
        """What is bound and what is not, to append to a sentence; empty without encodings."""
        given = f"; {len(self.ranges)} ranges given by the encodings" if self.ranges else ""
        left = ", ".join(f"{_layer(parameter)} ({why})" for parameter, why in self.left.items())
        return f"{given}; the runtime's own range for {left}" if left else given

    @property
    def flags(self) -> tuple[str, ...]:
        """The flags of an artifact in which some layers keep the runtime's own range."""
        return tuple(f"own_range:{_layer(parameter)}" for parameter in self.left)


def _layer(parameter: str) -> str:
    return parameter.rpartition(".")[0] or parameter


def bound_ranges(model: Model) -> Bound:
    """Return the ranges that bind in a model's ONNX file, by tensor name; none where its precision leaves it open."""
    wanted = model.precision
    if wanted.realise != "exact" or wanted.encodings is None:
        return Bound()
    return bound_inputs(model.path, read_encodings(wanted.encodings), model.names)


def bound_inputs(path: Path, given: Mapping[str, Range], names: Mapping[str, str]) -> Bound:
    """Return the ranges by tensor name for the inputs of the layers that ``given`` names by their weights.

    Raises:
        Unsupported: None of the layers is in the file.
    """
    nodes = {node.name: node for node in load(path).graph.node}
    found = Bound()
    for parameter, bounds in given.items():
        try:
            readers = [nodes[name] for name in layer_nodes(path, parameter, names)]
            layers = [node for node in readers if node.op_type != "Gather"]  # an embedding that is tied to the layer
            found.take(parameter, (node.input[0] for node in layers), bounds)
        except Unsupported:
            found.left[parameter] = "the exported graph shows no layer with its weight"
    found.refuse_nothing()
    _carried_back(path, found.ranges)
    return found


def _carried_back(path: Path, found: dict[str, Range]) -> dict[str, Range]:
    """Bind what a bound tensor is a view or a maximum of: quantizers give both sides of such nodes one scale."""
    for node in reversed(load(path).graph.node):
        if node.op_type in _SAME_SCALE and node.output[0] in found:
            found.setdefault(node.input[0], found[node.output[0]])
    return found
