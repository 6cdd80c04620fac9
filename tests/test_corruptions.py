"""Corrupted images: worse with severity, equal for a seed, and back in the network's own layout and range."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from harness.audit import audit
from harness.bench.corruptions import CORRUPTIONS, SEVERITIES, Scale, channel_axis, corrupt
from harness.bench.robust import EXTENTS, corruptions_of
from harness.cli.main import call
from harness.store import find_runs, load_run


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    rough = np.random.default_rng(0).random((12, 24, 20, 3))
    smooth = gaussian_filter(rough, (0, 1, 1, 0))
    return (smooth - smooth.min()) / (smooth.max() - smooth.min())


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_each_corruption_grows_with_its_severity_and_repeats_for_a_seed(name, images):
    copies = [corrupt(images, name, severity, 0) for severity in SEVERITIES]
    far = [float(np.sqrt(((copy - images) ** 2).mean())) for copy in copies]
    assert far[0] > 0.002
    assert far[-1] > 1.15 * far[0]
    for copy in copies:
        assert copy.shape == images.shape
        assert 0 <= copy.min() <= copy.max() <= 1
        assert np.isfinite(copy).all()
    np.testing.assert_array_equal(copies[2], corrupt(images, name, 3, 0))


def test_there_are_fifteen_and_noise_has_the_published_strength(images):
    assert len(CORRUPTIONS) == 15
    grey = np.full((4, 64, 64, 1), 0.5)
    assert corrupt(grey, "gaussian-noise", 1, 0).std() == pytest.approx(0.08, rel=0.02)
    assert (corrupt(grey, "impulse-noise", 5, 0) != 0.5).mean() == pytest.approx(0.27, abs=0.01)
    np.testing.assert_allclose(corrupt(grey, "brightness", 2, 0), 0.7)
    np.testing.assert_allclose(corrupt(grey, "defocus-blur", 5, 0), 0.5)
    assert (corrupt(images + 2, "occlusion", 3, 0) == 0.5).mean() == pytest.approx(8 / 24 * 7 / 20)


def test_jpeg_is_pillows_on_grey_images(images):
    import io

    from PIL import Image

    grey = np.round(images[:3, :24, :16, :1] * 255) / 255
    ours = corrupt(grey, "jpeg", 1, 0)
    for image, copy in zip(grey, ours, strict=True):
        stream = io.BytesIO()
        Image.fromarray(np.round(image[..., 0] * 255).astype(np.uint8)).save(stream, "JPEG", quality=25)
        theirs = np.asarray(Image.open(stream)) / 255
        assert np.abs(theirs - copy[..., 0]).max() < 0.02


@pytest.mark.parametrize("shape", [(6, 3, 9, 8), (6, 9, 8, 3), (6, 9, 8)])
def test_items_come_back_in_their_own_layout_range_and_type(shape):
    items = np.random.default_rng(0).normal(3, 2, shape).astype(np.float32)
    scale = Scale(items)
    seen = scale.images(items)
    assert seen.shape == (6, 9, 8, 3 if len(shape) == 4 else 1)
    assert (seen.min(), seen.max()) == (0, pytest.approx(1))
    back = scale.items(seen)
    assert back.dtype == items.dtype
    np.testing.assert_allclose(back, items, atol=1e-5)
    whole = (items * 20).astype(np.uint8)
    np.testing.assert_array_equal(Scale(whole).items(Scale(whole).images(whole)), whole)


@pytest.mark.parametrize("shape", [(5, 64), (5, 7, 9, 8)])
def test_what_is_no_image_is_refused(shape):
    with pytest.raises(ValueError, match="no image"):
        channel_axis(shape)


def test_copies_come_in_the_order_in_which_records_keep_their_names():
    counts = {name: len(corruptions_of(extent)) for name, extent in EXTENTS.items()}
    assert counts == {"quick": 4, "standard": 4, "publish": 75}
    for extent in EXTENTS.values():
        names = [f"{name}:{level}" for name, level in corruptions_of(extent)]
        assert names == sorted(names)


@pytest.mark.slow
def test_a_run_with_robustness_and_layers_holds_every_demand(tmp_path):
    pytest.importorskip("onnxruntime")
    options = ["--workloads", "tiny-conv", "--methods", "int8", "--targets", "onnxruntime", "--robustness", "--layers"]
    assert call(["bench", *options, "--out", str(tmp_path)]) == 0
    (folder,) = find_runs(tmp_path)
    assert audit(folder) == []
    (int8,) = [record for record in load_run(folder).records if record.labels["method"] == "int8"]
    found = int8.robustness
    assert (found.reason, len(found.corrupted)) == ("", 4)
    assert found.difference.low <= found.difference.point <= found.difference.high
    assert found.extra is not None
    assert int8.confidence.nll_change is not None
    worst = int8.layers.outputs[0]
    assert 5 < worst.sqnr_db <= int8.layers.outputs[-1].sqnr_db
    assert int8.seconds["layers"] > 0
    assert load_run(folder).by_cell[int8.anchor].layers is None
