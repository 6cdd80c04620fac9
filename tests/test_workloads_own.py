from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from workload_jobs import job, workload

import harness_torch
from harness.api import BadModel, MissingDependency, Unsupported

FACTORY = """
import numpy as np
import torch
from harness.api import Split
from harness_workloads import UserWorkload

def build(*, width=1.0, depth=1.0):
    hidden = round(8 * width)
    return torch.nn.Sequential(torch.nn.Linear(3, hidden), torch.nn.ReLU(), torch.nn.Linear(hidden, 2))

def items(count=400):
    x = np.random.default_rng(0).normal(size=(count, 3)).astype(np.float32)
    return x, (x.sum(1) > 0).astype(np.int64)

def trains():
    x, y = items()
    return UserWorkload(build, {"x": x}, y, epochs=30, lr=2e-2)

def given():
    return UserWorkload(torch.nn.Linear(3, 2), {"x": items()[0]}, outputs=("score",))

def regression():
    x, _ = items()
    return UserWorkload(torch.nn.Linear(3, 1), {"x": x}, x.sum(1, keepdims=True), task="regression", epochs=30, lr=5e-2)

def splits():
    x, y = items()
    names = ("train", "calibration", "selection", "test")
    parts = {name: Split({"x": x[i::4]}, y[i::4]) for i, name in enumerate(names)}
    return UserWorkload(build, splits=parts, epochs=1)

def no_calibration():
    x, y = items()
    return UserWorkload(build, splits={"test": Split({"x": x}, y), "selection": Split({"x": x}, y)})

def float_labels():
    x, y = items()
    return UserWorkload(build, {"x": x}, y.astype(np.float32))

class Steps(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.cell, self.out = torch.nn.GRUCell(3, 4), torch.nn.Linear(4, 2)

    def forward(self, x, h, rate):
        hn = self.cell(x * rate, h)
        return {"score": self.out(hn), "hn": hn}

def steps(**changes):
    torch.manual_seed(0)
    inputs = {"x": items()[0], "h": np.zeros((1, 4), np.float32), "rate": np.float32(2)}
    return UserWorkload(Steps(), inputs, **{"constants": ("rate",), "states": {"h": "hn"}, **changes})

def no_such_state():
    return steps(states={"h": "h2"})

def no_such_constant():
    return steps(constants=("rat",))

def trained_steps():
    return steps(epochs=2)

def all_kept():
    return steps(constants=("rate", "x"))

def nothing():
    return UserWorkload(build)

def other():
    return 3
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of the user's in the working folder, which is not on the import path."""
    name = f"own_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(FACTORY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry not in {"", str(tmp_path)}])
    return name


def test_a_factory_of_model_and_arrays_trains(module: str, tmp_path: Path) -> None:
    work = workload("factory", target=f"{module}:trains")
    model = work.spec.fit(work.params, job(work, tmp_path / "out"))
    assert (list(work.inputs), work.outputs, work.labelled) == (["x"], ("logits",), True)
    assert harness_torch.evaluate(harness_torch.load(model), job(work, tmp_path / "out"), "test") > 0.9
    assert harness_torch.parameters(work.build(width=0.5)) < harness_torch.parameters(work.build())


def test_epochs_may_be_given_in_place_of_the_factorys(module: str, tmp_path: Path) -> None:
    work = workload("factory", target=f"{module}:trains", epochs=0)
    model = work.spec.fit(work.params, job(work, tmp_path / "out"))
    assert harness_torch.parameters(harness_torch.load(model)) == 3 * 8 + 8 + 8 * 2 + 2


def test_a_trained_module_without_labels_is_taken_as_it_is(module: str, tmp_path: Path) -> None:
    work = workload("factory", target=f"{module}:given")
    model = work.spec.fit(work.params, job(work, tmp_path / "out"))
    assert (work.labelled, model.outputs) == (False, ("score",))
    with pytest.raises(Unsupported, match="no other size can be built"):
        work.build(width=0.5)


def test_a_regression_has_its_own_workload(module: str, tmp_path: Path) -> None:
    asked = workload("factory", target=f"{module}:regression")
    with pytest.raises(BadModel, match="makes a regression"):
        asked.spec.fit(asked.params, job(asked, tmp_path / "out"))
    work = workload("factory-regression", target=f"{module}:regression")
    model = work.spec.fit(work.params, job(work, tmp_path / "out"))
    assert not work.higher_is_better
    assert harness_torch.evaluate(harness_torch.load(model), job(work, tmp_path / "out"), "test") < 0.5


def test_splits_of_the_factory_are_used(module: str) -> None:
    work = workload("factory", target=f"{module}:splits")
    assert all(len(work.spec.split(work.params, name).labels) == 100 for name in ("train", "calibration", "test"))


def test_constants_and_states_are_declared_beside_the_arrays(module: str, tmp_path: Path) -> None:
    work = workload("factory", target=f"{module}:steps")
    model = work.spec.fit(work.params, job(work, tmp_path / "out"))
    kinds = {name: (spec.role, spec.axis, spec.shape, spec.source) for name, spec in model.inputs.items()}
    wanted = {"x": ("item", 0, (1, 3), ""), "h": ("state", None, (1, 4), "hn"), "rate": ("constant", None, (), "")}
    assert kinds == wanted
    assert model.axes == {"hn": None}
    items = work.spec.split(work.params, "test").inputs
    assert (items["h"].shape, items["rate"].shape) == ((1, 4), ())
    net = harness_torch.load(model)
    state, cell, out = torch.zeros(1, 4), net.get_submodule("cell"), net.get_submodule("out")
    for item in torch.from_numpy(items["x"][:5]):
        score, held = net(item[None], state, torch.tensor(2.0))
        state = cell(2 * item[None], state)
        torch.testing.assert_close((score, held), (out(state), state))


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("no_calibration", "splits without 'calibration'"),
        ("float_labels", "class indices"),
        ("nothing", "either inputs or splits"),
        ("no_such_state", "the state 'h' has no output 'h2'; known: 'score', 'hn'"),
        ("no_such_constant", "name 'rat', which is no input"),
        ("trained_steps", "trains a model with states, which runs item by item"),
        ("all_kept", "no input of inputs differs from item to item"),
        ("other", "returns int"),
        ("missing", "has no function 'missing'"),
    ],
)
def test_factories_that_are_wrong_are_refused(module: str, function: str, message: str) -> None:
    with pytest.raises(BadModel, match=message):
        _ = workload("factory", target=f"{module}:{function}").inputs


def test_names_that_are_no_factory_are_refused() -> None:
    with pytest.raises(BadModel, match="not of the form"):
        _ = workload("factory", target="own").inputs
    with pytest.raises(BadModel, match="cannot be imported"):
        _ = workload("factory", target="no_such_package.module:make").inputs


def test_the_fingerprint_follows_the_factory(module: str) -> None:
    fingerprints = {
        work.spec.fingerprint(work.params)
        for name in ("trains", "given", "regression")
        for work in [workload("factory", target=f"{module}:{name}")]
    }
    assert len(fingerprints) == 3


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Red and blue squares in two folders; the colours are the classes."""
    from PIL import Image

    generator = np.random.default_rng(0)
    for name, channel in (("blue", 2), ("red", 0)):
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(40):
            pixels = generator.integers(0, 90, (20, 24, 3), dtype=np.uint8)
            pixels[:, :, channel] += 150
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{i}.png")
    return tmp_path / "images"


def test_an_image_folder_trains_a_network(images: Path, tmp_path: Path) -> None:
    work = workload("image-folder", path=str(images), size=16, epochs=6)
    model = work.spec.fit(work.params, job(work, tmp_path / "out"))
    items = work.spec.split(work.params, "test")
    assert items.inputs["image"].shape[1:] == (3, 16, 16)
    assert harness_torch.evaluate(harness_torch.load(model), job(work, tmp_path / "out"), "test") > 0.9


def test_image_pixels_are_normalised_as_declared(images: Path) -> None:
    from PIL import Image

    from harness_workloads.folder import DEVIATION, MEAN, arrays

    values = arrays(str(images), 20).inputs["image"]
    with Image.open(images / "blue" / "0.png") as image:
        pixels = np.asarray(image.resize((20, 20), Image.Resampling.BILINEAR), np.float32) / 255
    restored = values[0] * np.array(DEVIATION)[:, None, None] + np.array(MEAN)[:, None, None]
    np.testing.assert_allclose(restored, pixels.transpose(2, 0, 1), atol=1e-5)


def test_image_folders_that_are_wrong_are_refused(images: Path) -> None:
    with pytest.raises(BadModel, match="is not there"):
        workload("image-folder", path=str(images / "none")).build()
    with pytest.raises(BadModel, match="at least 2"):
        workload("image-folder", path=str(images / "red")).build()
    (images / "red" / "broken.png").write_bytes(b"no image")
    work = workload("image-folder", path=str(images), size=17)
    with pytest.raises(BadModel, match=r"broken\.png cannot be read"):
        work.spec.split(work.params, "test")


@pytest.mark.parametrize("name", ["torchvision", "timm"])
def test_libraries_that_are_missing_are_named(name: str, tmp_path: Path) -> None:
    try:
        __import__(name)
    except ImportError:
        pass
    else:
        pytest.skip(f"{name} is installed here")
    work = workload(name, size=32)
    with pytest.raises(MissingDependency, match=name) as caught:
        work.spec.fit(work.params, job(work, tmp_path))
    assert caught.value.hint == f"pip install {name}"


def test_published_image_models_run_on_seeded_inputs_or_folders_named_by_class(images: Path) -> None:
    work = workload("torchvision", size=32)
    assert not work.labelled
    assert work.spec.split(work.params, "test").inputs["image"].shape == (64, 3, 32, 32)
    named = workload("torchvision", size=32, images=str(images))
    with pytest.raises(BadModel, match="named by class index"):
        named.spec.split(named.params, "test")
    (images / "blue").rename(images / "207")
    (images / "red").rename(images / "13")
    labels = workload("torchvision", size=33, images=str(images))
    assert set(labels.spec.split(labels.params, "test").labels) == {13, 207}


@pytest.mark.slow
def test_a_local_model_of_transformers(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=50, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, num_labels=3
    )
    transformers.BertForSequenceClassification(config).save_pretrained(tmp_path / "bert")
    ids = np.random.default_rng(0).integers(0, 50, (40, 12))
    np.savez(tmp_path / "d.npz", input_ids=ids, attention_mask=np.ones_like(ids), y=ids[:, 0] % 3)
    work = workload("transformers", model=str(tmp_path / "bert"), data=str(tmp_path / "d.npz"))
    model = work.spec.fit(work.params, job(work, tmp_path / "out"))
    assert work.labelled
    assert model.inputs["input_ids"].shape == (None, 12)
    assert 0 <= harness_torch.evaluate(harness_torch.load(model), job(work, tmp_path / "out"), "test") <= 1
    seeded = workload("transformers", model=str(tmp_path / "bert"), length=9)
    assert seeded.spec.split(seeded.params, "test").inputs["input_ids"].shape == (64, 9)


@pytest.mark.slow
def test_a_model_that_is_not_here_needs_a_download() -> None:
    pytest.importorskip("transformers")
    with pytest.raises(Unsupported, match="needs a download"):
        _ = workload("transformers", model="nobody/no-such-model").inputs
