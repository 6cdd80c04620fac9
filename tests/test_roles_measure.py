"""Roles of inputs and outputs while a model is measured: fed, carried, stored and compared; right values by numpy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.errors import HarnessError
from harness.feeds import as_array, carried, feed, shard_name
from harness.measure.inputs import batch_of, rotation
from harness.measure.outputs import write_outputs
from harness.shards import Ragged, load_shard
from harness.stats import fidelity
from harness.stats.closeness import closeness
from harness.types import TensorSpec

ITEM = TensorSpec("float32", (None, 3))
SECOND = TensorSpec("float32", (4, None, 3), axis=1)
SINGLE = TensorSpec("float32", (3,), axis=None)
RATE = TensorSpec("int64", (), "constant", None)
STATE = TensorSpec("float32", (2, None, 3), "state", 1, "hn")


def _saved(folder: Path, **arrays: Any) -> Path:
    for name, array in arrays.items():
        np.save(folder / shard_name(name), array)
    return folder


def test_items_lie_on_their_axis_and_the_rest_is_fed_as_it_is() -> None:
    generator = np.random.default_rng(0)
    arrays = {
        "first": generator.normal(size=(9, 3)), "second": generator.normal(size=(9, 4, 3)),
        "rate": np.array(16000), "state": np.ones((2, 1, 3), np.float32),
    }  # fmt: skip
    specs = {"first": ITEM, "second": SECOND, "rate": RATE, "state": STATE}
    found = feed(specs, arrays, [5, 7])
    assert np.array_equal(found["first"], arrays["first"][[5, 7]].astype(np.float32))
    assert np.array_equal(found["second"], np.stack([arrays["second"][5], arrays["second"][7]], 1).astype(np.float32))
    assert found["second"].shape == (4, 2, 3)
    assert found["second"].flags.c_contiguous
    assert found["rate"].shape == ()
    assert found["rate"] == 16000
    assert found["rate"].dtype == np.int64
    assert found["state"].shape == (2, 2, 3)
    assert np.array_equal(feed({"x": SINGLE}, {"x": arrays["first"]}, [4])["x"], arrays["first"][4].astype(np.float32))


def test_the_batch_is_read_on_the_axis_of_the_items() -> None:
    fixed = TensorSpec("float32", (7, 4), axis=1)
    assert batch_of({"x": fixed, "rate": TensorSpec("int64", (9,), "constant", None)}, 1) == 4
    assert batch_of({"x": SECOND, "rate": RATE}, 5) == 5
    assert batch_of({"x": SINGLE}, 1) == 1
    with pytest.raises(HarnessError, match="different fixed batches"):
        batch_of({"x": fixed, "y": SINGLE}, 4)


def test_the_timed_loop_rotates_items_alone(tmp_path: Path) -> None:
    x = np.arange(30, dtype=np.float32).reshape(10, 3)
    _saved(tmp_path, x=x, rate=np.array(8000), state=np.zeros((2, 1, 3), np.float32))
    pool = rotation(tmp_path, {"x": ITEM, "rate": RATE, "state": STATE}, batch=2, distinct=5, seed=0)
    assert sorted(int(row[0]) // 3 for item in pool for row in item["x"]) == list(range(10))
    assert all(item["rate"] == 8000 and item["state"].shape == (2, 2, 3) for item in pool)


def test_without_states_a_call_is_the_very_same_object() -> None:
    def run(inputs: Any) -> Any:
        return inputs

    assert carried(run, {"x": ITEM, "rate": RATE}) is run


def test_states_are_carried_in_order_and_start_anew(tmp_path: Path) -> None:
    x = np.arange(12, dtype=np.float32).reshape(4, 3)
    _saved(tmp_path, x=x, h=np.full((1, 3), 10, np.float32))
    specs = {"x": ITEM, "h": TensorSpec("float32", (None, 3), "state", 0, "hn")}

    def call(inputs: Any) -> Any:
        return {"o": inputs["x"] + inputs["h"], "hn": inputs["h"] + inputs["x"]}

    for again in range(2):
        files, batch = write_outputs(call, specs, {}, tmp_path, tmp_path / str(again), batch=8, items=None)
        assert batch == 1
        assert np.array_equal(load_shard(files["o"]), 10 + np.cumsum(x, axis=0))


def test_outputs_are_stored_items_first_or_as_one_entry_of_their_call(tmp_path: Path) -> None:
    x = np.arange(15, dtype=np.float32).reshape(5, 3)
    _saved(tmp_path, x=x)

    def call(inputs: Any) -> Any:
        return {"turned": np.stack([inputs["x"], -inputs["x"]]), "plain": inputs["x"]}

    files, batch = write_outputs(call, {"x": ITEM}, {"turned": 1}, tmp_path, tmp_path / "a", batch=2, items=None)
    assert batch == 2
    assert np.array_equal(load_shard(files["turned"]), np.stack([x, -x], axis=1))

    def whole(inputs: Any) -> Any:
        return {"sum": inputs["x"].sum(), "const": np.array([1, 2])}

    files, batch = write_outputs(
        whole, {"x": ITEM}, {"sum": None, "const": None}, tmp_path, tmp_path / "b", batch=2, items=None
    )
    assert batch == 1
    assert np.array_equal(load_shard(files["sum"]), x.sum(axis=1))
    assert np.array_equal(load_shard(files["const"]), [[1, 2]] * 5)
    with pytest.raises(HarnessError, match="dimension 1 is not the batch of 2"):
        write_outputs(call, {"x": TensorSpec("float32", (2, 3))}, {"turned": 0, "plain": 1}, tmp_path, tmp_path / "c",
                      batch=2, items=4)  # fmt: skip


def test_items_of_unlike_shapes_are_stored_and_compared_one_by_one(tmp_path: Path) -> None:
    x = np.array([[3], [0], [2], [2]], np.float32)
    _saved(tmp_path, x=x)

    def call(inputs: Any) -> Any:
        return {"found": np.arange(inputs["x"][0, 0] * 2).reshape(-1, 2) + 1.0}

    spec = {"x": TensorSpec("float32", (None, 1))}
    files, _batch = write_outputs(call, spec, {"found": None}, tmp_path, tmp_path / "o", batch=4, items=None)
    stored = load_shard(files["found"])
    assert isinstance(stored, Ragged)
    assert [item.tolist() for item in stored] == [
        [[1, 2], [3, 4], [5, 6]], [], [[1, 2], [3, 4]], [[1, 2], [3, 4]],
    ]  # fmt: skip
    same = fidelity({"o": stored}, {"o": stored}).figures
    assert same["sqnr_db"] == 300
    assert same["outside_share"] == 0
    assert same["max_abs_error"] == 0
    other = Ragged(np.array([1.0, 2, 3, 4, 5, 6, 1, 2, 1, 2, 3, 4.5]), ((3, 2), (0, 2), (1, 2), (2, 2)))
    found = fidelity({"o": other}, {"o": stored}).figures
    noise = (1 + 4) + (1 + 4 + 9 + 16) + 0.25  # the third item counts as wholly different, on both sides
    signal = sum(float((item**2).sum()) for item in stored)
    assert found["sqnr_db"] == pytest.approx(10 * np.log10(signal / noise))
    assert found["max_abs_error"] == 4
    assert "top1_agreement" not in found


def test_sequences_maps_and_strings_become_arrays() -> None:
    assert as_array([np.zeros((2, 1)), np.ones((2, 1))]).shape == (2, 2, 1)
    assert as_array([np.zeros(2), np.ones(3)]).tolist() == [0, 0, 1, 1, 1]
    assert as_array([{0: 0.25, 1: 0.75}, {0: 0.5, 1: 0.5}]).tolist() == [[0.25, 0.75], [0.5, 0.5]]
    words = as_array(np.array(["cat", "dog", "cat"], object))
    assert words.dtype == np.int64
    assert words[0] == words[2] != words[1]
    assert as_array([]).shape == (0,)


def test_agreement_is_counted_along_the_declared_axis_of_classes() -> None:
    generator = np.random.default_rng(1)
    anchor = generator.normal(size=(6, 3, 4, 5))
    cell = anchor + generator.normal(scale=0.4, size=anchor.shape)
    share = float((anchor.argmax(1) == cell.argmax(1)).mean())
    assert fidelity({"o": cell}, {"o": anchor}, classes={"o": 1}).figures["top1_agreement"] == pytest.approx(share)
    assert "top1_agreement" not in fidelity({"o": cell}, {"o": anchor}, classes={}).figures
    chosen, other = np.array([1, 2, 2, 0]), np.array([1, 2, 1, 0])
    assert fidelity({"o": chosen}, {"o": other}, classes={"o": -1}).figures["top1_agreement"] == 0.75


def test_the_oracle_tells_the_first_item_of_another_shape() -> None:
    wanted = Ragged(np.array([1.0, 2, 3, 4, 5]), ((1, 2), (1, 2), (1, 1)))
    found = closeness(wanted, wanted, due_db=60)
    assert (found.sqnr_db, found.first_item, found.differs) == (300, None, "")
    other = Ragged(np.array([1.0, 2, 3, 4, 9, 5]), ((1, 2), (1, 3), (1, 1)))
    found = closeness(other, wanted, due_db=60)
    assert found.first_item == found.worst_item == 1
    assert found.sqnr_db == pytest.approx(10 * np.log10(55 / (9 + 16 + 81 + 9 + 16)))
    assert closeness(np.zeros((3, 1, 2)), wanted, due_db=60).first_item == 0
