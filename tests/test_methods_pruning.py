"""Pruning against numpy, against masks, and against what must not be touched."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from jobs import TinyCnn, TinyGru, TinyMlp, TinyTransformer, compress, make_job, trained
from torch import nn

import harness_pruning
from harness.api import Model, Unsupported
from harness.plugins import load_registry
from harness_pruning.channels import kept, prune
from harness_pruning.masks import keep_masks
from harness_torch import example_inputs, load, macs, nonzero, parameters
from harness_torch.weights import weights_in_order

SPECS = {spec.name: spec for spec in harness_pruning.harness_methods()}
IMAGE = (torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0)),)


@pytest.fixture(scope="module")
def cnn(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return trained(tmp_path_factory.mktemp("cnn"), epochs=2)


def _inner_zeros(model: Model) -> tuple[int, int]:
    inner = [weight.parameter for weight in weights_in_order(load(model), IMAGE)[1:-1]]
    return sum(int((weight == 0).sum()) for weight in inner), sum(weight.numel() for weight in inner)


@pytest.mark.parametrize("ratio", [0.1, 0.5, 0.8, 0.99])
@pytest.mark.parametrize("scope", ["global", "local"])
def test_masks_keep_the_largest_as_numpy_sorts_them(scope: str, ratio: float) -> None:
    torch.manual_seed(0)
    weights = [torch.randn(7, 5), torch.randn(3, 4, 2, 2) * 3]
    masks = [mask.numpy() for mask in keep_masks(weights, ratio, scope=scope)]
    groups = [[0, 1]] if scope == "global" else [[0], [1]]
    for group in groups:
        sizes = np.concatenate([weights[i].abs().numpy().ravel() for i in group])
        mask = np.concatenate([masks[i].ravel() for i in group])
        expected = np.ones(len(sizes), bool)
        expected[np.argsort(sizes, kind="stable")[: round(ratio * len(sizes))]] = False
        assert np.array_equal(mask, expected)


def test_equal_weights_are_cut_to_the_exact_share() -> None:
    assert int(keep_masks([torch.ones(10, 10)], 0.73)[0].sum()) == 27


@pytest.mark.parametrize("epochs", [0, 2])
def test_zeros_are_held_through_fine_tuning(epochs: int, cnn: Model, tmp_path: Path) -> None:
    result = compress(SPECS["magnitude-pruning"], cnn, make_job(tmp_path), ratio=0.75, epochs=epochs)
    zeros, total = _inner_zeros(result)
    assert zeros == round(0.75 * total)
    assert not any(
        bool(torch.signbit(weight[weight == 0]).any()) for weight in load(result).parameters()
    )  # the packer sees bits, and -0.0 is not 0.0
    assert result.precision.storage == "sparse"


def test_the_zeros_are_those_that_were_smallest(cnn: Model, tmp_path: Path) -> None:
    result = compress(SPECS["magnitude-pruning"], cnn, make_job(tmp_path), ratio=0.6, epochs=1)
    before, after = (weights_in_order(load(model), IMAGE)[1:-1] for model in (cnn, result))
    masks = keep_masks([weight.parameter for weight in before], 0.6)
    for weight, mask in zip(after, masks, strict=True):
        assert torch.equal(weight.parameter == 0, ~mask)


def test_first_and_last_layer_are_pruned_only_when_asked(cnn: Model, tmp_path: Path) -> None:
    for asked in (False, True):
        result = compress(SPECS["magnitude-pruning"], cnn, make_job(tmp_path), epochs=0, first=asked, last=asked)
        weights = weights_in_order(load(result), IMAGE)
        assert [bool((weight.parameter == 0).any()) for weight in (weights[0], weights[-1])] == [asked, asked]


def test_two_weights_have_none_between_them(tmp_path: Path) -> None:
    job = make_job(tmp_path, "mlp")
    torch.save(TinyMlp(depth=2), tmp_path / "two.pt")
    model = Model("torch", tmp_path / "two.pt", job.workload.inputs, job.workload.outputs)
    with pytest.raises(Unsupported, match="between the first and the last"):
        compress(SPECS["magnitude-pruning"], model, job, epochs=0)


@pytest.mark.parametrize(
    ("count", "ratio", "multiple", "stay"),
    [
        (64, 0.5, 1, 32),
        (64, 0.5, 8, 32),
        (20, 0.5, 8, 8),
        (24, 0.5, 8, 16),
        (16, 0.5, 16, 16),
        (6, 0.5, 8, 6),
        (64, 0.95, 8, 8),
    ],
)
def test_kept_channels_are_the_nearest_multiple(count: int, ratio: float, multiple: int, stay: int) -> None:
    assert kept(count, ratio, multiple, layer="conv") == stay


def test_a_layer_that_vanishes_is_refused(cnn: Model, tmp_path: Path) -> None:
    with pytest.raises(Unsupported) as caught:
        compress(SPECS["channel-pruning"], cnn, make_job(tmp_path), ratio=0.98, epochs=0)
    assert caught.value.message.endswith("would leave none of the 24 channels of layer 'hidden'")


def test_channels_that_round_back_are_refused_with_the_multiple(cnn: Model, tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match="multiple of 64"):
        compress(SPECS["channel-pruning"], cnn, make_job(tmp_path, channel_multiple=64), epochs=0)


@pytest.mark.parametrize("importance", ["l1", "l2", "taylor", "random"])
def test_half_the_channels_leave_every_inner_layer(importance: str, cnn: Model, tmp_path: Path) -> None:
    job = make_job(tmp_path)
    module = load(compress(SPECS["channel-pruning"], cnn, job, importance=importance, epochs=1))
    assert (module.stem.out_channels, module.inner.out_channels, module.point.out_channels) == (4, 4, 8)
    assert (module.depthwise.groups, module.hidden.in_features, module.hidden.out_features) == (4, 32, 12)
    assert module.head.out_features == 10
    assert macs(module, IMAGE) < 0.4 * macs(load(cnn), IMAGE)


def test_kept_channels_follow_the_target(cnn: Model, tmp_path: Path) -> None:
    module = load(compress(SPECS["channel-pruning"], cnn, make_job(tmp_path, channel_multiple=8), epochs=0))
    widths = (module.stem.out_channels, module.point.out_channels, module.hidden.out_features)
    assert widths == (8, 8, 16)  # of 8, 16 and 24: 4 -> 8, 8 -> 8, 12 -> 16


@pytest.mark.parametrize("importance", ["l1", "l2"])
def test_scores_are_sums_over_all_coupled_weights(importance: str) -> None:
    torch.manual_seed(0)
    module = TinyMlp()
    power = 1 if importance == "l1" else 2
    rows = np.abs(module.hidden[1].weight.detach().numpy()) ** power
    columns = np.abs(module.head.weight.detach().numpy()) ** power
    order = np.argsort(rows.sum(1) + columns.sum(0))
    removed = prune(module, (torch.randn(2, 10),), 0.25, importance=importance)
    assert removed["hidden.1"] == tuple(sorted(order[:8].tolist()))


def _silence(module: TinyCnn, removed: dict[str, tuple[int, ...]]) -> None:
    """Make channels zero wherever they are read, by hand: the same function as without them."""
    stem, point, hidden = (list(removed[name]) for name in ("inner", "point", "hidden"))
    with torch.no_grad():
        module.inner.weight[:, stem] = 0
        module.depthwise.weight[stem] = 0
        module.depthwise.bias[stem] = 0
        module.point.weight[:, stem] = 0
        flat = [4 * channel + place for channel in point for place in range(4)]
        module.hidden.weight[:, flat] = 0
        module.head.weight[:, hidden] = 0


def test_removal_equals_silencing_in_convolutions() -> None:
    torch.manual_seed(0)
    small, masked = TinyCnn().eval(), TinyCnn().eval()
    masked.load_state_dict(small.state_dict())
    removed = prune(small, IMAGE, 0.5)
    leader = next(name for name in removed if name in {"stem", "inner", "depthwise"})
    _silence(masked, removed | {"inner": removed[leader]})
    assert len(removed) == 3
    assert torch.allclose(small(*IMAGE), masked(*IMAGE), atol=1e-5)


@pytest.mark.parametrize("layers", [1, 2])
def test_removal_equals_silencing_in_a_gru(layers: int) -> None:
    torch.manual_seed(0)
    small, masked = TinyGru(layers=layers).eval(), TinyGru(layers=layers).eval()
    masked.load_state_dict(small.state_dict())
    units = list(prune(small, IMAGE, 0.5)["gru"])
    with torch.no_grad():
        for name, weight in masked.gru.named_parameters():
            if name.startswith("weight_hh") or name == "weight_ih_l1":
                weight[:, units] = 0
        masked.head.weight[:, units] = 0
    assert small.gru.hidden_size == 8
    assert torch.allclose(small(*IMAGE), masked(*IMAGE), atol=1e-6)


class _Lstm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.lstm, self.head = nn.Linear(8, 12), nn.LSTM(12, 16, batch_first=True), nn.Linear(16, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.head(self.lstm(torch.relu(self.embed(image.squeeze(1))))[1][0][-1])


def test_removal_equals_silencing_in_an_lstm_and_before_it() -> None:
    torch.manual_seed(0)
    small, masked = _Lstm().eval(), _Lstm().eval()
    masked.load_state_dict(small.state_dict())
    removed = {name: list(units) for name, units in prune(small, IMAGE, 0.5).items()}
    with torch.no_grad():
        masked.lstm.weight_ih_l0[:, removed["embed"]] = 0
        masked.lstm.weight_hh_l0[:, removed["lstm"]] = 0
        masked.head.weight[:, removed["lstm"]] = 0
    assert (small.lstm.input_size, small.lstm.hidden_size) == (6, 8)
    assert torch.allclose(small(*IMAGE), masked(*IMAGE), atol=1e-6)


def test_attention_keeps_its_channels_and_the_blocks_lose_theirs() -> None:
    torch.manual_seed(0)
    small, masked = TinyTransformer().eval(), TinyTransformer().eval()
    masked.load_state_dict(small.state_dict())
    removed = prune(small, IMAGE, 0.5)
    assert set(removed) == {"layers.layers.0.linear1", "layers.layers.1.linear1"}
    with torch.no_grad():
        for i, layer in enumerate(masked.layers.layers):
            layer.linear2.weight[:, list(removed[f"layers.layers.{i}.linear1"])] = 0
    assert torch.allclose(small(*IMAGE), masked(*IMAGE), atol=1e-5)


class _OwnAttention(nn.Module):
    """Attention written out, as in small vision transformers."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.qkv, self.out = nn.Linear(8, 16), nn.Linear(16, 48), nn.Linear(16, 16)
        self.up, self.down, self.head = nn.Linear(16, 32), nn.Linear(32, 16), nn.Linear(16, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        value = self.embed(image.squeeze(1))
        parts = self.qkv(value).view(-1, 8, 3, 2, 8).permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(parts[0], parts[1], parts[2])
        value = value + self.out(mixed.transpose(1, 2).reshape(-1, 8, 16))
        return self.head((value + self.down(torch.relu(self.up(value)))).mean(1))


def test_attention_written_out_is_left_alone_too() -> None:
    module = _OwnAttention().eval()
    assert set(prune(module, IMAGE, 0.5)) == {"up"}
    assert module(*IMAGE).shape == (2, 10)


class _Fixed(nn.Module):
    """A number of channels in the code."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, 8, 3, padding=1), nn.Linear(8, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.head(self.conv(image).reshape(-1, 8, 64).mean(2))


def test_channels_fixed_in_code_are_refused(tmp_path: Path) -> None:
    job = make_job(tmp_path)
    torch.save(_Fixed(), tmp_path / "fixed.pt")
    model = Model("torch", tmp_path / "fixed.pt", job.workload.inputs, job.workload.outputs)
    with pytest.raises(Unsupported):
        compress(SPECS["channel-pruning"], model, job, epochs=0)


@pytest.mark.parametrize("layer", [nn.GroupNorm(4, 8)])
def test_grouped_layers_keep_their_channels(layer: nn.Module) -> None:
    module = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), layer, nn.Conv2d(8, 8, 1), nn.Flatten(), nn.Linear(512, 10))
    removed = prune(module, IMAGE, 0.5)
    assert set(removed) == {"2"}
    assert module[0].out_channels == 8


def test_a_shared_encoder_is_pruned_once() -> None:
    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(1, 8, 3), nn.Conv2d(8, 16, 3)
            self.mix, self.head = nn.Linear(32, 12), nn.Linear(12, 2)

        def encode(self, image: torch.Tensor) -> torch.Tensor:
            return torch.relu(self.second(torch.relu(self.first(image)))).mean((2, 3))

        def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            return self.head(torch.relu(self.mix(torch.cat([self.encode(a), self.encode(b)], 1))))

    torch.manual_seed(0)
    small, masked = Pair().eval(), Pair().eval()
    masked.load_state_dict(small.state_dict())
    pair = (IMAGE[0], IMAGE[0].flip(3))
    removed = {name: list(channels) for name, channels in prune(small, pair, 0.5).items()}
    with torch.no_grad():
        masked.second.weight[:, removed["first"]] = 0
        masked.mix.weight[:, removed["second"] + [16 + channel for channel in removed["second"]]] = 0
        masked.head.weight[:, removed["mix"]] = 0
    assert (small.first.out_channels, small.second.out_channels, small.mix.in_features) == (4, 8, 16)
    assert torch.allclose(small(*pair), masked(*pair), atol=1e-6)


def test_every_parameter_count_drops(cnn: Model, tmp_path: Path) -> None:
    dense, small = load(cnn), load(compress(SPECS["channel-pruning"], cnn, make_job(tmp_path), epochs=0))
    assert parameters(small) < 0.4 * parameters(dense)
    assert nonzero(small) <= parameters(small)


@pytest.mark.parametrize(
    "name", ["digits-resnet8", "glyphs-mobilenet", "glyphs-transformer", "digits-gru", "digits-pairs", "diabetes-mlp"]
)
def test_the_workloads_own_networks_lose_channels(name: str) -> None:
    spec = load_registry(only={"workloads"}).workloads[name].spec
    torch.manual_seed(0)
    module = spec.model(spec.params(), width=1.0, depth=1.0).eval()
    inputs = example_inputs(spec.inputs(spec.params()), 2)
    before, shape = parameters(module), module(*inputs).shape
    assert prune(module, inputs, 0.5, multiple=8)
    assert parameters(module) < 0.8 * before
    assert module(*inputs).shape == shape
    assert all(layer.out_channels % 8 == 0 for layer in module.modules() if isinstance(layer, nn.Conv2d))
