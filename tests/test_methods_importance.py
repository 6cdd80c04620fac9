"""Importance of channels and heads against closed forms, and their removal against silencing them by hand."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from jobs import TinyCnn, TinyGru, TinyMlp, TinyTransformer, compress, make_job, trained
from scipy import stats
from torch import nn

import harness_pruning
from harness.api import Model, Options, Unsupported
from harness.plugins import load_registry
from harness_onnx import export
from harness_pruning import heads
from harness_pruning.channels import FILTERS, UNITS, Params, allocate, prune
from harness_pruning.graph import Groups
from harness_pruning.importance import Evidence, gather, snr
from harness_torch import example_inputs, load, macs, parameters
from harness_torch.attention import HeadAttention

SPECS = {spec.name: spec for spec in harness_pruning.harness_methods()}
IMAGE = (torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0)),)


def _scores(module: nn.Module, inputs: Any, evidence: Evidence, **options: Any) -> dict[str, np.ndarray]:
    groups = Groups(module, inputs)
    found = {groups.name(group): groups.scores(group, evidence, **options) for group in groups.prunable()}
    return {name: value.detach().numpy() for name, value in found.items()}


@pytest.mark.parametrize("importance", ["l1", "l2", "linf"])
def test_norms_are_numpys_over_all_coupled_weights(importance: str) -> None:
    torch.manual_seed(0)
    module = TinyMlp()
    found = _scores(module, (torch.randn(2, 10),), Evidence(importance))["hidden.1"]
    rows, columns = (layer.weight.detach().numpy() for layer in (module.hidden[1], module.head))
    both = np.concatenate([rows, columns.T], axis=1)  # all weights that go with a unit
    order = {"l1": 1, "l2": 2, "linf": np.inf}[importance]
    assert found == pytest.approx(np.linalg.norm(both, order, axis=1), rel=1e-5)


def test_a_filter_is_ranked_by_itself() -> None:
    torch.manual_seed(0)
    module = TinyCnn()
    found = _scores(module, IMAGE, Evidence("l1"), own=True)["point"]
    assert found == pytest.approx(np.abs(module.point.weight.detach().numpy()).sum((1, 2, 3)), rel=1e-5)


def test_taylor_and_gradient_are_those_of_a_linear_layer_by_hand(tmp_path: Path) -> None:
    job = make_job(tmp_path, "mlp")
    torch.manual_seed(0)
    module = TinyMlp(width=8, depth=2)  # hidden.0: 10 -> 8 with ReLU, head: 8 -> 1
    split = job.data.split("train")
    x, y = split.inputs["row"][:256].astype(np.float64), split.labels[:256].astype(np.float64)
    w, b = (value.detach().numpy().astype(np.float64) for value in (module.hidden[0].weight, module.hidden[0].bias))
    v, c = (value.detach().numpy().astype(np.float64) for value in (module.head.weight, module.head.bias))
    z = x @ w.T + b
    h = np.maximum(z, 0)
    slope = 2 * (h @ v.T + c - y[:, None])  # of the squared error of each item
    batches = [slice(start, start + 16) for start in range(0, 256, 16)]
    dv = np.mean([np.abs(slope[at].T @ h[at] / 16) for at in batches], axis=0)
    dw = np.mean([np.abs(((slope[at] @ v) * (z[at] > 0)).T @ x[at] / 16) for at in batches], axis=0)
    expected = {
        "taylor": np.abs(w * dw).sum(1) + np.abs(v * dv)[0],
        "gradient": (np.abs(dw) / np.linalg.norm(dw)).sum(1) + (np.abs(dv) / np.linalg.norm(dv))[0],
    }
    for importance, values in expected.items():
        found = _scores(module, (torch.randn(2, 10),), gather(module, importance, job))["hidden.0"]
        assert found == pytest.approx(values, rel=1e-4), importance


def test_the_response_is_what_labels_explain_over_the_rest(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    classes = rng.integers(0, 4, 90)
    values = rng.normal(size=(90, 3)) + np.outer(classes, [0.0, 0.5, 2.0])
    maps = torch.from_numpy(np.repeat(values[:, :, None], 5, 2)).view(90, 3, 5, 1)
    found = snr(maps, torch.from_numpy(classes), 1).numpy()
    for channel in range(3):  # the F statistic is this ratio times its degrees of freedom
        groups = [values[classes == k, channel] for k in range(4)]
        f = stats.f_oneway(*groups).statistic
        assert found[channel] == pytest.approx(f * (4 - 1) / (90 - 4), rel=1e-5)
    target = rng.normal(size=90)
    found = snr(maps, torch.from_numpy(target), 1).numpy()
    for channel in range(3):
        square = stats.pearsonr(target, values[:, channel]).statistic ** 2
        assert found[channel] == pytest.approx(square / (1 - square), rel=1e-4)


def test_every_layer_is_ranked_by_its_own_response(tmp_path: Path) -> None:
    job = make_job(tmp_path, "mlp")
    torch.manual_seed(0)
    module = TinyMlp(width=8, depth=2)
    split = job.data.split("train")
    z = torch.from_numpy(split.inputs["row"][:256]) @ module.hidden[0].weight.T + module.hidden[0].bias
    found = _scores(module, (torch.randn(2, 10),), gather(module, "snr", job))["hidden.0"]
    assert found == pytest.approx(snr(z, torch.from_numpy(split.labels[:256].copy()), -1).numpy(), rel=1e-4)


def test_a_gate_counts_all_its_rows_and_all_that_reads_the_state() -> None:
    torch.manual_seed(0)
    module = TinyGru()
    found = _scores(module, IMAGE, Evidence("l1"))["gru"]
    read, state = (np.abs(getattr(module.gru, f"weight_{name}_l0").detach().numpy()) for name in ("ih", "hh"))
    head = np.abs(module.head.weight.detach().numpy())
    rows = sum(part.reshape(3, 16, -1).sum((0, 2)) for part in (read, state))
    assert found == pytest.approx(rows + state.sum(0) + head.sum(0), rel=1e-5)


@pytest.mark.parametrize("importance", ["l1", "l2", "linf", "snr", "gradient", "taylor", "random"])
def test_every_criterion_leaves_the_same_shapes(importance: str, taught: Model, tmp_path: Path) -> None:
    results = [
        load(compress(SPECS[name], taught, make_job(tmp_path), importance=importance, epochs=0))
        for name in ("channel-pruning", "filter-pruning")
    ]
    assert [macs(module, IMAGE) for module in results] == [32752, 33760]


def test_filters_and_units_are_told_apart() -> None:
    module, other = TinyCnn().eval(), TinyCnn().eval()
    assert set(prune(module, IMAGE, 0.5, scope=UNITS)) == {"hidden"}
    assert "hidden" not in prune(other, IMAGE, 0.5, scope=FILTERS)
    assert other.hidden.out_features == 24
    assert set(prune(TinyGru(), IMAGE, 0.5, scope=UNITS)) == {"gru"}


def test_a_global_ranking_takes_the_least_of_all_layers() -> None:
    strong, weak = torch.linspace(0.9, 1.1, 20), torch.cat([torch.full((10,), 0.1), torch.full((10,), 1.9)])
    stay = allocate({"a": strong, "b": weak}, 0.25, 1, method="x", everywhere=True)
    assert stay == {"a": 20, "b": 10}  # both have mean 1: the ten of 0.1 are the least of all forty
    rounded = allocate({"a": strong, "b": weak}, 0.25, 8, method="x", everywhere=True)
    assert rounded == {"a": 20, "b": 8}
    scores = {"a": torch.ones(20), "b": torch.cat([torch.zeros(19), torch.ones(1)])}
    floor = allocate(scores, 0.45, 1, method="x", everywhere=True)
    assert floor["b"] == 2  # a tenth


def test_global_allocation_removes_about_the_share(tmp_path: Path) -> None:
    model = trained(tmp_path, epochs=1)
    even = load(compress(SPECS["channel-pruning"], model, make_job(tmp_path), epochs=0))
    ranked = load(compress(SPECS["channel-pruning"], model, make_job(tmp_path), epochs=0, allocation="global"))

    def widths(module: Any) -> list[int]:
        return [module.stem.out_channels, module.point.out_channels, module.hidden.out_features]

    assert sum(widths(even)) == sum(widths(ranked)) == 24


def _other_attention() -> nn.MultiheadAttention:
    torch.manual_seed(0)
    return nn.MultiheadAttention(16, 4, kdim=12, vdim=10, batch_first=True).eval()


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_attention_written_out_is_torchs(bias: bool, batch_first: bool) -> None:
    torch.manual_seed(0)
    layer = nn.MultiheadAttention(16, 4, bias=bias, batch_first=batch_first).eval()
    if bias:
        nn.init.normal_(layer.in_proj_bias)
        nn.init.normal_(layer.out_proj.bias)
    x = torch.randn(5, 7, 16)
    steps = 7 if batch_first else 5
    causal = torch.triu(torch.ones(steps, steps, dtype=torch.bool), 1)
    padding = torch.zeros(5 if batch_first else 7, steps, dtype=torch.bool)
    padding[:, -1] = True
    made = HeadAttention.of(layer)
    for masks in ({}, {"attn_mask": causal}, {"key_padding_mask": padding}):
        assert torch.allclose(made(x, x, x, **masks)[0], layer(x, x, x, **masks)[0], atol=1e-5)


def test_attention_over_other_tokens_is_torchs_too() -> None:
    layer = _other_attention()
    query, key, value = torch.randn(2, 5, 16), torch.randn(2, 7, 12), torch.randn(2, 7, 10)
    assert torch.allclose(HeadAttention.of(layer)(query, key, value)[0], layer(query, key, value)[0], atol=1e-5)


def test_removal_equals_silencing_of_heads(tmp_path: Path) -> None:
    torch.manual_seed(0)
    small, masked = TinyTransformer().eval(), TinyTransformer().eval()
    masked.load_state_dict(small.state_dict())
    removed = heads.remove_heads(small, IMAGE, Params(importance="l1"), make_job(tmp_path, "transformer"))
    assert {name: len(gone) for name, gone in removed.items()} == {
        "layers.layers.0.self_attn": 1,
        "layers.layers.1.self_attn": 1,
    }
    with torch.no_grad():
        for i, layer in enumerate(masked.layers.layers):
            (head,) = removed[f"layers.layers.{i}.self_attn"]
            layer.self_attn.out_proj.weight[:, 8 * head : 8 * head + 8] = 0
    assert torch.allclose(small(*IMAGE), masked(*IMAGE), atol=1e-5)
    assert parameters(small) < parameters(masked)


@pytest.mark.parametrize("importance", ["l1", "l2", "linf", "taylor", "gradient", "snr", "random"])
def test_scores_of_heads(importance: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    job = make_job(tmp_path, "transformer")
    module = TinyTransformer().eval()
    heads.written_out(module)
    (first, _second) = heads.attentions(module)
    evidence = gather(module, importance, job)
    ratios = heads._ratios(module, {first.name: first}, job) if importance == "snr" else {}
    found = first.scores(evidence, ratios)
    assert found.shape == (2,)
    layer = first.layer
    parts = [getattr(layer, name).weight.detach() for name in ("query", "key", "value")]
    parts.append(layer.out.weight.detach().T)
    rows = torch.cat(parts, dim=1).view(2, -1)
    if importance in {"l1", "l2", "linf"}:
        order = {"l1": 1, "l2": 2, "linf": float("inf")}[importance]
        assert torch.allclose(found, torch.linalg.vector_norm(rows, order, dim=1), rtol=1e-5)


def test_heads_fill_whole_vectors_and_one_is_left(tmp_path: Path) -> None:
    model = trained(tmp_path, "transformer", epochs=1)
    with pytest.raises(Unsupported, match="rounds back to a multiple of 16"):
        compress(SPECS["head-pruning"], model, make_job(tmp_path, "transformer", channel_multiple=16), epochs=0)
    with pytest.raises(Unsupported, match="would leave none of the 2 heads of layer 'layers"):
        compress(SPECS["head-pruning"], model, make_job(tmp_path, "transformer"), epochs=0, ratio=0.8)


def test_heads_of_the_workloads_own_attention() -> None:
    spec = load_registry(only={"workloads"}).workloads["glyphs-transformer"].spec
    torch.manual_seed(0)
    module = spec.model(spec.params(), width=1.0, depth=1.0).eval()
    inputs = example_inputs(spec.inputs(spec.params()), 2)
    shape, before = module(*inputs).shape, macs(module, inputs)
    job: Any = dataclasses.make_dataclass("J", ["hardware"])(dataclasses.make_dataclass("H", ["channel_multiple"])(8))
    removed = heads.remove_heads(module, inputs, Params(), job)
    assert [len(gone) for gone in removed.values()] == [2, 2, 2]
    assert module(*inputs).shape == shape
    assert macs(module, inputs) < before


def test_what_is_left_after_heads_can_lose_channels_too(tmp_path: Path) -> None:
    model = trained(tmp_path, "transformer", epochs=1)
    once = compress(SPECS["head-pruning"], model, make_job(tmp_path, "transformer"), epochs=0)
    twice = load(compress(SPECS["channel-pruning"], once, make_job(tmp_path, "transformer"), epochs=0))
    assert parameters(twice) < parameters(load(once)) < parameters(load(model))


@pytest.mark.parametrize(
    "name",
    ["channel-pruning", *(pytest.param(name, marks=pytest.mark.slow) for name in ("filter-pruning", "unit-pruning"))],
)
def test_counts_are_those_of_the_file_by_another_tool(name: str, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    model = trained(tmp_path, epochs=1)
    small = compress(SPECS[name], model, make_job(tmp_path), epochs=0)
    from harness_decomposition.folding import compress as fold

    folded = fold(small, None, make_job(tmp_path))  # as the exporter does, so that both count the same tensors
    module = load(folded)
    exported = export(folded, Options(), dataclasses.replace(make_job(tmp_path), out=tmp_path))
    graph = onnx.shape_inference.infer_shapes(onnx.load(exported.path)).graph
    sizes = {item.name: list(item.dims) for item in graph.initializer}
    used = {name for node in graph.node if node.op_type in {"Conv", "Gemm", "MatMul"} for name in node.input[1:]}
    assert sum(int(np.prod(sizes[item])) for item in used if item in sizes) == parameters(module)
    assert _file_macs(graph, sizes) == macs(module, (IMAGE[0][:1],))


def _file_macs(graph: Any, sizes: dict[str, list[int]]) -> int:
    shapes = {
        value.name: [item.dim_value or 1 for item in value.type.tensor_type.shape.dim]
        for value in [*graph.value_info, *graph.output, *graph.input]
    }
    total = 0
    for node in graph.node:
        if node.op_type == "Conv":
            total += int(np.prod(shapes[node.output[0]]) * np.prod(sizes[node.input[1]][1:]))
        elif node.op_type in {"Gemm", "MatMul"}:
            total += int(np.prod(sizes[node.input[1]]))
    return total


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return trained(tmp_path_factory.mktemp("taught"), epochs=3)


def test_a_small_network_comes_closer_to_the_dense_one_that_teaches_it(taught: Model, tmp_path: Path) -> None:
    from harness_torch import call

    inputs = make_job(tmp_path).data.split("selection").inputs
    dense = call(load(taught), inputs)["output0"]

    def away(**asked: Any) -> float:
        result = compress(SPECS["channel-pruning"], taught, make_job(tmp_path), epochs=6, **asked)
        return float(np.abs(call(load(result), inputs)["output0"] - dense).mean())

    assert away(distill=1.0, T=2.0) < away()


class Joint(nn.Module):
    """Attention with one layer for queries, keys and values, in either order of rows; with something more if asked."""

    def __init__(self, width: int = 16, heads: int = 4, *, by_head: bool = False, more: str = "", bias: bool = True):
        super().__init__()
        self.num_heads, self.by_head, self.more = heads, by_head, more
        self.qkv, self.proj = nn.Linear(width, 3 * width, bias=bias), nn.Linear(width, width)

    def forward(self, tokens: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        sizes = (self.num_heads, 3, -1) if self.by_head else (3, self.num_heads, -1)
        joint = self.qkv(tokens).unflatten(-1, sizes)
        query, key, value = (part.transpose(1, 2) for part in joint.unbind(-2 if self.by_head else -3))
        if self.more == "norm":
            query = nn.functional.normalize(query, dim=-1)
        made = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return self.proj(made.transpose(1, 2).reshape(tokens.shape))


class JointNet(nn.Module):
    def __init__(self, **how: Any) -> None:
        super().__init__()
        self.embed, self.attention, self.head = nn.Linear(8, 16), Joint(**how), nn.Linear(16, 10)
        self.masked = how.get("more") == "mask"

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        tokens = self.embed(image.squeeze(1))
        mask = torch.ones(8, 8, dtype=torch.bool) if self.masked else None
        return self.head(self.attention(tokens, mask).mean(1) if self.masked else self.attention(tokens).mean(1))


@pytest.mark.parametrize("by_head", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_heads_of_one_joint_layer_leave_as_if_they_had_been_silent(by_head: bool, bias: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = JointNet(by_head=by_head, bias=bias).eval()
    inputs = (torch.randn(3, 1, 8, 8),)
    silent = JointNet(by_head=by_head, bias=bias).eval()
    silent.load_state_dict(module.state_dict())
    gone = heads.remove_heads(module, inputs, Params(ratio=0.5, importance="l1"), make_job(tmp_path))
    (removed,) = gone.values()
    assert len(removed) == 2
    columns = silent.attention.proj.weight.data.view(16, 4, 4)
    columns[:, list(removed)] = 0  # what a head gives reaches nothing
    assert torch.allclose(module(*inputs), silent(*inputs), atol=1e-5)
    assert parameters(module) < parameters(silent)


@pytest.mark.parametrize("more", ["norm", "mask"])
def test_a_joint_layer_that_does_more_than_attention_is_refused_by_name(more: str, tmp_path: Path) -> None:
    module = JointNet(more=more)
    with pytest.raises(Unsupported, match="attention computes something else with it, or takes more than tokens"):
        heads.remove_heads(module, (torch.randn(3, 1, 8, 8),), Params(ratio=0.5), make_job(tmp_path))
