"""Two values per channel, the scale of XNOR-Net, and the straight-through gradient in closed form."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from jobs import TinyMlp, compress, make_job, trained
from torch import nn

import harness_binarization
from harness.api import Model, Unsupported
from harness_binarization.training import binarize, clip, latent, straight_through
from harness_torch import example_inputs, load
from harness_torch.weights import weights_in_order

SPEC = next(iter(harness_binarization.harness_methods()))


def _channels(weight: np.ndarray, out_dim: int = 0) -> np.ndarray:
    return np.moveaxis(weight, out_dim, 0).reshape(weight.shape[out_dim], -1)


@pytest.mark.parametrize(("shape", "out_dim"), [((6, 9), 0), ((4, 3, 3, 3), 0), ((5, 7, 3, 3), 1)])
def test_binarize_is_alpha_sign_as_numpy_says(shape: tuple[int, ...], out_dim: int) -> None:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    rows = _channels(weight.numpy(), out_dim)
    expected = np.abs(rows).mean(1, keepdims=True) * np.where(rows >= 0, 1, -1)
    assert np.allclose(_channels(binarize(weight, out_dim).numpy(), out_dim), expected, rtol=1e-6)


def test_alpha_is_the_scale_of_least_squared_error() -> None:
    weight = torch.randn(1, 64, generator=torch.Generator().manual_seed(2)).numpy()
    alpha = float(np.abs(binarize(torch.from_numpy(weight)).numpy()).max())
    errors = [((weight - scale * np.sign(weight)) ** 2).sum() for scale in (0.99 * alpha, alpha, 1.01 * alpha)]
    assert errors[1] == min(errors)


def test_a_dead_channel_stays_dead() -> None:
    assert torch.equal(binarize(torch.zeros(2, 3)), torch.zeros(2, 3))


def test_gradient_of_the_estimator_in_closed_form() -> None:
    generator = torch.Generator().manual_seed(3)
    weight = (torch.randn(4, 6, generator=generator) * 1.2).requires_grad_()
    upstream = torch.randn(4, 6, generator=generator)
    value = straight_through(weight)
    value.backward(upstream)
    w, g = weight.detach().numpy(), upstream.numpy()
    sign, alpha = np.where(w >= 0, 1, -1), np.abs(w).mean(1, keepdims=True)
    expected = alpha * g * (np.abs(w) <= 1) + sign * (g * sign).sum(1, keepdims=True) / w.shape[1]
    assert torch.allclose(value, binarize(weight.detach()))
    assert np.allclose(weight.grad.numpy(), expected, atol=1e-6)


def test_latent_runs_one_bit_weights_and_trains_the_float_ones() -> None:
    torch.manual_seed(0)
    module, inputs = TinyMlp(), (torch.randn(3, 10),)
    chosen = weights_in_order(module, inputs)[1:-1]
    before = chosen[0].parameter.detach().clone()
    output = latent(module, chosen)(*inputs)
    output.sum().backward()
    assert torch.equal(chosen[0].parameter, before)
    assert chosen[0].parameter.grad is not None
    with torch.no_grad():
        chosen[0].parameter.copy_(binarize(before))
        assert torch.allclose(module(*inputs), output)


def test_clip_bounds_latent_weights() -> None:
    module = TinyMlp()
    chosen = weights_in_order(module, (torch.randn(1, 10),))
    with torch.no_grad():
        chosen[1].parameter.fill_(3.0)
    clip(chosen)
    assert float(chosen[1].parameter.detach().max()) == 1.0


@pytest.mark.parametrize("workload", ["cnn", "gru", "transformer", "mlp"])
@pytest.mark.parametrize("epochs", [0, 1])
def test_inner_layers_have_two_values_per_channel(workload: str, epochs: int, tmp_path: Path) -> None:
    job = make_job(tmp_path, workload)
    model = trained(tmp_path, workload, epochs=1)
    result = compress(SPEC, model, job, epochs=epochs)
    before, after = (weights_in_order(load(item), example_inputs(job)) for item in (model, result))
    assert len(after) > 2
    for old, new in zip(before[1:-1], after[1:-1], strict=True):
        rows = _channels(new.parameter.detach().numpy())
        assert all(len(np.unique(row)) == 2 and row.max() == -row.min() for row in rows)
        if epochs == 0:
            alpha = np.abs(_channels(old.parameter.detach().numpy())).mean(1)
            assert np.allclose(rows.max(1), alpha, rtol=1e-6)
    for edge in (0, -1):
        assert len(torch.unique(after[edge].parameter.detach())) > 2 * len(after[edge].parameter)
    assert (result.precision.storage, result.precision.name) == ("packed", "float32")


def test_training_beats_rounding(tmp_path: Path) -> None:
    job, model = make_job(tmp_path), trained(tmp_path, epochs=8)

    def loss(epochs: int) -> float:
        module, split = load(compress(SPEC, model, make_job(tmp_path), epochs=epochs)), job.data.split("selection")
        with torch.no_grad():
            outputs = module(torch.from_numpy(split.inputs["image"]))
        return float(nn.functional.cross_entropy(outputs, torch.from_numpy(split.labels)))

    assert loss(6) < loss(0)


def test_two_weights_have_none_between_them(tmp_path: Path) -> None:
    job = make_job(tmp_path, "mlp")
    torch.save(TinyMlp(depth=2), tmp_path / "two.pt")
    model = Model("torch", tmp_path / "two.pt", job.workload.inputs, job.workload.outputs)
    with pytest.raises(Unsupported, match="between the first and the last"):
        compress(SPEC, model, job)
    weights = weights_in_order(load(compress(SPEC, model, job, first=True, last=True, epochs=0)), example_inputs(job))
    assert all(len(torch.unique(row)) == 2 for weight in weights for row in weight.parameter.detach())
