"""What a static quantization loses is measured on calibration items and named."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import pytest

from harness.api import LayerOutput
from harness_onnx import loss

FEED = {"x": np.linspace(-1, 1, 64, dtype=np.float32)}


class Session:
    """Two layers and two outputs; ``noise`` is added from a layer on."""

    def __init__(self, first: float = 0.0, second: float = 0.0) -> None:
        self._first, self._second = first, second

    def _values(self, inputs: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        sign = np.where(np.arange(64) % 2, 1, -1)
        one = inputs["x"] + self._first * sign
        return one, 2 * one + self._second * sign

    def run(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        one, two = self._values(inputs)
        return {"early": one, "late": two}

    def layers(self, inputs: dict[str, np.ndarray]) -> Iterator[LayerOutput]:
        one, two = self._values(inputs)
        yield LayerOutput("conv0", "Conv", one)
        yield LayerOutput("conv1", "Conv", two)


def test_no_loss_is_none() -> None:
    assert loss(Session(), Session(first=0.01), [FEED]) is None


@pytest.mark.parametrize(
    ("noisy", "output", "layer", "amplitude", "scale"),
    [(Session(first=0.2), "early", "conv0", 0.2, 1), (Session(second=0.5), "late", "conv1", 0.5, 2)],
    ids=["first", "second"],
)
def test_the_worst_output_and_the_first_layer_are_named(
    noisy: Session, output: str, layer: str, amplitude: float, scale: int
) -> None:
    found = loss(Session(), noisy, [FEED, FEED])
    assert found is not None
    signal = float(((scale * FEED["x"].astype(np.float64)) ** 2).mean())
    assert found.sqnr_db == pytest.approx(10 * np.log10(signal / amplitude**2), abs=0.01)
    assert (found.output, found.layer) == (output, layer)
    assert found.flag == f"under_20_db_from:{layer}"
    assert repr(output) in found.told


def test_a_dead_output_of_zeros_says_nothing() -> None:
    dead = SimpleNamespace(run=lambda feed: {"y": np.zeros(4, np.float32)}, layers=lambda feed: [])
    assert loss(dead, dead, [FEED]) is None
