"""Read an IR without its runtime: where each weight lies in the ``.bin``."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

from harness.api import Span

_DTYPES = {
    "f32": "float32",
    "f16": "float16",
    "f64": "float64",
    "i8": "int8",
    "u8": "uint8",
    "i16": "int16",
    "bf16": "bfloat16",
    "i4": "int4",
    "u4": "uint4",
}
_WRAPPERS = {"Convert", "Multiply", "Subtract", "FakeQuantize", "Reshape"}  # between a stored weight and its layer


def weight_spans(path: Path) -> tuple[Span, ...]:
    """Return the spans, in the ``.bin`` beside an IR, of all constants with two or more dimensions."""
    root = ET.parse(path).getroot()  # noqa: S314  our own file, written a moment ago
    layers = {item.get("id", ""): item for item in root.iter("layer")}
    readers: dict[str, str] = {}
    for edge in root.iter("edge"):
        readers.setdefault(edge.get("from-layer", ""), edge.get("to-layer", ""))
    spans: dict[int, Span] = {}
    for number, layer in layers.items():
        data = layer.find("data")
        if layer.get("type") != "Const" or data is None:
            continue
        shape = tuple(int(size) for size in (data.get("shape") or "").split(",") if size.strip())
        if len(shape) >= 2 and data.get("element_type") in _DTYPES:
            offset, length = int(data.get("offset", 0)), int(data.get("size", 0))
            dtype = _DTYPES[data.get("element_type", "")]
            spans[offset] = Span(offset, length, dtype, shape, _axis(number, layers, readers))  # may be shared
    return tuple(spans[offset] for offset in sorted(spans))


def _axis(number: str, layers: dict[str, ET.Element], readers: dict[str, str]) -> int:
    """Return the output-channel axis of a constant: first in convolutions, by ``transpose_b`` in products."""
    number = readers.get(number, "")
    while number in layers and layers[number].get("type") in _WRAPPERS:
        number = readers.get(number, "")
    layer = layers.get(number)
    if layer is None or layer.get("type") != "MatMul":
        return 0
    data = layer.find("data")
    return 0 if data is not None and data.get("transpose_b") == "true" else -1
