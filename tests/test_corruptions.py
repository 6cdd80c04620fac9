"""Corrupted images: worse with severity, equal for a seed, and back in the network's own layout and range."""

from __future__ import annotations

import fakes
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from harness.audit import audit
from harness.bench.asides import asides
from harness.bench.corruptions import CORRUPTIONS, SEVERITIES, Scale, channel_axis, corrupt
from harness.bench.robust import EXTENTS, corruptions_of
from harness.cli.main import call
from harness.plan import Asides, Load, Request
from harness.plan.resolve import choose
from harness.specs import Split
from harness.store import find_runs, load_run
from harness.types import Step, TensorSpec


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


def test_the_plan_knows_how_many_items_are_run_again():
    def chosen(**spec):
        offered = fakes.workload("w", score=lambda _outputs, labels: labels, **spec)
        return choose(fakes.registry(workloads=[offered]), "workload", Step("w"))

    def load(profile, shape, **spec):
        asked = Request(profile=profile, robustness=True, layers=True)
        inputs = {name: TensorSpec("float32", (None, *sizes)) for name, sizes in shape.items()}
        return asides(asked, {}, {}, [chosen(inputs=lambda _params: inputs, **spec)]).loads.get("w")

    def items(_params, name):
        return Split({"x": np.zeros((60 if name == "test" else 1, 2), np.float32)})

    photo = {"x": (3, 224, 224)}
    assert load("quick", photo) == Load(150528, 500, 4, 128)  # 301 MB of each copy: one to a launch
    assert load("quick", photo, modality="file", split=items) == Load(150528, 60, 1, 60)
    assert load("publish", photo, modality="file", split=items) == Load(150528, 60, 11, 60)  # 75 copies, 7 to a launch
    assert load("standard", {"x": (8,)}) == Load(8, compared=500)  # no image
    assert load("quick", {"x": (1, 8, 8), "y": (1, 8, 8)}) == Load(128, compared=128)  # two inputs
    assert load("quick", {"x": (None, 3)}) == Load(3, 500, 1, 128)  # as images without channels, of a free height
    assert load("quick", photo, modality="file", split=lambda _params, _name: 1 / 0) is None
    for other in (Request(layers=True), Request(robustness=True)):
        found = asides(other, {}, {}, [chosen(inputs=lambda _params: {"x": TensorSpec("float32", (None, 1, 8, 8))})])
        assert found.loads["w"] == (Load(64, compared=128) if other.layers else Load(64, 500, 1))
    assert asides(Request(), {}, {}, [chosen()]) == Asides()


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
