"""Where a quantized model loses its answers: the worst output on calibration items, and the layer where it begins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Arrays = Mapping[str, NDArray[Any]]

LEAST_DB = 20.0  # of signal to quantization noise: below it a tenth of the amplitude is noise


class Watched(Protocol):
    """A session that tells what its operators give."""

    def run(self, inputs: Any) -> Any:
        """Run once and return the outputs by name."""

    def layers(self, inputs: Any) -> Any:
        """Run once and yield a ``LayerOutput`` for each operator."""


@dataclass(frozen=True)
class Loss:
    """What a model loses by being quantized.

    Attributes:
        output: Name of the worst output.
        sqnr_db: Of that output, in decibel.
        layer: The first operator whose result keeps less than ``LEAST_DB``; the output where none does.
    """

    output: str
    sqnr_db: float
    layer: str

    @property
    def flag(self) -> str:
        """What the row shows; a .tflite file names a fused operator after all its parts, of which the first will do."""
        return f"under_{LEAST_DB:.0f}_db_from:{self.layer.partition(';')[0]}"

    @property
    def told(self) -> str:
        """The same in words."""
        worst = f"output {self.output!r} keeps {self.sqnr_db:.1f} dB on calibration items"
        return f"{worst}; {self.layer!r} is the first under {LEAST_DB:.0f} dB"


def loss(exact: Watched, quantized: Watched, feeds: Sequence[Arrays]) -> Loss | None:
    """Compare two sessions of one model, or return None where every output keeps ``LEAST_DB``.

    Args:
        exact: Of the float model.
        quantized: Of the quantized one, with the same names of outputs and operators.
        feeds: A few calls' inputs.
    """
    found = _sqnr([(exact.run(feed), quantized.run(feed)) for feed in feeds])
    worst = min(found, key=lambda name: found[name], default=None)
    if worst is None or found[worst] >= LEAST_DB:
        return None
    inner = _sqnr([(_layers(exact, feed), _layers(quantized, feed)) for feed in feeds[:1]])
    first = next((name for name, value in inner.items() if value < LEAST_DB), worst)
    return Loss(worst, found[worst], first)


def _layers(session: Watched, feed: Arrays) -> dict[str, NDArray[Any]]:
    return {item.name: item.values for item in session.layers(feed)}


def _sqnr(pairs: Sequence[tuple[Arrays, Arrays]]) -> dict[str, float]:
    """Return 10 log10(signal / noise) by name, in the order of the exact values; what is 0 throughout is left out."""
    import numpy as np

    signal: dict[str, float] = {}
    noise: dict[str, float] = {}
    for exact, other in pairs:
        for name, values in exact.items():
            if name not in other or np.shape(values) != np.shape(other[name]) or np.asarray(values).dtype.kind != "f":
                continue
            one, two = np.asarray(values, np.float64), np.asarray(other[name], np.float64)
            if np.isfinite(one).all():
                signal[name] = signal.get(name, 0.0) + float((one**2).sum())
                noise[name] = noise.get(name, 0.0) + float(np.nan_to_num((one - two) ** 2, nan=np.inf).sum())
    least = 1e-30  # of the signal: equal values have 300 dB
    ratios = ((name, power / max(noise[name], least * power)) for name, power in signal.items() if power)
    return {name: float(10 * np.log10(ratio)) for name, ratio in ratios}
