"""Outputs against the reference: figures in closed form, planted faults, and what is said of them."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest

from harness.bench import oracle
from harness.bench.quality import refuse_infinite
from harness.build.plane import Built, Evaluation
from harness.build.reference import Reference
from harness.errors import Unsupported
from harness.stats.closeness import closeness
from harness.types import Artifact, Model, Placement, TensorSpec

RNG = np.random.default_rng(0)
SCORES = RNG.normal(size=(64, 10)).astype("float32")


def detections() -> np.ndarray:
    """Boxes of thousands of pixels and scores of 0 to 1 in one output [n, 4 + classes, anchors]."""
    boxes = RNG.normal(scale=3000, size=(8, 4, 50))
    return np.concatenate([boxes, RNG.uniform(size=(8, 3, 50))], axis=1).astype("float32")


# -- figures


def test_sqnr_is_that_of_the_formula():
    reference = np.ones((10, 4), "float32")
    found = closeness(reference + np.float32(0.125), reference)
    assert found.sqnr_db == pytest.approx(10 * math.log10(1 / 0.125**2))
    assert found.max_abs_error == found.mean_abs_error == 0.125
    assert found.cosine == pytest.approx(1)
    assert found.agreement is None
    assert found.equal is None


def test_equal_outputs_reach_the_cap_and_have_no_first_item():
    found = closeness(SCORES, SCORES.copy(), due_db=60, classes=1)
    assert (found.sqnr_db, found.agreement, found.first_item, found.lost_count) == (300, 1, None, 0)


def test_the_first_and_the_worst_item_are_told():
    ours = SCORES.copy()
    ours[17] += 0.1
    ours[40] += 1
    found = closeness(ours, SCORES, due_db=60)
    noise = 10 * 0.1**2 + 10 * 1**2
    assert found.sqnr_db == pytest.approx(10 * math.log10(float((SCORES.astype(float) ** 2).sum()) / noise), abs=1e-4)
    assert (found.first_item, found.worst_item) == (17, 40)


def test_agreement_is_along_the_declared_axis():
    reference = np.zeros((2, 3, 4))
    reference[:, 0] = 1
    ours = reference.copy()
    ours[1, 2, 0] = 5  # one of eight choices
    assert closeness(ours, reference, classes=1).agreement == pytest.approx(7 / 8)


def test_not_a_number_at_the_same_place_is_equal_and_elsewhere_is_an_error_without_bound():
    reference = SCORES.copy()
    reference[3, 2], reference[4, 5], reference[5, 6] = np.nan, -np.inf, np.finfo("float32").min
    same = closeness(reference.copy(), reference, due_db=60)
    assert (same.sqnr_db, same.not_numbers) == (300, 1 / SCORES.size)
    moved = reference.copy()
    moved[3, 2], moved[3, 3] = 0, np.nan
    found = closeness(moved, reference, due_db=60)
    assert (found.sqnr_db, found.first_item, found.max_abs_error) == (-300, 3, None)


def test_the_largest_float_stands_for_infinity_and_does_not_hide_the_rest():
    reference = SCORES.copy()
    reference[:, 0] = np.finfo("float32").min
    ours = reference.copy()
    ours[:, 1:] = 0
    assert closeness(ours, reference).sqnr_db == pytest.approx(0)


def test_large_doubles_do_not_overflow():
    reference = np.full((4, 3), 1e29)
    assert closeness(reference * 1.01, reference).sqnr_db == pytest.approx(40)


def test_integers_truth_values_and_texts_are_compared_for_equality():
    labels = np.arange(100)
    ours = labels.copy()
    ours[7] = 0
    assert (closeness(ours, labels, due_db=60).equal, closeness(ours, labels, due_db=60).first_item) == (0.99, 7)
    assert closeness(labels > 3, labels > 4).equal == 0.99
    texts = np.array(["a", "b", "c", "d"])
    found = closeness(np.array(["a", "x", "c", "d"]), texts)
    assert (found.equal, found.first_item) == (0.75, 1)


def test_another_shape_or_number_of_items_is_told():
    assert closeness(SCORES[:60], SCORES).differs == "shape [60, 10] where the reference has [64, 10]"


def test_blocks_give_what_the_whole_gives(monkeypatch):
    ours = SCORES + RNG.normal(scale=0.01, size=SCORES.shape).astype("float32")
    whole = closeness(ours, SCORES, due_db=30, classes=1)
    monkeypatch.setattr("harness.stats.closeness.BLOCK_ELEMENTS", 30)
    parts = closeness(ours, SCORES, due_db=30, classes=1)
    for name in ("sqnr_db", "worst_item", "first_item", "max_abs_error", "mean_abs_error", "cosine", "agreement"):
        assert getattr(parts, name) == pytest.approx(getattr(whole, name)), name
    assert [(item.axis, item.index) for item in parts.slices] == [(item.axis, item.index) for item in whole.slices]


# -- slices


def test_scores_that_all_became_zero_are_lost_though_the_average_is_good():
    reference = detections()
    ours = reference + RNG.normal(scale=30, size=reference.shape).astype("float32")
    ours[:, 4:] = 0
    found = closeness(ours, reference)
    assert found.sqnr_db > 35
    assert [(item.axis, item.index) for item in found.lost] == [(1, 4), (1, 5), (1, 6)]
    assert all(item.sqnr_db == pytest.approx(0) for item in found.lost)
    assert found.slices[0] == found.lost[0]


def test_a_slice_under_noise_is_lost_though_it_varies():
    reference = detections()
    ours = reference + RNG.normal(scale=3, size=reference.shape).astype("float32")
    found = closeness(ours, reference)
    assert {item.index for item in found.lost if item.axis == 1} == {4, 5, 6}


def test_what_is_bad_all_over_has_no_lost_slice():
    found = closeness(RNG.normal(size=SCORES.shape), SCORES)
    assert found.sqnr_db < 3
    assert found.lost_count == 0


def test_what_no_method_taught_is_lost_where_it_is_bad_all_over():
    ours = RNG.normal(size=SCORES.shape)
    found = closeness(ours, SCORES, retrained=False)
    assert found.lost_count == SCORES.shape[1]
    one = closeness(ours[:, :1], SCORES[:, :1], retrained=False)  # an output of one value has no slices
    assert (one.lost, one.lost_count) == ((), 1)
    assert closeness(SCORES, SCORES, retrained=False).lost_count == 0


def test_a_class_that_is_hardly_ever_chosen_may_round_to_nothing():
    reference = np.zeros((100, 4))
    reference[np.arange(100), np.arange(100) % 3] = 1
    reference[:, 3] = RNG.uniform(0, 0.002, size=100)
    ours = np.round(reference * 255) / 255
    assert closeness(ours, reference, classes=1).lost_count == 0
    ours[:, 2] = 0
    assert [item.index for item in closeness(ours, reference, classes=1).lost] == [2]


# -- the verdict


def built(tmp_path: Path, reference: dict[str, np.ndarray], realised: str = "float32") -> Built:
    files = {}
    for name, array in reference.items():
        files[name] = tmp_path / f"{name}.npy"
        np.save(files[name], array)
    artifact = Artifact(tmp_path / "a", "onnx", "0" * 64, realised, "", 1, 1)
    items = len(next(iter(reference.values())))
    model = Model("onnx", tmp_path / "m", {"x": TensorSpec("float32", (None, 4))}, tuple(reference))
    evaluation = Evaluation(tmp_path, items, False, "", model.inputs)
    return Built(artifact, model, evaluation, {}, False, reference=Reference("torch eager", items, files))


def wrong(tmp_path, ours, reference, *, realised="float32", placements=(), binding=True) -> str:
    cell = built(tmp_path, reference, realised)
    return oracle.judge(ours, cell, placements, binding=binding, choice={}).wrong


FAULTS = {
    "one channel's scale off": lambda y: y * np.where(np.arange(10) == 3, 1.01, 1),
    "items shifted by one": lambda y: np.roll(y, 1, axis=0),
    "a short last batch padded with its own rest": lambda y: np.concatenate([y[:-2], y[:2]]),
    "softmax over the wrong axis": lambda y: np.exp(y) / np.exp(y).sum(axis=0),
    "a slightly wrong epsilon": lambda y: y * 1.002,
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_planted_faults_are_wrong_answers(tmp_path, fault):
    told = wrong(tmp_path, {"y": fault(SCORES)}, {"y": SCORES})
    assert told.startswith("output 'y', item ")
    assert told.endswith("dB over all items against torch eager, at least 60 dB is due")


def test_the_order_of_sums_is_no_fault(tmp_path):
    ours = SCORES * (1 + RNG.uniform(-1e-5, 1e-5, size=SCORES.shape))
    assert wrong(tmp_path, {"y": ours}, {"y": SCORES}) == ""


def test_outputs_of_one_shape_that_changed_places_are_wrong(tmp_path):
    told = wrong(tmp_path, {"a": SCORES[::-1], "b": SCORES}, {"a": SCORES, "b": SCORES[::-1]})
    assert told.startswith("output 'a', item 0: ")


def test_a_missing_output_is_wrong(tmp_path):
    assert wrong(tmp_path, {"z": SCORES}, {"y": SCORES}) == "output 'y' is missing; there are 'z'"


def test_scores_that_are_gone_fail_an_anchor_that_is_right_on_average(tmp_path):
    reference = detections()
    ours = reference.copy()
    ours[:, 5] = 0
    assert "index 5 of axis 1 is lost" in wrong(tmp_path, {"y": ours}, {"y": reference})


def test_half_precision_is_held_to_what_half_precision_gives(tmp_path):
    ours = {"y": SCORES.astype("float16").astype("float32") * np.float32(1.002)}  # 54 dB
    assert wrong(tmp_path, ours, {"y": SCORES}) != ""
    assert wrong(tmp_path, ours, {"y": SCORES}, realised="float16") == ""
    ran = (Placement("MatMul", "m", "k", "cpu", "bfloat16", macs=10),)
    assert wrong(tmp_path, ours, {"y": SCORES}, placements=ran) == ""
    check = oracle.judge(ours, built(tmp_path, {"y": SCORES}), ran, binding=True, choice={})
    assert (check.precision, check.due_db) == ("bfloat16", 25)
    assert oracle.leaked(check, built(tmp_path, {"y": SCORES}).artifact)


def test_a_file_of_half_floats_is_held_to_them_and_leaks_nothing(tmp_path):
    cell = built(tmp_path, {"y": SCORES})
    half = dataclasses.replace(cell.artifact, weight_bytes={"float16": 100, "float32": 4})
    ours = {"y": SCORES * np.float32(1.002)}
    check = oracle.judge(ours, dataclasses.replace(cell, artifact=half), (), binding=True, choice={})
    assert (check.precision, check.wrong) == ("float16", "")
    assert not oracle.leaked(check, half)


def test_tensor_float_32_counts_where_the_user_asked_for_it(tmp_path):
    artifact = built(tmp_path, {"y": SCORES}).artifact
    assert oracle.ran_in(artifact, (), tf32=True) == "tf32"
    assert oracle.ran_in(dataclasses.replace(artifact, realised="float16"), (), tf32=True) == "float16"


def test_an_int8_kernel_excuses_no_float32_anchor(tmp_path):
    ran = (Placement("MatMul", "m", "k", "cpu", "int8", macs=10),)
    assert wrong(tmp_path, {"y": SCORES * np.float32(1.01)}, {"y": SCORES}, placements=ran) != ""


def test_a_compressed_cell_may_differ_and_is_compared_all_the_same(tmp_path):
    ours = {"y": SCORES * np.float32(0.9)}
    check = oracle.judge(ours, built(tmp_path, {"y": SCORES}, "int8"), (), binding=False, choice={})
    assert (check.wrong, check.due_db) == ("", None)
    assert check.sqnr_db == pytest.approx(20, abs=0.01)


def test_another_number_of_dimensions_is_wrong_in_a_compressed_cell_too(tmp_path):
    found = oracle.judge({"y": SCORES[:, None]}, built(tmp_path, {"y": SCORES}), (), binding=False, choice={})
    assert found.wrong.startswith("output 'y' has shape [64, 1, 10] where the reference has [64, 10], by ")
    fewer = oracle.judge({"y": SCORES[:, :3]}, built(tmp_path, {"y": SCORES}), (), binding=False, choice={})
    assert (fewer.wrong, oracle.oracle_flags(fewer)) == ("", ("output_slice_lost",))


def test_a_model_that_answers_nothing_but_nan_is_no_measure(tmp_path):
    nothing = np.full_like(SCORES, np.nan)
    check = oracle.judge({"y": nothing}, built(tmp_path, {"y": nothing}), (), binding=True, choice={})
    assert oracle.refused(check).startswith("the model itself answers nothing but NaN in output 'y'")
    some = SCORES.copy()
    some[0, 0] = np.nan
    check = oracle.judge({"y": some}, built(tmp_path, {"y": some}), (), binding=True, choice={})
    assert (oracle.refused(check), oracle.oracle_flags(check)) == ("", ("nan_outputs",))


@pytest.mark.parametrize(("ours", "flags"), [(70_707_072, ("integers_differ",)), (70_707_070, ())])
def test_integers_that_are_near_and_not_equal_are_flagged(tmp_path, ours, flags):
    cell = built(tmp_path, {"y": np.full((8, 2), 70_707_070, np.int32)})
    check = oracle.judge({"y": np.full((8, 2), ours, np.int32)}, cell, (), binding=True, choice={})
    assert (oracle.refused(check), oracle.oracle_flags(check)) == ("", flags)
    free = oracle.judge({"y": np.full((8, 2), ours, np.int32)}, cell, (), binding=False, choice={})
    assert oracle.oracle_flags(free) == ()


def test_a_cell_that_the_second_oracle_judged_says_so(tmp_path):
    cell = built(tmp_path, {"y": SCORES})
    second = dataclasses.replace(cell, reference=dataclasses.replace(cell.reference, passed="the first: other values"))
    check = oracle.judge({"y": SCORES}, second, (), binding=True, choice={})
    assert (check.passed, oracle.oracle_flags(check)) == ("the first: other values", ("second_oracle",))


def test_without_a_reference_the_reason_is_kept(tmp_path):
    cell = dataclasses.replace(built(tmp_path, {"y": SCORES}), reference=Reference(reason="torch is not installed"))
    check = oracle.judge({"y": SCORES}, cell, (), binding=True, choice={})
    assert (check.reason, oracle.refused(check)) == ("torch is not installed", "")


def test_infinity_is_refused_where_the_model_itself_is_finite():
    reference = SCORES.copy()
    reference[2, 1] = -np.inf
    refuse_infinite({"y": reference.copy()}, {"y": reference})
    with pytest.raises(Unsupported, match="NaN or infinite for 1 of 64 items"):
        refuse_infinite({"y": reference.copy()}, {"y": SCORES})
    with pytest.raises(Unsupported, match="NaN or infinite for 1 of 64 items"):
        refuse_infinite({"y": reference.copy()})


def test_the_table_of_tolerances_is_the_one_in_the_documentation():
    text = (Path(__file__).parents[1] / "docs" / "measurement.md").read_text()
    for name, due in oracle.TOLERANCES.items():
        assert f"| {name} | {due.due_db:g} dB | {due.equal:.0%} | {due.why} |" in text


def test_the_methods_that_keep_the_function_say_so():
    from harness.plugins import load_registry

    registry = load_registry(only={"baseline", "decomposition", "quantization", "pruning"})
    exact = {name for name, offer in registry.methods.items() if offer.spec.exact}
    assert exact == {"baseline", "batchnorm-folding", "split", "weight-equalization"}
