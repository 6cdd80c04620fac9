"""Decomposition against truncated spectra, restructuring against the function that it must keep."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from jobs import TinyCnn, TinyGru, TinyTransformer, compress, make_job, trained
from torch import nn

import harness_decomposition
from harness.api import Model, Options, Unsupported
from harness_decomposition.convolutions import (
    CpParams,
    _tensorly,
    cp,
    cp_parts,
    cp_rank,
    explained,
    tucker,
    tucker_parts,
    tucker_ranks,
)
from harness_decomposition.lowrank import factored, split
from harness_decomposition.ranks import RankParams, by_energy, in_vectors, smaller
from harness_onnx import export
from harness_torch import call, load, macs, parameters
from harness_torch.flow import fold_batch_norms
from harness_torch.replacing import replace_layers

SPECS = {spec.name: spec for spec in harness_decomposition.harness_methods()}
IMAGE = (torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0)),)


def _matrix(rows: int, columns: int, rank: int) -> torch.Tensor:
    torch.manual_seed(rank)
    return torch.randn(rows, rank) @ torch.randn(rank, columns)


@pytest.mark.parametrize("rank", [1, 3, 8])
def test_the_error_of_svd_is_the_tail_of_the_spectrum(rank: int) -> None:
    torch.manual_seed(0)
    weight = torch.randn(40, 60)
    parts = split(weight, RankParams(rank=rank), 1)
    assert parts is not None
    left = np.linalg.svd(weight.double().numpy(), compute_uv=False)[rank:]
    error = (weight - parts[0] @ parts[1]).norm().item()
    assert error == pytest.approx(np.sqrt((left**2).sum()), rel=1e-5)


def test_rank_by_energy_is_numpys() -> None:
    values = np.linalg.svd(np.random.default_rng(0).normal(size=(30, 50)), compute_uv=False)
    shares = np.cumsum(values**2) / (values**2).sum()
    for energy in (0.1, 0.5, 0.9, 0.999):
        assert by_energy(torch.from_numpy(values), energy) == int(np.searchsorted(shares, energy)) + 1
    assert by_energy(torch.from_numpy(values), 1.0) == 30
    assert by_energy(torch.tensor([3.0, 0.0, 0.0]), 1.0) == 1


@pytest.mark.parametrize(
    ("rank", "multiple", "most", "expected"), [(5, 4, 64, 4), (6, 4, 64, 8), (1, 8, 64, 8), (30, 8, 20, 20)]
)
def test_ranks_fill_whole_vectors(rank: int, multiple: int, most: int, expected: int) -> None:
    assert in_vectors(rank, multiple, most) == expected


def test_only_what_is_smaller_is_taken() -> None:
    assert smaller(10, 1, 64, 30, 301) == 10
    assert smaller(11, 1, 64, 30, 301) is None
    assert smaller(10, 4, 64, 30, 301) == 8  # 12 would not be smaller
    assert smaller(10, 16, 64, 30, 301) is None
    assert factored(nn.Linear(8, 8), RankParams(rank=3)) is not None
    assert factored(nn.Linear(8, 8), RankParams(rank=4)) is None
    assert factored(nn.Linear(2, 2), RankParams(rank=1)) is None


@pytest.mark.parametrize("budget", [0.2, 0.5, 0.9])
def test_a_budget_of_parameters_is_kept(budget: float) -> None:
    torch.manual_seed(0)
    linear, conv = nn.Linear(96, 64, bias=False), nn.Conv2d(32, 48, 3, padding=1, bias=False)
    small = factored(linear, RankParams(budget=budget))
    with _tensorly(1):
        chains = [tucker(conv, RankParams(budget=budget)), cp(conv, CpParams(budget=budget, iterations=3))]
    for layer, made in ((linear, small), *((conv, chain) for chain in chains)):
        assert made is not None
        assert 0.8 * budget < parameters(made) / parameters(layer) <= budget


@pytest.mark.parametrize(
    "layer",
    [nn.Linear(24, 20), nn.Conv2d(24, 20, 1, stride=2), nn.Conv1d(24, 20, 1, bias=False)],
    ids=["linear", "pointwise", "pointwise-1d"],
)
def test_a_layer_of_low_rank_is_kept_exactly(layer: Any) -> None:
    with torch.no_grad():
        layer.weight.copy_(_matrix(20, 24, 4).view(layer.weight.shape))
    made = factored(layer, RankParams(energy=0.99999))
    assert made is not None
    assert made[0].weight.shape[0] == 4
    shape = {nn.Linear: (3, 24), nn.Conv2d: (3, 24, 6, 6), nn.Conv1d: (3, 24, 6)}[type(layer)]
    x = torch.randn(*shape)
    assert torch.allclose(made(x), layer(x), atol=1e-4)


@pytest.mark.parametrize("kind", [nn.GRU, nn.LSTM, nn.RNN])
@pytest.mark.parametrize(
    "options", [{}, {"num_layers": 2}, {"num_layers": 2, "bidirectional": True}, {"batch_first": False}]
)
def test_recurrent_layers_of_low_rank_are_kept_exactly(kind: Any, options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    layer = kind(40, 12, **({"batch_first": True} | options)).eval()
    with torch.no_grad():
        for i in range(layer.num_layers):
            names = [name for name, _ in layer.named_parameters() if name.startswith(f"weight_ih_l{i}")]
            rows = [getattr(layer, name) for name in names]
            joint = _matrix(sum(len(row) for row in rows), rows[0].shape[1], 3) / 10
            for row, value in zip(rows, joint.split([len(row) for row in rows]), strict=True):
                row.copy_(value)
    made = factored(layer, RankParams(rank=3)).eval()
    x = torch.randn(5, 7, 40)
    state = torch.randn(layer.num_layers * (2 if layer.bidirectional else 1), 5 if layer.batch_first else 7, 12)
    start = (state, state) if kind is nn.LSTM else state
    for given in (None, start):
        expected, end = layer(x, given)
        found, last = made(x, given)
        assert torch.allclose(found, expected, atol=1e-5)
        for a, b in zip(last if kind is nn.LSTM else (last,), end if kind is nn.LSTM else (end,), strict=True):
            assert torch.allclose(a, b, atol=1e-5)
    assert parameters(made) < parameters(layer)


@pytest.mark.parametrize(("out", "into"), [(4, 4), (10, 3), (20, 5), (6, 16)])
def test_the_error_of_tucker_lies_within_the_truncated_spectra(out: int, into: int) -> None:
    torch.manual_seed(0)
    weight = torch.randn(20, 16, 3, 3).double()
    with _tensorly(1):
        core, reduce, expand = tucker_parts(weight, out, into)
    reduce, expand = (torch.eye(core.shape[d]).double() if f is None else f for d, f in ((1, reduce), (0, expand)))
    again = torch.einsum("abhw,ib,oa->oihw", core, reduce, expand)
    error = float((weight - again).square().sum())
    unfolded = [weight.movedim(mode, 0).flatten(1).numpy() for mode in (0, 1)]
    tails = [
        (np.linalg.svd(matrix, compute_uv=False)[rank:] ** 2).sum()
        for matrix, rank in zip(unfolded, (out, into), strict=True)
    ]  # each mode alone loses its tail at least; both together lose no more than the sum (De Lathauwer et al., 2000)
    assert max(tails) * (1 - 1e-9) <= error <= sum(tails) * (1 + 1e-9) + 1e-12


def test_tucker_ranks_by_energy_are_those_of_each_unfolding() -> None:
    torch.manual_seed(0)
    weight = torch.einsum("oa,ib,abhw->oihw", torch.randn(24, 5), torch.randn(16, 3), torch.randn(5, 3, 3, 3))
    assert tucker_ranks(weight, RankParams(energy=0.999999), 1) == (5, 3)
    assert tucker_ranks(weight, RankParams(energy=0.999999), 4) == (4, 4)


@pytest.mark.parametrize(
    "options",
    [{}, {"stride": 2, "padding": 1}, {"dilation": 2}, {"bias": False}, {"padding": 1, "padding_mode": "reflect"}],
)
@pytest.mark.parametrize("method", ["tucker", "cp"])
def test_a_convolution_of_low_rank_is_kept(method: str, options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(24, 32, 3, **options)
    with torch.no_grad():
        if method == "tucker":
            kernel = torch.einsum("oa,ib,abhw->oihw", torch.randn(32, 4), torch.randn(24, 3), torch.randn(4, 3, 3, 3))
        else:
            kernel = torch.einsum("or,ir,rhw->oihw", torch.randn(32, 3), torch.randn(24, 3), torch.randn(3, 3, 3))
        layer.weight.copy_(kernel / 20)
    with _tensorly(1):
        made = tucker(layer, RankParams(energy=0.999999)) if method == "tucker" else cp(layer, CpParams(rank=3))
    assert made is not None
    x = torch.randn(2, 24, 9, 9)
    assert made(x).shape == layer(x).shape
    assert (made(x) - layer(x)).norm() < (1e-4 if method == "tucker" else 2e-2) * layer(x).norm()
    assert parameters(made) < 0.2 * parameters(layer)
    assert macs(made, (x,)) < macs(layer, (x,))


def test_more_components_come_closer_and_share_their_norm() -> None:
    torch.manual_seed(0)
    weight = torch.randn(12, 10, 3, 3).double()
    errors = []
    with _tensorly(1):
        for rank in (2, 8, 32):
            out, into, kernel = cp_parts(weight, rank)
            assert torch.allclose(out.norm(dim=0), into.norm(dim=0))
            assert torch.allclose(out.norm(dim=0), kernel.norm(dim=0))
            again = torch.einsum("or,ir,pr->oip", out, into, kernel)
            errors.append(float((again - weight.flatten(2)).norm()))
    assert errors == sorted(errors, reverse=True)


def test_one_component_is_the_best_rank_one_tensor() -> None:
    torch.manual_seed(0)
    weight = torch.einsum("o,i,p->oip", torch.randn(6), torch.randn(5), torch.randn(9)).view(6, 5, 3, 3).double()
    with _tensorly(1):
        out, into, kernel = cp_parts(weight, 1)
    assert torch.allclose(torch.einsum("or,ir,pr->oip", out, into, kernel), weight.flatten(2), atol=1e-8)


def test_a_chain_with_more_products_is_not_taken() -> None:
    layer = nn.Conv2d(64, 64, 3, stride=3, padding=1)
    with _tensorly(1):
        assert tucker(layer, RankParams(rank=48)) is None  # 27k of 37k weights, but the first 1x1 runs on all places
        assert tucker(nn.Conv2d(64, 64, 3, padding=1), RankParams(rank=48)) is not None
        assert tucker(nn.Conv2d(8, 8, 3, groups=8), RankParams(rank=2)) is None
        assert cp(nn.Conv2d(3, 8, 1), CpParams(rank=2)) is None


def test_ranks_at_which_nothing_is_smaller_are_refused(tmp_path: Path) -> None:
    model = trained(tmp_path, epochs=1)
    for name in ("low-rank", "tucker"):
        with pytest.raises(Unsupported, match=f"^{name} found no layer that it would make smaller"):
            compress(SPECS[name], model, make_job(tmp_path), energy=1.0, epochs=0)
    with pytest.raises(Unsupported, match="found no layer"):
        compress(SPECS["cp"], model, make_job(tmp_path, channel_multiple=64), epochs=0)


@pytest.mark.parametrize(("name", "asked"), [("low-rank", {"budget": 0.5}), ("tucker", {"budget": 0.5}), ("cp", {})])
def test_models_get_smaller(name: str, asked: dict[str, Any], tmp_path: Path) -> None:
    model = trained(tmp_path, epochs=1)
    small = load(compress(SPECS[name], model, make_job(tmp_path), epochs=1, **asked))
    assert parameters(small) < parameters(load(model))
    assert macs(small, IMAGE) < macs(load(model), IMAGE)
    kinds = {type(layer).__module__.split(".")[0] for layer in small.modules()} - {"jobs"}
    assert kinds == {"torch"}


def test_a_transformers_layers_are_replaced_where_torch_calls_them(tmp_path: Path) -> None:
    model = trained(tmp_path, "transformer", epochs=1)
    small = load(compress(SPECS["low-rank"], model, make_job(tmp_path, "transformer"), budget=0.5, epochs=1))
    assert isinstance(small.layers.layers[0].linear1, nn.Sequential)
    assert isinstance(small.layers.layers[0].self_attn, nn.MultiheadAttention)
    assert small(*IMAGE).shape == (2, 10)


def test_a_shared_layer_stays_shared() -> None:
    shared = nn.Linear(32, 32)
    module = nn.Sequential(shared, nn.ReLU(), nn.Sequential(shared))
    names = replace_layers(module, lambda _name, layer: factored(layer, RankParams(rank=2)))
    assert names == ("0",)
    assert module[0] is module[2][0]


def test_a_model_that_reads_a_layers_weight_is_refused(tmp_path: Path) -> None:
    job = make_job(tmp_path)
    torch.save(_Reader(), tmp_path / "reader.pt")
    model = Model("torch", tmp_path / "reader.pt", job.workload.inputs, job.workload.outputs)
    with pytest.raises(Unsupported, match="no longer runs: its code uses a layer's parts"):
        compress(SPECS["low-rank"], model, job, rank=2, epochs=0)


class _Reader(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(64, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(image.flatten(1), self.head.weight)


def _settled(module: nn.Module) -> nn.Module:
    """Give batch normalisation statistics and scales that matter."""
    torch.manual_seed(0)
    for layer in module.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            nn.init.normal_(layer.weight, 1, 0.3)
            nn.init.normal_(layer.bias)
            layer.running_mean.normal_()
            layer.running_var.uniform_(0.5, 2)
    return module.eval()


class _Shared(nn.Module):
    """The convolution's result is read twice, so that its normalisation cannot go."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        value = self.conv(image)
        return self.norm(value) + value


@pytest.mark.parametrize(
    ("module", "x", "gone"),
    [
        (TinyCnn(), IMAGE[0], {"norm", "inner_norm"}),
        (nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.ReLU()), torch.randn(3, 6), {"1"}),
        (nn.Sequential(nn.ConvTranspose2d(1, 4, 3), nn.BatchNorm2d(4)), IMAGE[0], {"1"}),
        (nn.Sequential(nn.Linear(8, 4), nn.BatchNorm1d(8)), IMAGE[0][:, 0], set()),
        (nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.BatchNorm2d(4)), IMAGE[0], set()),
        (_Shared(), IMAGE[0], set()),
    ],
    ids=["cnn", "linear", "transposed", "other-dimension", "relu-between", "read-twice"],
)
def test_folding_keeps_the_function(module: nn.Module, x: torch.Tensor, gone: set[str]) -> None:
    before = _settled(module)(x)
    assert set(fold_batch_norms(module, (x,))) == gone
    assert torch.allclose(module(x), before, atol=1e-4)
    left = [name for name, layer in module.named_modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
    assert not gone & set(left)


def test_folding_says_when_there_is_nothing_or_no_way(tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match="found no batch normalisation"):
        compress(SPECS["batchnorm-folding"], trained(tmp_path, "gru", epochs=1), make_job(tmp_path, "gru"))

    class Branching(nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return image if image.sum() > 0 else -image

    assert fold_batch_norms(Branching(), (IMAGE[0],)) == ()


def _macs_of_file(path: Path) -> tuple[int, int]:
    """Weights and multiply-accumulates of a file, from its initializers and onnx's own shape inference."""
    onnx = pytest.importorskip("onnx")
    graph = onnx.shape_inference.infer_shapes(onnx.load(path)).graph
    sizes = {item.name: list(item.dims) for item in graph.initializer}
    shapes = {
        value.name: [item.dim_value or 1 for item in value.type.tensor_type.shape.dim]
        for value in [*graph.value_info, *graph.output]
    }
    weights, total = set(), 0
    for node in graph.node:
        if node.op_type in {"Conv", "Gemm"}:
            weights |= {name for name in node.input[1:] if name in sizes}
            per = np.prod(sizes[node.input[1]][1:]) * np.prod(shapes[node.output[0]])
            total += int(per if node.op_type == "Conv" else np.prod(sizes[node.input[1]]))
    return sum(int(np.prod(sizes[name])) for name in weights), total


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("tucker", {"budget": 0.4}),
        pytest.param("low-rank", {"budget": 0.5}, marks=pytest.mark.slow),
        pytest.param("cp", {}, marks=pytest.mark.slow),
    ],
)
def test_the_file_holds_what_is_counted_and_computes_the_same(name: str, asked: dict[str, Any], tmp_path: Path) -> None:
    ort = pytest.importorskip("onnxruntime")
    small = compress(SPECS[name], trained(tmp_path, epochs=1), make_job(tmp_path), epochs=0, **asked)
    folded = compress(SPECS["batchnorm-folding"], small, make_job(tmp_path))
    exported = export(folded, Options(), dataclasses.replace(make_job(tmp_path), out=tmp_path))
    module = load(folded)
    assert _macs_of_file(exported.path) == (parameters(module), macs(module, (IMAGE[0][:1],)))
    inputs = make_job(tmp_path).data.split("selection").inputs
    found = ort.InferenceSession(str(exported.path)).run(None, dict(inputs))[0]
    assert np.allclose(found, call(module, inputs)["output0"], atol=1e-4)


@pytest.mark.slow
def test_a_gru_behind_a_narrow_layer_is_still_one_operator(tmp_path: Path) -> None:
    onnx, ort = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    job = make_job(tmp_path, "gru")
    module = TinyGru(width=16, layers=2).eval()
    replace_layers(module, lambda _name, layer: factored(layer, RankParams(budget=0.6)))
    torch.save(module, tmp_path / "gru.pt")
    model = Model("torch", tmp_path / "gru.pt", job.workload.inputs, job.workload.outputs)
    exported = export(model, Options(), dataclasses.replace(job, out=tmp_path))
    assert [node.op_type for node in onnx.load(exported.path).graph.node].count("GRU") == 2
    inputs = job.data.split("selection").inputs
    found = ort.InferenceSession(str(exported.path)).run(None, dict(inputs))[0]
    assert np.allclose(found, call(module, inputs)["output0"], atol=1e-4)


def test_attention_of_torch_keeps_its_inside() -> None:
    module = TinyTransformer().eval()
    names = replace_layers(module, lambda _name, layer: factored(layer, RankParams(rank=1)))
    assert not [name for name in names if "out_proj" in name]


def _of_rank(out: int, into: int, places: int, rank: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(rank)
    factors = [torch.randn(size, rank, generator=generator, dtype=torch.float64) for size in (out, into, places)]
    return torch.einsum("or,ir,pr->oip", *factors).reshape(out, into, 3, places // 3)


def test_the_rank_of_cp_by_energy_is_that_of_a_kernel_made_of_so_many_components() -> None:
    weight = _of_rank(12, 10, 9, 3)
    with _tensorly(1):
        assert cp_rank(weight, 0.999, 8) == 3
        few = cp_rank(weight, 0.5, 8)
        assert few < 3
        assert explained(weight, cp_parts(weight, few)) >= 0.5
        noise = torch.randn(12, 10, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        assert cp_rank(noise, 0.99, 4) == 5  # more than may be
        numpys = np.einsum("or,ir,pr->oip", *(item.numpy() for item in cp_parts(noise, 4)))
        error = np.square(noise.flatten(2).numpy() - numpys).sum() / np.square(noise.numpy()).sum()
        assert explained(noise, cp_parts(noise, 4)) == pytest.approx(1 - error)
        layer = nn.Conv2d(10, 12, 3, bias=False)
        layer.weight = nn.Parameter(weight.float())
        made = cp(layer, CpParams(energy=0.999))
    assert made is not None
    assert made[1].groups == 3
    assert parameters(made) == 3 * (12 + 10 + 9)


def test_cp_takes_one_way_to_say_how_many_components() -> None:
    check = SPECS["cp"].check
    assert check is not None
    assert "budget and energy each say" in str(check(CpParams(budget=0.2, energy=0.5)))
    assert "rank and energy each say" in str(check(CpParams(rank=2, energy=0.5)))
    assert check(CpParams(energy=0.5)) is None
