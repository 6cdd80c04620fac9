"""Weights from a short list of values: fixed-point grids, and codebooks by even buckets, k-means or KL divergence."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from harness.api import Job, Model, Precision, param

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from harness_torch.weights import Weight

    Array = NDArray[Any]

_BINS = 2048  # of the histogram whose KL divergence is made least
_ROUNDS = 100  # of k-means at most


@dataclass(frozen=True)
class CodebookParams:
    """Parameters of ``codebook``."""

    bits: int = param(4, "bits of an index: a layer has 2^bits values", ge=1, le=8)
    buckets: Literal["kmeans", "uniform", "kl"] = param("kmeans", "how the values are chosen")
    epochs: int = param(1, "epochs in which the values, not the indices, are trained", ge=0)
    lr: float = param(1e-3, "peak learning rate of the values", gt=0)


@dataclass(frozen=True)
class FixedPointParams:
    """Parameters of ``fixed-point``."""

    bits: int = param(8, "bits of a weight, sign included", ge=2, le=16)
    grid: Literal["qmn", "unit"] = param("qmn", "qmn: steps of 2^-n; unit: 2^bits even steps over [-1, 1]")
    fraction: int | None = param(
        None, "n, bits behind the point; none takes the most that hold each layer", ge=0, le=30
    )
    epochs: int = param(0, "training epochs through the rounding; 0 only rounds", ge=0)
    lr: float = param(1e-3, "peak learning rate", gt=0)


def check_fixed_point(params: FixedPointParams) -> str | None:
    """Say what is wrong with parameters together."""
    if params.grid == "unit" and params.fraction is not None:
        return "grid=unit has its steps from bits alone; leave out fraction, or use grid=qmn"
    return None


def to_fixed_point(value: Array, bits: int, fraction: int) -> Array:
    """Return clip(round(x 2^n), -2^(bits-1), 2^(bits-1) - 1) 2^-n, ties to even."""
    import numpy as np

    top = 2 ** (bits - 1)
    found: Array = np.clip(np.rint(value * 2.0**fraction), -top, top - 1) * 2.0**-fraction
    return found


def to_unit_grid(value: Array, bits: int) -> Array:
    """Return x on the grid y = round((x + 1)(q - 1) / 2), q = 2^bits, of [-1, 1]; what is outside is clipped."""
    import numpy as np

    steps = 2**bits - 1
    found: Array = np.rint((np.clip(value, -1, 1) + 1) * steps / 2) * 2 / steps - 1
    return found


def best_fraction(peak: float, bits: int) -> int:
    """Return the most bits behind the point with which the largest magnitude still fits."""
    import math

    if peak <= 0:
        return bits - 1
    return math.floor(math.log2((2 ** (bits - 1) - 1) / peak))


def compress_fixed_point(model: Model, params: FixedPointParams, job: Job) -> Model:
    """Leave every weight on its fixed-point grid, after batch norms are folded."""
    from harness_torch import example_inputs, load, save
    from harness_torch.flow import fold_batch_norms
    from harness_torch.grids import fit_on_grid
    from harness_torch.weights import weights_in_order

    module, inputs = load(model), example_inputs(job)
    fold_batch_norms(module, inputs)
    chosen = weights_in_order(module, inputs)
    fractions = {
        item.name: best_fraction(float(item.parameter.detach().abs().max()), params.bits)
        if params.fraction is None
        else params.fraction
        for item in chosen
    }

    def project(item: Weight, value: Tensor) -> Tensor:
        import torch

        array = value.detach().numpy()
        unit = params.grid == "unit"
        rounded = to_unit_grid(array, params.bits) if unit else to_fixed_point(array, params.bits, fractions[item.name])
        return torch.from_numpy(rounded.astype("float32"))

    fit_on_grid(module, job, chosen, project, epochs=params.epochs, lr=params.lr)
    return save(module, model, job, precision=_as_codebook(model.precision))


def _as_codebook(precision: Precision) -> Precision:
    return dataclasses.replace(precision, storage="codebook")


def kmeans(values: Array, count: int) -> Array:
    """Return the sorted centres of Lloyd's algorithm in one dimension, from even spacing (Deep Compression, 2016).

    Args:
        values: Any shape.
        count: Centres at most; as many as there are different values where those are fewer.
    """
    import numpy as np

    ordered = np.sort(values, axis=None).astype(np.float64)
    if len(different := np.unique(ordered)) <= count:
        return different
    sums = np.concatenate([[0.0], np.cumsum(ordered)])
    centres = np.linspace(ordered[0], ordered[-1], count)
    for _round in range(_ROUNDS):
        edges = np.searchsorted(ordered, (centres[1:] + centres[:-1]) / 2)
        starts, ends = np.concatenate([[0], edges]), np.concatenate([edges, [len(ordered)]])
        filled = ends > starts
        moved = centres.copy()
        moved[filled] = (sums[ends] - sums[starts])[filled] / (ends - starts)[filled]
        if np.array_equal(moved, centres):
            break
        centres = np.sort(moved)
    return centres


def uniform(values: Array, count: int) -> Array:
    """Return evenly spaced values from the least to the largest."""
    import numpy as np

    return np.linspace(values.min(), values.max(), count) if values.min() < values.max() else np.unique(values)


def kl(values: Array, count: int) -> Array:
    """Return evenly spaced values over the range [-T, T] whose bucketed histogram has the least KL divergence.

    P is the histogram of the clipped values, Q the same with each bucket's mass spread evenly over its filled bins.
    """
    import numpy as np

    peak = float(np.abs(values).max())
    if not peak:
        return np.zeros(1)
    limits = [peak * part / 64 for part in range(8, 65)]
    best = min(limits, key=lambda limit: bucket_divergence(values, limit, count))
    return np.linspace(-best, best, count)


def bucket_divergence(values: Array, limit: float, count: int) -> float:
    """Return KL(P || Q) of values clipped to [-limit, limit] and of ``count`` even buckets there, in nats."""
    import numpy as np

    counts = np.histogram(np.clip(values, -limit, limit), _BINS, (-limit, limit))[0].astype(np.float64)
    inside = np.histogram(values[np.abs(values) <= limit], _BINS, (-limit, limit))[0].astype(np.float64)
    group = np.arange(_BINS) * count // _BINS
    filled = counts > 0
    mass, sizes = np.bincount(group, inside, count), np.bincount(group, filled, count)
    spread = np.where(filled, (mass / np.maximum(sizes, 1))[group], 0)
    p, q = counts[filled] / counts.sum(), np.maximum(spread[filled] / max(spread.sum(), 1), 1e-12)
    return float((p * np.log(p / q)).sum())


TABLES: dict[str, Callable[[Array, int], Array]] = {"kmeans": kmeans, "uniform": uniform, "kl": kl}


def nearest(values: Array, table: Array) -> Array:
    """Return the index of the nearest entry of a sorted table for each value."""
    import numpy as np

    return np.searchsorted((table[1:] + table[:-1]) / 2, values)


def compress_codebook(model: Model, params: CodebookParams, job: Job) -> Model:
    """Give each layer a table of 2^bits values, its weights an index into it, and train the table.

    Batch norms are folded first, so that the table is what a target computes with. The gradient of an entry is the
    sum over the weights that share it (Deep Compression, section 3.2).
    """
    import torch

    from harness_torch import example_inputs, load, save
    from harness_torch.flow import fold_batch_norms
    from harness_torch.weights import weights_in_order

    module, inputs = load(model), example_inputs(job)
    fold_batch_norms(module, inputs)
    chosen = weights_in_order(module, inputs)
    tables: dict[str, Tensor] = {}
    indices: dict[str, Tensor] = {}
    for done, item in enumerate(chosen):
        job.progress(done / len(chosen), f"buckets of {item.name}")
        values = item.parameter.detach().numpy()
        table = TABLES[params.buckets](values, 2**params.bits)
        tables[item.name] = torch.from_numpy(table.astype("float32"))
        indices[item.name] = torch.from_numpy(nearest(values, table))
    if params.epochs:
        tables = _train(module, chosen, tables, indices, params, job)
    with torch.no_grad():
        for item in chosen:
            item.parameter.copy_(tables[item.name][indices[item.name]])
    return save(module, model, job, precision=_as_codebook(model.precision))


def _train(
    module: nn.Module,
    chosen: tuple[Weight, ...],
    tables: dict[str, Tensor],
    indices: dict[str, Tensor],
    params: CodebookParams,
    job: Job,
) -> dict[str, Tensor]:
    from torch import nn

    from harness_torch import fit
    from harness_torch.grids import seen_through

    keys = {item.name: item.name.replace(".", "/") for item in chosen}  # a parameter's name has no dot
    seen: Any = seen_through(module, chosen, lambda item, _value: seen.tables[keys[item.name]][indices[item.name]])
    seen.tables = nn.ParameterDict({keys[name]: nn.Parameter(table) for name, table in tables.items()})
    fit(seen, job, epochs=params.epochs, lr=params.lr)
    return {name: seen.tables[key].detach() for name, key in keys.items()}
