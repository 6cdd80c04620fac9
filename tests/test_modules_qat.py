"""Ranges of QAT on networks whose layers a runtime does not all show: bound where they can be, named where not."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from workload_jobs import job, workload

import harness_torch
from harness.api import Options, Unsupported
from harness.leaderboard.notes import meaning
from harness_onnx import Bound
from harness_quantization.qat import QatParams, compress

FACTORY = """
import numpy as np, torch
from harness_workloads import UserWorkload
from test_modules_qat import Odd

def make():
    torch.manual_seed(0)
    x = np.random.default_rng(0).normal(size=(64, 2, 16, 16)).astype("float32")
    return UserWorkload(model=Odd(), inputs={"x": x}, outputs=("y",))
"""


class Odd(nn.Module):
    """A convolution that is called twice, and transposed ones with a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.twice = nn.Conv2d(2, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.up, self.head = nn.ConvTranspose2d(8, 8, 2, 2), nn.Conv2d(8, 3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.relu(self.twice(F.relu(self.twice(F.relu(self.stem(x))))))
        return self.head(F.relu(self.up(F.max_pool2d(y, 2))))


@pytest.mark.parametrize("target", ["openvino", "tflite", "onnxruntime"])
def test_ranges_of_transposed_and_shared_layers_bind(target: str, tmp_path: Path) -> None:
    from harness.plugins import load_registry

    (tmp_path / "qat_made.py").write_text(FACTORY)
    work = workload("factory", target=f"{tmp_path}/qat_made.py:make")
    fitted = work.spec.fit(work.params, job(work, tmp_path / "fit"))
    model = compress(fitted, QatParams(epochs=0), job(work, tmp_path / "qat"))
    registry = load_registry()
    spec = registry.targets[target].spec
    exporter = next(
        item.spec for item in registry.exporters.values()
        if item.spec.consumes == "torch" and item.spec.produces in spec.accepts
    )  # fmt: skip
    logging.disable(logging.WARNING)
    exported = exporter.export(model, Options(), job(work, tmp_path / "export"))
    artifact = spec.lower(exported, spec.params(), Options(), job(work, tmp_path / "lower"))
    logging.disable(logging.NOTSET)
    assert not artifact.flags
    assert "ranges given by the encodings" in artifact.how
    assert "own range" not in artifact.how
    session = spec.open(artifact, spec.params(), Options(), "accuracy")
    items = work.spec.split(work.params, "test").inputs["x"][:4]
    got = np.concatenate([session.run({"x": items[i : i + 1]})["y"] for i in range(len(items))])
    session.close()
    wanted = harness_torch.call(harness_torch.load(fitted), {"x": items}, outputs=("y",))["y"]
    assert 10 * np.log10((wanted**2).sum() / ((wanted - got) ** 2).sum()) > 28


def test_what_cannot_bind_is_named_in_the_words_of_the_model() -> None:
    bound = Bound()
    bound.take("body.up.weight", ["t1"], (0.0, 1.0))
    bound.take("head.weight", ["t1"], (0.0, 2.0))
    bound.left["gone.weight"] = "it is not there"
    assert bound.told.startswith("; 1 ranges given by the encodings; the runtime's own range for head (")
    assert bound.flags == ("own_range:head", "own_range:gone")
    assert "layer 'head'" in meaning(bound.flags[0])
    bound.drop(["t1"], "it was fused away")
    with pytest.raises(Unsupported, match="no range of the encodings can be bound, such as that of 'head'"):
        bound.refuse_nothing()


class Averages(nn.Module):
    """A mean over what a mask keeps: a call of zeros alone has no answer."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(9, 4), nn.Linear(4, 2)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        kept = mask[..., None].float()
        return self.head((self.table(ids) * kept).sum(1) / kept.sum(1))


def test_converted_files_are_checked_on_real_items(tmp_path: Path) -> None:
    from harness_tflite.convert import export

    (tmp_path / "averages_made.py").write_text(
        "import numpy as np\nfrom harness_workloads import UserWorkload\nfrom test_modules_qat import Averages\n"
        "def make():\n    ids = np.random.default_rng(0).integers(0, 9, (40, 5))\n"
        "    return UserWorkload(Averages(), {'mask': np.ones_like(ids), 'ids': ids}, outputs=('y',))\n"
    )
    work = workload("factory", target=f"{tmp_path}/averages_made.py:make")
    fitted = work.spec.fit(work.params, job(work, tmp_path / "fit"))
    assert export(fitted, Options(), job(work, tmp_path / "export")).path.is_file()
