"""Packing gives back every byte, and counts what a bit-packed or sparse tensor must take."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from harness.api import Span, Unsupported, stored_size
from harness.errors import HarnessError
from harness.packing import pack, packed_as, unpack

HEADER = 5 + 12  # magic, raw length and number of records
RECORD = 34

DTYPES = ("float32", "float16", "float64", "int8", "int16", "int32", "uint8")


def one_span(values: np.ndarray, *, axis: int = 0, before: bytes = b"", after: bytes = b"") -> tuple[bytes, Span]:
    raw = before + values.tobytes() + after
    return raw, Span(len(before), values.nbytes, str(values.dtype), values.shape, axis)


@st.composite
def tensors(draw: st.DrawFn) -> tuple[np.ndarray, int]:
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    shape = draw(hnp.array_shapes(min_dims=1, max_dims=4, min_side=1, max_side=5))
    axis = draw(st.integers(-len(shape), len(shape) - 1))
    kind = draw(st.sampled_from(["any", "binary", "sparse"]))
    values = draw(hnp.arrays(dtype, shape))
    if kind == "binary":
        sign = np.where(draw(hnp.arrays(bool, shape)), 1, -1).astype(dtype)
        values = np.take(values, [0], axis=axis).ravel()[:1].astype(dtype) * sign
    if kind == "sparse":
        values = np.where(draw(hnp.arrays(np.int8, shape, elements=st.integers(0, 9))) == 0, values, 0).astype(dtype)
    return np.ascontiguousarray(values), axis


Parts = list[tuple[bytes, tuple[np.ndarray, int]]]


@given(
    st.lists(st.tuples(st.binary(max_size=9), tensors()), max_size=4),
    st.binary(max_size=9),
    st.sampled_from(["dense", "packed", "sparse"]),
)
def test_round_trip_restores_every_byte(parts: Parts, tail: bytes, storage: str) -> None:
    raw, spans = b"", []
    for gap, (values, axis) in parts:
        raw += gap
        spans.append(Span(len(raw), values.nbytes, str(values.dtype), values.shape, axis))
        raw += values.tobytes()
    raw += tail
    packed = pack(raw, spans[::-1], storage)
    assert unpack(packed) == raw
    assert len(packed) <= len(raw) + HEADER


@pytest.mark.parametrize(("shape", "axis"), [((64, 32, 3, 3), 0), ((32, 64, 3, 3), 1), ((100, 10), -1)])
def test_binary_tensor_takes_one_bit_an_item_and_one_scale_a_channel(shape: tuple[int, ...], axis: int) -> None:
    rng = np.random.default_rng(0)
    others = [i for i in range(len(shape)) if i != axis % len(shape)]
    scale = np.expand_dims(rng.random(shape[axis], np.float32), others)
    values = np.where(rng.random(shape) < 0.5, scale, -scale)
    raw, span = one_span(values, axis=axis, before=b"head", after=b"tail!")
    packed = pack(raw, [span], "packed")
    assert len(packed) == HEADER + RECORD + 9 + values.size // 8 + 4 * shape[axis]
    assert packed_as(packed) == "1-bit packed"
    assert unpack(packed) == raw


def test_one_item_that_differs_in_its_last_bit_is_kept_as_it_is() -> None:
    values = np.full((8, 64), 0.5, np.float32)
    values[3, 7] = np.nextafter(np.float32(0.5), np.float32(1))
    raw, span = one_span(values)
    packed = pack(raw, [span], "packed")
    assert packed_as(packed) == ""
    assert unpack(packed) == raw


def test_sparse_tensor_takes_a_bitmask_and_its_values_and_keeps_negative_zero() -> None:
    values = np.zeros((16, 64), np.float32)
    values[:, ::8] = 1.5
    values[0, 1] = -0.0
    raw, span = one_span(values)
    packed = pack(raw, [span], "sparse")
    assert len(packed) == HEADER + RECORD + values.size // 8 + 4 * (16 * 8 + 1)
    assert packed_as(packed) == "sparse bitmask"
    assert unpack(packed) == raw


def test_int8_weights_of_a_binarized_tensor_pack_too() -> None:
    values = np.where(np.arange(4096).reshape(16, 256) % 3 == 0, np.int8(127), np.int8(-127)).astype(np.int8)
    raw, span = one_span(values)
    assert len(pack(raw, [span], "packed")) == HEADER + RECORD + 4096 // 8 + 16


def test_uint8_weights_around_their_zero_point_pack_too() -> None:
    values = np.where(np.arange(4096).reshape(16, 256) % 3 == 0, 128, 128 + 91).astype(np.uint8)
    raw, span = one_span(values)
    packed = pack(raw, [span], "sparse")
    assert len(packed) == HEADER + RECORD + 4096 // 8 + int((values != 128).sum())
    assert unpack(packed) == raw


def test_most_negative_int8_has_no_positive_form_and_still_comes_back() -> None:
    raw, span = one_span(np.full((4, 512), -128, np.int8))
    assert unpack(pack(raw, [span], "packed")) == raw


@pytest.mark.parametrize("spans", [
    [Span(0, 8, "float32", (2,)), Span(4, 4, "float32", (1,))],
    [Span(8, 16, "float32", (4,))],
    [Span(0, 8, "float32", (3,))],
    [Span(0, 8, "float32", (2,), 1)],
])  # fmt: skip
def test_wrong_spans_are_refused(spans: list[Span]) -> None:
    with pytest.raises(HarnessError, match="span at byte"):
        pack(bytes(16), spans, "packed")


def test_storage_without_a_decoder_is_unsupported() -> None:
    with pytest.raises(Unsupported, match="zip"):
        pack(b"", [], "zip")


@pytest.mark.parametrize("cut", [3, 12, 30, 60, -1])
def test_a_cut_file_is_refused(cut: int) -> None:
    raw, span = one_span(np.zeros((16, 64), np.float32), after=b"tail")
    with pytest.raises(HarnessError, match="packed file"):
        unpack(pack(raw, [span], "sparse")[:cut])


def test_stored_size_writes_only_when_asked(tmp_path: Path) -> None:
    raw, span = one_span(np.ones((32, 64), np.float32))
    path = tmp_path / "weights.bin"
    path.write_bytes(raw)
    size, how = stored_size(path, [span], "packed")
    assert (size, how) == (HEADER + RECORD + 32 * 64 // 8 + 32 * 4, "1-bit packed")
    assert list(tmp_path.iterdir()) == [path]
    assert stored_size(path, [span], "dense") == (len(raw), "")
    stored_size(path, [span], "packed", write=tmp_path / "weights.hpk")
    assert unpack((tmp_path / "weights.hpk").read_bytes()) == raw


def test_stored_size_is_the_files_own_where_nothing_packs(tmp_path: Path) -> None:
    path = tmp_path / "weights.bin"
    raw, span = one_span(np.random.default_rng(0).random((8, 8), np.float32))
    path.write_bytes(raw)
    assert stored_size(path, [span], "sparse") == (len(raw), "")


def few(shape: tuple[int, ...], entries: int, dtype: str = "float32", seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.choice(rng.standard_normal(entries) * 50, shape).astype(dtype)


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8", "uint8", "float64"])
@pytest.mark.parametrize("entries", [1, 2, 3, 16, 17, 200])
def test_codebook_gives_every_bit_back(entries: int, dtype: str) -> None:
    raw = b"head" + (values := few((24, 12, 3, 3), entries, dtype)).tobytes() + b"tail"
    span = Span(4, values.nbytes, dtype, values.shape)
    packed = pack(raw, [span], "codebook")
    assert unpack(packed) == raw


@pytest.mark.parametrize(("entries", "bits"), [(3, 2), (4, 2), (16, 4), (32, 5)])
def test_codebook_needs_a_table_and_log2_bits_per_item(entries: int, bits: int) -> None:
    values = few((64, 64), entries)
    packed = pack(values.tobytes(), [Span(0, values.nbytes, "float32", values.shape)], "codebook")
    used = len(np.unique(values))
    assert used == entries
    payload = 2 + 4 * entries + values.size * bits // 8
    assert abs(len(packed) - payload) < 70  # magic, header and one record


def test_a_table_per_channel_where_channels_have_values_of_their_own() -> None:
    rng = np.random.default_rng(1)
    scale = rng.random((40, 1, 1)).astype(np.float32)
    values = rng.choice(np.array([-1, 0, 1], np.float32), (40, 30, 9)) * scale  # ternary
    packed = pack(values.tobytes(), [Span(0, values.nbytes, "float32", values.shape)], "codebook")
    assert packed_as(packed) == "codebook"
    assert len(packed) < values.size * 2 / 8 + 40 * 4 * 4 + 80
    assert unpack(packed) == values.tobytes()


def test_many_values_stay_dense_under_codebook() -> None:
    values = np.random.default_rng(2).standard_normal(9000).astype(np.float32)
    packed = pack(values.tobytes(), [Span(0, values.nbytes, "float32", values.shape)], "codebook")
    assert packed_as(packed) == ""
