"""Methods that put weights on grids and prepare them for int8, against numpy, scikit-learn and closed forms."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from jobs import TinyCnn, TinyMlp, compress, make_job, trained
from scipy.stats import entropy
from sklearn.cluster import KMeans
from torch import nn

import harness_binarization
import harness_quantization
from harness.api import Model, PlanError, Split, Unsupported
from harness.plan.resolve import choose
from harness.plugins import load_registry
from harness.types import Step
from harness_binarization.levels import fixed_binary, ternary
from harness_quantization import codebooks, correction, simulated
from harness_torch import call, example_inputs, load
from harness_torch.flow import chained_weights, fold_batch_norms
from harness_torch.layers import BinaryConv2d, binary
from harness_torch.weights import weights_in_order

SPECS = {
    spec.name: spec for plugin in (harness_quantization, harness_binarization) for spec in plugin.harness_methods()
}


@pytest.fixture(scope="module")
def cnn(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return trained(tmp_path_factory.mktemp("cnn"), epochs=6)


def values(model: Model) -> dict[str, np.ndarray]:
    module = load(model)
    chosen = weights_in_order(module, example_inputs(model.inputs))
    return {item.name: item.parameter.detach().numpy() for item in chosen}


def outputs(module: nn.Module, job: Any, split: str = "selection") -> np.ndarray:
    return next(iter(call(module, job.data.split(split).inputs).values()))


# fold


def test_folded_norms_compute_the_same_and_are_gone(cnn: Model, tmp_path: Path) -> None:
    job, module = make_job(tmp_path), load(cnn)
    before = outputs(module, job)
    assert len(fold_batch_norms(module, example_inputs(job))) == 2
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in module.modules())
    assert np.allclose(outputs(module, job), before, atol=1e-4)
    assert {"inner.weight", "inner.bias"} <= set(dict(module.named_parameters()))


def test_chains_go_through_relus_and_stop_at_sums() -> None:
    module = TinyCnn()
    inputs = (torch.randn(2, 1, 8, 8),)
    fold_batch_norms(module, inputs)
    assert chained_weights(module, inputs) == [("depthwise.weight", "point.weight"), ("hidden.weight", "head.weight")]


# grids


@pytest.mark.parametrize(("bits", "fraction"), [(8, 7), (8, 4), (4, 0), (16, 12)])
def test_fixed_point_is_integers_over_a_power_of_two(bits: int, fraction: int) -> None:
    x = np.random.default_rng(0).standard_normal(4000) * 3
    whole = np.clip(np.round(x * 2**fraction), -(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    assert np.array_equal(codebooks.to_fixed_point(x, bits, fraction), whole / 2**fraction)


def test_unit_grid_is_the_formula_of_its_source() -> None:
    x, q = np.linspace(-1.5, 1.5, 301), 2**5
    y = np.round((np.clip(x, -1, 1) + 1) * (q - 1) / 2)
    found = codebooks.to_unit_grid(x, 5)
    assert np.allclose(found, y * 2 / (q - 1) - 1)
    assert len(np.unique(found)) == q


@pytest.mark.parametrize(("peak", "bits", "fraction"), [(0.9, 8, 7), (0.999, 8, 6), (3.9, 8, 5), (0.4, 4, 4)])
def test_best_fraction_is_the_finest_that_holds_the_peak(peak: float, bits: int, fraction: int) -> None:
    top = 2 ** (bits - 1) - 1
    assert codebooks.best_fraction(peak, bits) == fraction
    assert peak * 2**fraction <= top < peak * 2 ** (fraction + 1)


@pytest.mark.parametrize("grid", ["qmn", "unit"])
def test_fixed_point_leaves_every_weight_on_its_grid(grid: str, cnn: Model, tmp_path: Path) -> None:
    result = compress(SPECS["fixed-point"], cnn, make_job(tmp_path), bits=6, grid=grid)
    assert result.precision.storage == "codebook"
    for weight in values(result).values():
        assert len(np.unique(weight)) <= 64
        if grid == "qmn":
            fraction = codebooks.best_fraction(np.abs(weight).max(), 6)
            assert np.array_equal(weight * 2.0**fraction, np.round(weight * 2.0**fraction))


def test_fixed_binary_is_round_of_x_times_two_to_b() -> None:
    x = torch.randn(50, 20, generator=torch.Generator().manual_seed(0)) * 0.6
    wanted = np.clip(np.round(x.numpy() * 16), -16, 15) / 16
    assert np.array_equal(fixed_binary(x, 4, 5).numpy(), wanted.astype(np.float32))


def test_ternary_is_the_twn_formula_in_numpy() -> None:
    weight = torch.randn(6, 40, generator=torch.Generator().manual_seed(1))
    found = ternary(weight).numpy()
    for row, got in zip(weight.numpy(), found, strict=True):
        kept = np.abs(row) > 0.7 * np.abs(row).mean()
        alpha = np.abs(row[kept]).mean()
        assert np.allclose(got, np.where(kept, alpha * np.sign(row), 0), rtol=1e-6)
        errors = [((row - scale * np.sign(got)) ** 2).sum() for scale in (0.99 * alpha, alpha, 1.01 * alpha)]
        assert errors[1] == min(errors)


def test_ternary_model_has_three_values_per_channel(cnn: Model, tmp_path: Path) -> None:
    result = compress(SPECS["ternary"], cnn, make_job(tmp_path), epochs=1)
    inner = list(values(result).values())[1:-1]
    assert all(set(np.unique(np.sign(channel))) <= {-1, 0, 1} for weight in inner for channel in weight)
    assert all(len(np.unique(np.abs(channel[channel != 0]))) <= 1 for weight in inner for channel in weight)
    assert result.precision.storage == "codebook"


# codebooks


@pytest.mark.parametrize("count", [2, 4, 16])
def test_kmeans_is_as_tight_as_scikit_learns(count: int) -> None:
    x = np.random.default_rng(count).standard_normal(3000)
    table = codebooks.kmeans(x, count)
    ours = float(((x - table[codebooks.nearest(x, table)]) ** 2).sum())
    theirs = KMeans(count, init=np.linspace(x.min(), x.max(), count)[:, None], n_init=1, max_iter=100, tol=0)
    assert ours == pytest.approx(theirs.fit(x[:, None]).inertia_, rel=0.01)
    assert np.array_equal(table, np.sort(table))


def test_few_different_values_are_their_own_table() -> None:
    assert codebooks.kmeans(np.array([3.0, 1.0, 3.0, 2.0]), 8).tolist() == [1, 2, 3]


def test_nearest_is_nearest() -> None:
    x, table = np.random.default_rng(0).standard_normal(500), np.array([-1.0, -0.2, 0.5, 2.0])
    assert np.array_equal(codebooks.nearest(x, table), np.abs(x[:, None] - table).argmin(1))


def test_divergence_of_buckets_is_scipys() -> None:
    x, limit, count = np.random.default_rng(4).standard_normal(20_000), 1.5, 16
    counts = np.histogram(np.clip(x, -limit, limit), 2048, (-limit, limit))[0].astype(float)
    inside = np.histogram(x[np.abs(x) <= limit], 2048, (-limit, limit))[0].astype(float)
    spread = np.zeros(2048)
    for bucket in range(count):
        part = slice(bucket * 128, bucket * 128 + 128)
        filled = counts[part] > 0
        spread[part][filled] = inside[part].sum() / filled.sum()
    assert codebooks.bucket_divergence(x, limit, count) == pytest.approx(entropy(counts, spread), rel=1e-6)


def test_kl_buckets_clip_an_outlier_that_uniform_ones_span() -> None:
    x = np.random.default_rng(5).standard_normal(20_000)
    x[0] = 40
    assert codebooks.kl(x, 16).max() < 10 < codebooks.uniform(x, 16).max()


@pytest.mark.parametrize("buckets", ["kmeans", "uniform", "kl"])
def test_codebook_of_a_model(buckets: str, cnn: Model, tmp_path: Path) -> None:
    result = compress(SPECS["codebook"], cnn, make_job(tmp_path), bits=3, buckets=buckets, epochs=0)
    assert all(len(np.unique(weight)) <= 8 for weight in values(result).values())
    assert result.precision.storage == "codebook"


def test_training_the_tables_helps_and_keeps_the_indices(cnn: Model, tmp_path: Path) -> None:
    job = make_job(tmp_path)

    def loss(epochs: int) -> tuple[float, Model]:
        result = compress(SPECS["codebook"], cnn, make_job(tmp_path), bits=2, epochs=epochs, lr=3e-3)
        split = job.data.split("train")
        found = torch.from_numpy(outputs(load(result), job, "train"))
        return float(nn.functional.cross_entropy(found, torch.from_numpy(split.labels))), result

    before, after = loss(0), loss(4)
    assert after[0] < before[0]
    for old, new in zip(values(before[1]).values(), values(after[1]).values(), strict=True):
        first, second = (np.unique(weight, return_inverse=True)[1] for weight in (old, new))
        assert len({(int(a), int(b)) for a, b in zip(first.ravel(), second.ravel(), strict=True)}) <= 4


# int8


def test_round_weight_is_the_onnx_formula_and_idempotent() -> None:
    weight = torch.randn(7, 30, generator=torch.Generator().manual_seed(2))
    scale = np.abs(weight.numpy()).max(1, keepdims=True) / 127
    wanted = np.clip(np.rint(weight.numpy() / scale), -127, 127) * scale
    found = simulated.round_weight(weight, 0)
    assert np.allclose(found.numpy(), wanted, rtol=1e-6)
    assert torch.allclose(simulated.round_weight(found, 0), found, rtol=1e-6)


def test_round_input_is_torchs_fake_quantize_with_the_gradient_of_lsq_plus() -> None:
    x = (torch.randn(400, generator=torch.Generator().manual_seed(3)) * 2).requires_grad_()
    low, high = torch.tensor(-1.28, requires_grad=True), torch.tensor(1.27, requires_grad=True)
    found = simulated.round_input(x, low, high)
    wanted = torch.fake_quantize_per_tensor_affine(x.detach(), 0.01, 128, 0, 255)
    assert torch.allclose(found, wanted, atol=1e-5)
    found.sum().backward()
    inside = (x.detach() > -1.285) & (x.detach() < 1.275)  # half a step beyond the ends still rounds to them
    assert torch.equal(x.grad != 0, inside)
    # outside the range the output is its end, so the end gets their gradient; inside only rounding errors of s count
    assert float(high.grad) == pytest.approx(float((x.detach() > 1.27).sum()), abs=3)
    assert float(low.grad) == pytest.approx(float((x.detach() < -1.28).sum()), abs=3)


def test_bias_correction_takes_the_measured_shift_away(cnn: Model, tmp_path: Path) -> None:
    job = make_job(tmp_path)
    corrected = load(compress(SPECS["bias-correction"], cnn, job, bits=3))
    plain, rounded = load(cnn), load(cnn)
    items = job.data.split("calibration").inputs
    for each in (plain, rounded):
        fold_batch_norms(each, example_inputs(job))
    with torch.no_grad():
        for item in simulated.layers(rounded, example_inputs(job)):
            item.parameter.copy_(simulated.round_weight(item.parameter, item.out_dim, 3))

    def shift(module: nn.Module) -> list[float]:
        pairs = zip(
            simulated.layers(module, example_inputs(job)), simulated.layers(plain, example_inputs(job)), strict=True
        )
        return [
            float((correction.output_mean(module, a, items) - correction.output_mean(plain, b, items)).abs().max())
            for a, b in pairs
        ]

    assert max(shift(corrected)) < 1e-4
    assert max(shift(rounded)) > 0.01
    for mine, theirs in zip(*(simulated.layers(m, example_inputs(job)) for m in (corrected, rounded)), strict=True):
        assert torch.equal(mine.parameter, theirs.parameter)


def test_output_mean_is_the_mean_by_channel(tmp_path: Path) -> None:
    job, module = make_job(tmp_path, "mlp"), TinyMlp()
    items = job.data.split("calibration").inputs
    first = weights_in_order(module, example_inputs(job))[0]
    wanted = module.hidden[0](torch.from_numpy(np.array(items["row"]))).mean(0)
    assert torch.allclose(correction.output_mean(module, first, items), wanted, atol=1e-6)


def test_equalization_changes_the_ranges_and_not_the_function(cnn: Model, tmp_path: Path) -> None:
    job = make_job(tmp_path)
    result = load(compress(SPECS["weight-equalization"], cnn, job))
    assert np.allclose(outputs(result, job), outputs(load(cnn), job), atol=1e-3)
    for first, second in ((result.hidden, result.head), (result.depthwise, result.point)):
        r1 = first.weight.detach().flatten(1).abs().amax(1)
        r2 = second.weight.detach().transpose(0, 1).flatten(1).abs().amax(1)
        alive = (r1 > 0) & (r2 > 0)
        assert torch.allclose(r1[alive], r2[alive], rtol=1e-3)


def test_nothing_to_equalize_is_said(tmp_path: Path) -> None:
    job = make_job(tmp_path, "gru")
    with pytest.raises(Unsupported, match="nothing can be equalized"):
        compress(SPECS["weight-equalization"], trained(tmp_path, "gru", epochs=1), job)


def test_qat_writes_its_grid_and_beats_nothing_learned(cnn: Model, tmp_path: Path) -> None:
    job = make_job(tmp_path)
    result = compress(SPECS["qat"], cnn, job, epochs=1)
    wanted = result.precision
    assert (wanted.name, wanted.realise) == ("int8", "exact")
    found = json.loads(wanted.encodings.read_text())["layers"]
    chosen = simulated.layers(load(result), example_inputs(job))
    assert set(found) == {item.name for item in chosen}
    for item in chosen:
        assert torch.allclose(simulated.round_weight(item.parameter, item.out_dim), item.parameter, rtol=1e-5)
        low, high = found[item.name]["input"]
        scale = (high - low) / 255
        assert low / scale == pytest.approx(round(low / scale), abs=1e-6)
        assert low <= 0 < high
    started = compress(SPECS["qat"], cnn, make_job(tmp_path), epochs=0)
    before = json.loads(started.precision.encodings.read_text())["layers"]
    assert before != found


class Forked(nn.Module):
    """Two convolutions that read one tensor, as the branches of a residual block do."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.left, self.right = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1)
        self.head = nn.Linear(4, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        value = torch.relu(self.stem(image))
        return self.head((self.left(value) + self.right(value)).mean((2, 3)))


def test_layers_that_read_one_tensor_learn_one_range(cnn: Model, tmp_path: Path) -> None:
    torch.save(Forked(), tmp_path / "forked.pt")
    job, model = make_job(tmp_path), dataclasses.replace(cnn, path=tmp_path / "forked.pt")
    module = load(model)
    leaders = simulated.input_leaders(module, simulated.layers(module, example_inputs(job)), example_inputs(job))
    assert leaders["right.weight"] == leaders["left.weight"] != leaders["head.weight"]
    result = compress(SPECS["qat"], model, job, epochs=1)
    found = json.loads(result.precision.encodings.read_text())["layers"]
    assert found["left.weight"] == found["right.weight"] != found["stem.weight"]


def test_qat_keeps_zeros_of_a_pruned_model(cnn: Model, tmp_path: Path) -> None:
    module = load(cnn)
    with torch.no_grad():
        module.hidden.weight[:, ::2] = 0
    torch.save(module, tmp_path / "pruned.pt")
    sparse = dataclasses.replace(cnn.precision, storage="sparse")
    model = dataclasses.replace(cnn, path=tmp_path / "pruned.pt", precision=sparse)
    result = compress(SPECS["qat"], model, make_job(tmp_path), epochs=1)
    assert not load(result).hidden.weight[:, ::2].any()
    assert result.precision.storage == "sparse"


def test_an_empty_calibration_set_is_one_sentence(cnn: Model, tmp_path: Path) -> None:
    job = make_job(tmp_path)

    class Empty:
        def split(self, which: str) -> Split:
            split = job.data.split(which)
            return split if which != "calibration" else Split({name: x[:0] for name, x in split.inputs.items()})

    for name in ("qat", "bias-correction", "mixed-precision"):
        with pytest.raises(Unsupported, match=r"calibration split .* is empty"):
            compress(SPECS[name], cnn, dataclasses.replace(job, data=Empty()))


# binary activations


def test_binary_is_one_above_zero_with_a_clipped_gradient() -> None:
    x = torch.tensor([-2.0, -0.5, 0.0, 0.5, 2.0], requires_grad=True)
    found = binary(x)
    assert found.tolist() == [-1, -1, -1, 1, 1]
    found.sum().backward()
    assert x.grad.tolist() == [0, 1, 1, 1, 0]


def test_binary_activations_reach_the_inner_layers(cnn: Model, tmp_path: Path) -> None:
    job = make_job(tmp_path)
    result = compress(SPECS["binarization"], cnn, job, activations=True, epochs=1)
    module = load(result)
    assert (result.precision.name, result.precision.storage) == ("binary", "packed")
    assert isinstance(module.inner, BinaryConv2d)
    assert type(module.stem) is nn.Conv2d
    seen: list[torch.Tensor] = []
    module.inner.register_forward_hook(lambda layer, given, output: seen.extend([given[0], output]))
    call(module, job.data.split("selection").inputs)
    signs = torch.where(seen[0] > 0, 1.0, -1.0)
    assert torch.allclose(nn.functional.conv2d(signs, module.inner.weight, padding=1), seen[1], atol=1e-4)


# what is refused before anything runs


@pytest.mark.parametrize(
    ("name", "given", "words"),
    [
        ("weight-only", {"bits": "3"}, "one of 8, 4"),
        ("codebook", {"bits": "0"}, "1 <= x <= 8"),
        ("codebook", {"buckets": "median"}, "kmeans, uniform, kl"),
        ("fixed-point", {"bits": "1"}, "2 <= x <= 16"),
        ("fixed-point", {"grid": "unit", "fraction": "3"}, "leave out fraction"),
        ("fixed-binary", {"fraction": "0"}, "at least 2"),
        ("ternary", {"threshold": "0"}, "0 < x"),
        ("qat", {"samples": "0"}, "1 <= x"),
        ("qat", {"lr": "0"}, "0 < x"),
        ("bias-correction", {"bits": "1"}, "2 <= x <= 8"),
    ],
)
def test_bad_parameters_are_one_sentence(name: str, given: dict[str, str], words: str) -> None:
    with pytest.raises(PlanError) as caught:
        choose(REGISTRY, "method", Step(name, given))
    assert words in caught.value.message
    assert "\n" not in caught.value.message


REGISTRY = load_registry()


@pytest.mark.parametrize("name", sorted(SPECS))
def test_every_method_explains_itself(name: str) -> None:
    from click.testing import CliRunner

    from harness.cli.main import cli

    done = CliRunner().invoke(cli, ["methods", name])
    assert done.exit_code == 0, done.output
    assert SPECS[name].summary in done.output
