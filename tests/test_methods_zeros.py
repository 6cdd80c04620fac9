"""Zeros and limits of single weights against numpy and published formulas: thresholds, schedules, N:M, clipping."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from jobs import compress, digits, make_job, trained
from torch import nn

import harness_pruning
from harness.api import Model, Precision, Unsupported
from harness.stats.coverage import coverage, flags
from harness.types import Placement
from harness_pruning.clipping import Params as ClipParams
from harness_pruning.clipping import limits_of
from harness_pruning.masks import above, n_of_m, share_at
from harness_torch import load
from harness_torch.weights import weights_in_order

SPECS = {spec.name: spec for spec in harness_pruning.harness_methods()}
IMAGE = (torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0)),)


@pytest.fixture(scope="module")
def cnn(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return trained(tmp_path_factory.mktemp("cnn"), epochs=2)


def _weights(model: Model) -> list[np.ndarray]:
    return [weight.parameter.detach().numpy() for weight in weights_in_order(load(model), IMAGE)]


def test_a_threshold_is_a_magnitude_or_counts_in_standard_deviations() -> None:
    torch.manual_seed(0)
    weights = [torch.randn(7, 5), 3 * torch.randn(3, 4, 2, 2)]
    for mask, weight in zip(above(weights, 0.7), weights, strict=True):
        assert np.array_equal(mask.numpy(), np.abs(weight.numpy()) >= 0.7)
    for mask, weight in zip(above(weights, 0.7, scope="local"), weights, strict=True):
        assert np.array_equal(mask.numpy(), np.abs(weight.numpy()) >= 0.7 * weight.numpy().std(ddof=1))


def test_weights_below_the_threshold_go_and_stay_away(cnn: Model, tmp_path: Path) -> None:
    before = _weights(cnn)[1:-1]
    after = _weights(compress(SPECS["magnitude-pruning"], cnn, make_job(tmp_path), threshold=0.05, epochs=1))[1:-1]
    assert all(np.array_equal(new == 0, np.abs(old) < 0.05) for old, new in zip(before, after, strict=True))


def test_a_threshold_above_a_whole_layer_is_refused_before_training(cnn: Model, tmp_path: Path) -> None:
    job = make_job(tmp_path)
    told: list[str] = []
    job = dataclasses.replace(job, progress=lambda share, text: told.append(text))
    with pytest.raises(Unsupported, match="would leave none of the"):
        compress(SPECS["magnitude-pruning"], cnn, job, threshold=50.0, penalty="l1")
    with pytest.raises(Unsupported, match="no weight that is small enough"):
        compress(SPECS["magnitude-pruning"], cnn, job, threshold=1e-12, penalty="l1")
    assert told == []


def test_a_ratio_that_empties_layers_is_refused_before_training(cnn: Model, tmp_path: Path) -> None:
    told: list[str] = []
    job = dataclasses.replace(make_job(tmp_path), progress=lambda share, text: told.append(text))
    with pytest.raises(Unsupported, match=r"would leave none of the \d+ weights of 'inner.weight'\n"):
        compress(SPECS["magnitude-pruning"], cnn, job, ratio=0.9999, scope="local")
    with pytest.raises(Unsupported, match=r"would leave none .*, and all inputs would give one output\n"):
        compress(SPECS["magnitude-pruning"], cnn, job, ratio=0.9999)
    assert told == []


def test_a_ranking_that_empties_a_layer_is_told(cnn: Model, tmp_path: Path, caplog: Any) -> None:
    module = load(cnn)
    with torch.no_grad():
        module.inner.weight.mul_(1e-6)
    torch.save(module, tmp_path / "weak.pt")
    weak = dataclasses.replace(cnn, path=tmp_path / "weak.pt")
    with caplog.at_level(logging.WARNING, logger="harness"):
        compress(SPECS["magnitude-pruning"], weak, make_job(tmp_path), epochs=0)
    assert "'inner.weight'; scope=local takes the same share" in caplog.text


@pytest.mark.parametrize("ratio", [0.5, 0.9])
def test_the_schedule_is_zhu_and_guptas(ratio: float) -> None:
    start, count = 0, 40  # s_t = s_f + (s_i - s_f)(1 - (t - t_0) / (n dt))³ with s_i = 0
    for step in range(count + 1):
        assert share_at(step, count, ratio) == pytest.approx(ratio + (0 - ratio) * (1 - (step - start) / count) ** 3)
    assert share_at(count + 5, count, ratio) == ratio


def test_zeros_rise_along_the_schedule_while_training(cnn: Model, tmp_path: Path, monkeypatch: Any) -> None:
    seen: list[tuple[int, int, float]] = []
    import harness_torch.tuning as tuning

    fit = tuning.fit

    def watched(module: nn.Module, job: Any, *, on_batch: Any, **rest: Any) -> None:
        def note(net: nn.Module, step: int, steps: int) -> None:
            on_batch(net, step, steps)
            weights = [weight.parameter for weight in weights_in_order(net, IMAGE)[1:-1]]
            zeros, total = sum(int((w == 0).sum()) for w in weights), sum(w.numel() for w in weights)
            seen.append((step, steps, zeros / total))

        fit(module, job, on_batch=note, **rest)

    monkeypatch.setattr(tuning, "fit", watched)
    asked = {"schedule": "gradual", "ratio": 0.8, "every": 2, "until": 0.5, "epochs": 8}
    result = compress(SPECS["magnitude-pruning"], cnn, make_job(tmp_path), **asked)
    end = round(0.5 * seen[0][1])
    for step, _steps, zeros in seen:
        last = end if step >= end else step - step % 2
        assert zeros == pytest.approx(0.8 * (1 - (1 - last / end) ** 3), abs=0.002)
    inner = _weights(result)[1:-1]
    total = sum(weight.size for weight in inner)
    assert sum(int((weight == 0).sum()) for weight in inner) == round(0.8 * total)


@pytest.mark.parametrize("penalty", ["l1", "l2"])
def test_a_penalty_shrinks_the_weights_before_pruning(penalty: str, cnn: Model, tmp_path: Path) -> None:
    def norm(**asked: Any) -> float:
        result = compress(SPECS["magnitude-pruning"], cnn, make_job(tmp_path), epochs=0, ratio=0.1, **asked)
        return sum(float(np.abs(weight).sum()) for weight in _weights(result)[1:-1])

    weak, strong = (norm(penalty=penalty, strength=strength, before=4, lr=0.02) for strength in (1e-6, 1e-2))
    assert strong < 0.8 * weak


@pytest.mark.parametrize(("n", "m"), [(2, 4), (1, 4), (4, 8)])
@pytest.mark.parametrize("dim", [0, 1])
def test_n_of_m_is_numpys(n: int, m: int, dim: int) -> None:
    weight = torch.randn(16, 24, 3, 3, generator=torch.Generator().manual_seed(1))
    mask = n_of_m(weight, n, m, dim=dim).numpy()
    sizes, keep = (np.moveaxis(value, dim, -1).reshape(-1, m) for value in (np.abs(weight.numpy()), mask))
    assert (keep.sum(1) == n).all()
    for size, kept in zip(sizes, keep, strict=True):
        assert size[kept].min() >= size[~kept].max()


def test_n_of_m_holds_through_fine_tuning_where_channels_allow_it(cnn: Model, tmp_path: Path) -> None:
    result = compress(SPECS["n-m-pruning"], cnn, make_job(tmp_path), epochs=1)
    found = {weight.name: weight.parameter.detach() for weight in weights_in_order(load(result), IMAGE)}
    for name in ("inner.weight", "point.weight", "hidden.weight"):
        groups = found[name].movedim(1, -1).reshape(-1, 4)
        assert ((groups == 0).sum(1) == 2).all(), name
    for name in ("stem.weight", "depthwise.weight", "head.weight"):  # the first, a depthwise and the last layer
        assert (found[name] != 0).all()
    assert (result.precision.storage, result.precision.pattern) == ("sparse", "2:4")


def test_n_of_m_without_a_fitting_layer_is_refused(cnn: Model, tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match=r"multiple of 7; they are \[1, 8, 64\]"):
        compress(SPECS["n-m-pruning"], cnn, make_job(tmp_path), n=2, m=7, first=True, epochs=0)


@pytest.mark.parametrize(
    ("pattern", "kernels", "flagged"),
    [("2:4", (), True), ("2:4", ("2:4",), False), ("1:4", ("2:4",), True), ("", ("2:4",), True)],
)
def test_zeros_without_a_kernel_for_their_pattern_are_flagged(
    pattern: str, kernels: tuple[str, ...], flagged: bool
) -> None:
    ran = (Placement("Conv", "conv", "gemm", "cpu", "float32", macs=10),)
    wanted = Precision(storage="sparse", pattern=pattern)
    found = flags(ran, wanted, coverage(ran, wanted), kernels)
    assert ("stored_sparse_executed_dense" in found) is flagged


def _brute_force(values: np.ndarray, bits: int) -> float:
    """The limit with the least squared error of symmetric rounding, by trying all of them in numpy."""
    levels = 2 ** (bits - 1) - 1
    limits = np.abs(values).max() * np.arange(1, 101) / 100

    def error(limit: float) -> float:
        step = limit / levels
        return float(((values - np.clip(np.round(values / step), -levels, levels) * step) ** 2).sum())

    return float(min(limits, key=error))


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("granularity", ["per-tensor", "per-channel"])
def test_the_mse_limit_is_the_best_of_all_that_are_tried(bits: int, granularity: str) -> None:
    weight = torch.distributions.Laplace(0, 1).sample((6, 50, 3, 3))
    found = limits_of(weight, ClipParams(limit="mse", bits=bits, granularity=granularity)).numpy()  # type: ignore[arg-type]
    values = weight.double().numpy()
    rows = [values.ravel()] if granularity == "per-tensor" else [row.ravel() for row in values]
    assert found == pytest.approx([_brute_force(row, bits) for row in rows], rel=0.011)  # ties of one candidate


def test_fewer_bits_clip_more() -> None:
    weight = torch.distributions.Laplace(0, 1).sample((4, 400))
    tight, wide = (limits_of(weight, ClipParams(limit="mse", bits=bits)) for bits in (2, 8))
    assert float(tight) < float(wide) <= float(weight.abs().max())


def test_the_percentile_limit_is_numpys() -> None:
    weight = torch.randn(5, 40, 3, 3)
    asked = ClipParams(limit="percentile", percentile=97.5, granularity="per-channel")
    expected = np.percentile(np.abs(weight.numpy()).reshape(5, -1), 97.5, axis=1)
    assert limits_of(weight, asked).numpy() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("epochs", [0, 1])
def test_clipped_weights_stay_within_c(epochs: int, cnn: Model, tmp_path: Path) -> None:
    result = compress(SPECS["weight-clipping"], cnn, make_job(tmp_path), limit="value", c=0.1, epochs=epochs)
    before, after = _weights(cnn), _weights(result)
    assert all(np.abs(weight).max() <= np.float32(0.1) for weight in after)
    if not epochs:
        assert all(np.array_equal(new, np.clip(old, -0.1, 0.1)) for old, new in zip(before, after, strict=True))


def test_clipping_that_changes_nothing_is_refused(cnn: Model, tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match="nothing would change"):
        compress(SPECS["weight-clipping"], cnn, make_job(tmp_path), limit="value", c=100.0)


def test_clipping_keeps_the_zeros_of_an_earlier_step(cnn: Model, tmp_path: Path) -> None:
    sparse = compress(SPECS["magnitude-pruning"], cnn, make_job(tmp_path), epochs=0)
    clipped = compress(SPECS["weight-clipping"], sparse, make_job(tmp_path), limit="value", c=0.2, epochs=1)
    pairs = zip(_weights(sparse), _weights(clipped), strict=True)
    assert all((new[old == 0] == 0).all() for old, new in pairs)
    assert clipped.precision.storage == "sparse"


def test_unlabelled_data_do_where_nothing_is_trained(cnn: Model, tmp_path: Path) -> None:
    data = dataclasses.replace(digits(), y=None)
    for name in ("magnitude-pruning", "n-m-pruning", "channel-pruning", "filter-pruning"):
        spec = SPECS[name]
        assert spec.needs(spec.params(epochs=0)) == frozenset()
        assert compress(spec, cnn, make_job(tmp_path, data=data), epochs=0).path.exists()
    structured = SPECS["channel-pruning"]
    assert structured.needs(structured.params(epochs=0, importance="taylor")) == {"training"}
