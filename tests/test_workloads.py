from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from workload_jobs import job, specs, workload

import harness_torch
from harness.api import SplitName
from harness.build.data import write_data
from harness_workloads import rendering
from harness_workloads.augment import shifted
from harness_workloads.digits import enlarge
from harness_workloads.scoring import accuracy, correct, root_mean, squared_error
from harness_workloads.zoo import settle

SPLITS: tuple[SplitName, ...] = get_args(SplitName)
OWN_DATA = ("digits-resnet8", "digits-gru", "digits-pairs", "diabetes-mlp")
SMALL: Mapping[str, dict[str, Any]] = {
    "digits-resnet8": {"epochs": 0},
    "digits-gru": {"epochs": 0},
    "digits-pairs": {"epochs": 0},
    "diabetes-mlp": {"epochs": 0},
    "zoo-gru": {},
    "zoo-transformer": {},
    "zoo-mobilenetv2": {"size": 32},
    "zoo-resnet18": {"size": 32},
}


def test_digits_resnet8_is_the_only_default() -> None:
    assert [spec.name for spec in specs().values() if spec.default] == ["digits-resnet8"]


@pytest.mark.parametrize("name", [*OWN_DATA, "zoo-gru"])
def test_splits_are_as_declared_and_disjoint(name: str, tmp_path: Path) -> None:
    work = workload(name)
    tell = lambda _share, _words: None  # noqa: E731  one use
    info = write_data(
        tmp_path, lambda split: work.spec.split(work.params, split), work.inputs, labelled=work.labelled, progress=tell
    )
    assert all(info.splits[split].items >= 50 for split in SPLITS)


@pytest.mark.parametrize("name", OWN_DATA)
def test_splits_are_the_same_in_every_call(name: str) -> None:
    work = workload(name)
    from harness_workloads import diabetes, digits

    first = {split: work.spec.split(work.params, split) for split in SPLITS}
    for cached in (digits._images, digits._sequences, digits._pairs, digits._rows, diabetes._split, diabetes._rows):
        cached.cache_clear()
    for split, items in first.items():
        again = work.spec.split(work.params, split)
        assert_array_equal(again.labels, items.labels)
        for key, value in items.inputs.items():
            assert_array_equal(again.inputs[key], value)


def test_all_digits_are_used_once() -> None:
    work = workload("digits-resnet8")
    sizes = {split: len(work.spec.split(work.params, split).inputs["image"]) for split in SPLITS}
    assert sizes["test"] == 450
    assert sum(sizes.values()) == 1797


def test_pairs_are_balanced_and_labelled_rightly() -> None:
    work = workload("digits-pairs")
    items = work.spec.split(work.params, "test")
    assert items.labels is not None
    assert items.labels.mean() == 0.5
    equal = [np.array_equal(a, b) for a, b in zip(items.inputs["a"], items.inputs["b"], strict=True)]
    assert not np.any(np.array(equal) & (items.labels == 0))


def test_enlarging_keeps_constants_and_equals_torch() -> None:
    images = np.random.default_rng(0).random((3, 8, 8), dtype=np.float32)
    expected = torch.nn.functional.interpolate(torch.from_numpy(images)[:, None], size=(32, 32), mode="bilinear")[:, 0]
    assert_allclose(enlarge(images, 32), expected.numpy(), atol=1e-6)
    assert_allclose(enlarge(np.ones((1, 8, 8), np.float32), 32), 1, atol=1e-6)


# published counts: Banbury et al. 2021 (with one channel: 288 fewer), torchvision's model tables
@pytest.mark.parametrize(
    ("name", "count", "macs"),
    [
        ("digits-resnet8", 77_658, 12_206_720),
        ("zoo-resnet18", 11_689_512, 1_814_073_344),
        ("zoo-resnet50", 25_557_032, 4_089_184_256),
        ("zoo-mobilenetv2", 3_504_872, 300_774_272),
    ],
)
def test_published_networks_have_their_published_size(name: str, count: int, macs: int) -> None:
    work = workload(name)
    module = work.build()
    assert harness_torch.parameters(module) == count
    assert harness_torch.macs(module, harness_torch.example_inputs(work.inputs)) == macs


@pytest.mark.parametrize("name", SMALL)
def test_fit_saves_a_model_that_runs(name: str, tmp_path: Path) -> None:
    work = workload(name, **SMALL[name])
    model = work.spec.fit(work.params, job(work, tmp_path))
    example = [value.numpy() for value in harness_torch.example_inputs(model.inputs, 3)]
    outputs = harness_torch.call(harness_torch.load(model), example, outputs=model.outputs)
    assert model.inputs == work.inputs
    assert set(work.spec.flags) <= set(model.flags)
    assert all(len(value) == 3 and np.isfinite(value).all() for value in outputs.values())


@pytest.mark.parametrize("name", [*SMALL, "glyphs-resnet8", "glyphs-mobilenet", "glyphs-transformer", "zoo-resnet50"])
def test_width_and_depth_make_smaller_networks(name: str) -> None:
    work = workload(name)
    full = harness_torch.parameters(work.build())
    assert harness_torch.parameters(work.build(width=0.5)) < full
    small = work.build(width=0.5, depth=0.5)
    assert harness_torch.parameters(small) < full
    example = harness_torch.example_inputs(workload(name, **SMALL.get(name, {})).inputs, 2)
    assert small.eval()(*example).shape[0] == 2


def test_digits_learn(tmp_path: Path) -> None:
    work = workload("digits-gru", epochs=8)
    model = work.spec.fit(work.params, job(work, tmp_path))
    assert harness_torch.evaluate(harness_torch.load(model), job(work, tmp_path), "test") > 0.9


def test_a_smaller_error_is_better_for_diabetes(tmp_path: Path) -> None:
    work = workload("diabetes-mlp")
    model = work.spec.fit(work.params, job(work, tmp_path))
    error = harness_torch.evaluate(harness_torch.load(model), job(work, tmp_path), "test")
    items = work.spec.split(work.params, "test")
    blind = work.aggregate(work.score({"value": np.zeros_like(items.labels)}, items.labels))
    assert not work.higher_is_better
    assert error < 0.85 * blind
    assert 70 < blind < 85  # the data's own deviation is 77


def test_scores_are_per_item() -> None:
    logits = np.array([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7]])
    scores = correct({"logits": logits}, np.array([1, 1, 1]))
    assert_array_equal(scores, [[1], [0], [1]])
    assert accuracy(scores) == pytest.approx(2 / 3)
    errors = squared_error({"value": np.array([[1.0], [3.0]])}, np.array([1.0, 1.0]))
    assert_array_equal(errors, [[0], [4]])
    assert root_mean(errors) == pytest.approx(2**0.5)


def test_shifts_move_images_within_bounds() -> None:
    image = torch.zeros(50, 1, 9, 9)
    image[:, :, 4, 4] = 1
    (moved,) = shifted(2)((image,), torch.Generator().manual_seed(0))
    at = {tuple(divmod(int(item.argmax()), 9)) for item in moved}
    assert moved.sum() == 50
    assert {max(abs(row - 4), abs(column - 4)) for row, column in at} == {0, 1, 2}


def test_settled_statistics_are_those_of_the_inputs() -> None:
    module = torch.nn.Sequential(torch.nn.BatchNorm2d(3))
    values = torch.randn(16, 3, 4, 4) * 5 + 2
    settle(module, (values,))
    assert_allclose(module[0].running_mean, values.mean((0, 2, 3)), rtol=1e-5)
    assert (module[0].momentum, module.training) == (0.1, False)
    assert module(values).std().item() == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("name", ["zoo-mobilenetv2", "zoo-resnet18", "zoo-transformer", "zoo-gru"])
def test_signals_of_the_zoo_neither_vanish_nor_explode(name: str, tmp_path: Path) -> None:
    work = workload(name, **SMALL[name])
    model = work.spec.fit(work.params, job(work, tmp_path))
    logits = harness_torch.call(harness_torch.load(model), work.spec.split(work.params, "test").inputs)["output0"]
    assert 0.02 < logits.std() < 50
    assert len(set(logits.argmax(1))) > 3  # inputs are told apart


def test_fonts_of_the_splits_are_disjoint_and_complete() -> None:
    fonts = [set(rendering.font_files(split)) for split in ("train", "selection", "test")]
    assert sum(map(len, fonts)) == len(set().union(*fonts)) == 21
    assert rendering.font_files("calibration") == rendering.font_files("train")


def test_rendered_items_repeat_and_differ_between_splits() -> None:
    first, labels = rendering.render("train", 64, 1.0)
    again, _labels = rendering.render("train", 64, 1.0)
    other, _labels = rendering.render("calibration", 64, 1.0)
    assert_array_equal(first, again)
    assert first.shape == (64, 3, 32, 32)
    assert first.dtype == np.float32
    assert set(labels) <= set(range(36))
    assert np.abs(first - other).max() > 0.1


def test_characters_are_drawn_as_their_class() -> None:
    letters = rendering._masters(rendering.font_files("test")[0])
    ink = [np.asarray(image, np.float32) / 255 for image in letters]
    assert all(10 < image.sum() < 0.5 * image.size for image in ink)
    assert all(image[0].sum() == image[-1].sum() == image[:, 0].sum() == image[:, -1].sum() == 0 for image in ink)
    assert len({image.tobytes() for image in ink}) == 36


@pytest.mark.parametrize("name", ["glyphs-resnet8", "glyphs-mobilenet", "glyphs-transformer"])
def test_glyph_networks_take_a_training_step(name: str, tmp_path: Path) -> None:
    work = workload(name, items=64, epochs=1)
    module = work.build()
    harness_torch.fit(module, job(work, tmp_path), epochs=1)
    assert all(torch.isfinite(item).all() for item in module.parameters())


@pytest.mark.slow
def test_glyphs_have_ten_thousand_test_items() -> None:
    work = workload("glyphs-resnet8", items=64)
    items = work.spec.split(work.params, "test")
    assert items.labels is not None
    assert len(items.labels) >= 10_000
    assert np.bincount(items.labels, minlength=36).min() > 200


@pytest.mark.slow
def test_the_default_workload_reaches_98_percent(tmp_path: Path) -> None:
    work = workload("digits-resnet8")
    model = work.spec.fit(work.params, job(work, tmp_path))
    assert harness_torch.evaluate(harness_torch.load(model), job(work, tmp_path), "test") >= 0.98


@pytest.mark.parametrize("name", ["digits-resnet8", "digits-gru"])
def test_noise_is_on_the_test_items_alone_and_of_the_deviation_asked_for(name: str) -> None:
    from harness.plugins import load_registry

    spec = load_registry(only={"workloads"}).workloads[name].spec
    clean, noisy = spec.params(), spec.params(noise=0.5)
    for split in ("train", "calibration", "selection"):
        for key, value in spec.split(clean, split).inputs.items():
            assert np.array_equal(value, spec.split(noisy, split).inputs[key])
    (key, before), *_rest = spec.split(clean, "test").inputs.items()
    after = spec.split(noisy, "test").inputs[key]
    assert after.dtype == before.dtype
    assert (after - before).std() == pytest.approx(0.5 * before.std(), rel=0.02)
    assert np.array_equal(after, spec.split(noisy, "test").inputs[key])
