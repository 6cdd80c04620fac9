"""The build step that asks an oracle: made once, cached, carried by packs, and of no cost to a cell where it fails."""

from __future__ import annotations

import build_support
import numpy as np
import pytest

from harness.build import Cache, build_plan, open_pack, write_pack
from harness.errors import BadModel, HarnessError

ORACLE = """

class Dot:
    label = "numpy dot"

    def __init__(self, path, fault=""):
        self.weights, self.fault = np.load(path), fault

    def run(self, given):
        note("reference")
        if self.fault == "raise":
            raise NotImplementedError("no operator Dot\\nat line 3")
        if self.fault == "slow":
            time.sleep(0.05)
        return {"y": given["x"] @ self.weights}


class Slow(Dot):
    label = "slow dot"


def open_dot(model, job):
    FAULTS


@hookimpl
def harness_oracles():
    from harness.api import OracleSpec

    return [OracleSpec(name="toy", summary="numpy", consumes="toy", open=open_dot, batch=8)]
"""


@pytest.fixture
def toy(tmp_path, monkeypatch):
    yield build_support.install(tmp_path, monkeypatch)
    build_support.forget()


def offer(toy, how="yield Dot(model.path)"):
    toy.source.write_text(toy.source.read_text() + ORACLE.replace("FAULTS", how))


def answers(built):
    return np.load(built.reference.files["y"])


def test_the_fitted_model_answers_once_for_all_methods_and_targets(toy):
    offer(toy)
    results = toy.build("toy-base", "toy-prune", "toy-prune+toy-int8", targets=("toy-runtime", "toy-other"))
    assert toy.ran().count("reference") == 5  # 20 items by 8; the first ones again, and one alone
    files = {built.reference.files["y"] for built in results.values()}
    assert len(files) == 1
    built = results["toy-prune", "toy-runtime"]
    assert (built.reference.oracle, built.reference.items, built.reference.batch) == ("numpy dot", 20, 8)
    fitted = np.load(built.model.path)  # a copy of the pruned model: the reference is the one before
    x = np.load(built.evaluation.folder / "x.npy")
    assert not np.allclose(answers(built), x @ fitted)
    base = results["toy-base", "toy-runtime"]
    np.testing.assert_allclose(answers(base), x @ np.load(base.model.path), rtol=1e-6)
    assert base.seconds["reference"] > 0


def test_a_second_build_asks_nobody(toy):
    offer(toy)
    first = toy.build("toy-base")["toy-base"]
    toy.ran()
    second = toy.build("toy-base")["toy-base"]
    assert toy.ran() == []
    assert second.reference == first.reference
    assert second.cached


def test_other_items_are_asked_for_anew_and_labels_are_not_looked_at(toy):
    offer(toy)
    toy.build("toy-base")
    toy.ran()
    key = toy.build("toy-base")["toy-base"].keys["reference"]
    assert toy.build("toy-base", workloads=("toy-task:items=12",))["toy-base"].keys["reference"] != key
    assert "labels" not in str(toy.cache.get(key[0]).result.inputs["items"])


def test_an_oracle_that_fails_costs_no_cell_and_is_told(toy):
    offer(toy, "yield Dot(model.path, 'raise')")
    built = toy.build("toy-base")["toy-base"]
    assert built.artifact.path.exists()
    assert built.reference.files == {}
    assert "numpy dot: NotImplementedError: no operator Dot" in built.reference.reason
    assert "line 3" not in built.reference.reason


def test_without_an_oracle_for_the_format_the_reason_says_so(toy):
    built = toy.build("toy-base")["toy-base"]
    assert built.reference.reason == "no plugin defines what the model of toy-task answers"


def test_the_next_oracle_answers_where_the_first_fails(toy):
    offer(toy, "yield Dot(model.path, 'raise')\n    yield Slow(model.path)")
    found = toy.build("toy-base")["toy-base"].reference
    assert (found.oracle, found.passed) == ("slow dot", "numpy dot: NotImplementedError: no operator Dot")


def test_an_oracle_that_would_take_too_long_is_passed_over_unless_it_is_the_only_one(monkeypatch, tmp_path):
    from harness.build import reference
    from harness.types import Model, TensorSpec

    monkeypatch.setattr(reference, "BUDGET_S", 0.1)
    (tmp_path / "items").mkdir()
    np.save(tmp_path / "items" / "x.npy", np.ones((20, 4), "float32"))
    model = Model("toy", tmp_path / "m", {"x": TensorSpec("float32", (None, 4))}, ("y",))

    class Oracle:
        def __init__(self, label, seconds):
            self.label, self.seconds = label, seconds

        def run(self, given):
            import time

            time.sleep(self.seconds)
            return {"y": given["x"].sum(axis=1)}

    def ask(*oracles):
        args = (model, tmp_path / "items", 20, tmp_path / "out", lambda *_told: None)
        return reference.write_reference(oracles, *args, batch=5)

    quick = ask(Oracle("slow", 0.05), Oracle("quick", 0))
    assert (quick.oracle, quick.passed) == ("quick", "")  # nothing speaks against the slow one's answers
    assert ask(Oracle("slow", 0.05)).oracle == "slow"
    np.testing.assert_array_equal(np.load(ask(Oracle("quick", 0)).files["y"]), np.full(20, 4))


def test_the_reference_travels_in_a_pack(toy, tmp_path):
    offer(toy)
    plan, registry, states = toy.plan("toy-base", "toy-prune+toy-int8")
    results = build_plan(plan, toy.cache, registry=registry, states=states)
    toy.ran()
    path = write_pack(plan, results, toy.cache, tmp_path / "b.hpk")
    opened = open_pack(path, plan, registry=registry, states=states, cache=Cache(tmp_path / "elsewhere"))
    assert toy.ran() == []
    for cell_id, before in results.items():
        after = opened[cell_id]
        assert after.reference.files["y"].is_relative_to(tmp_path / "elsewhere")
        assert (after.reference.oracle, after.reference.items) == ("numpy dot", 20)
        np.testing.assert_array_equal(answers(after), answers(before))


def test_a_pack_without_reference_says_why(toy, tmp_path):
    plan, registry, states = toy.plan("toy-base")
    results = build_plan(plan, toy.cache, registry=registry, states=states)
    path = write_pack(plan, results, toy.cache, tmp_path / "b.hpk")
    opened = open_pack(path, plan, registry=registry, states=states, cache=Cache(tmp_path / "elsewhere"))
    assert next(iter(opened.values())).reference.reason == "no plugin defines what the model of toy-task answers"


def test_a_damaged_reference_is_refused(toy, tmp_path):
    offer(toy)
    plan, registry, states = toy.plan("toy-base")
    path = write_pack(
        plan, build_plan(plan, toy.cache, registry=registry, states=states), toy.cache, tmp_path / "b.hpk"
    )
    raw = bytearray(path.read_bytes())
    at = raw.index(b"references/")
    at = raw.index(b"NUMPY", at) + 100
    raw[at + 60] ^= 1
    path.write_bytes(raw)
    with pytest.raises(BadModel, match=r"hash differs|CRC|not what was packed"):
        open_pack(path, plan, registry=registry, states=states, cache=Cache(tmp_path / "elsewhere"))


def ask_one(tmp_path, run):
    from harness.build.reference import write_reference
    from harness.types import Model, TensorSpec

    (tmp_path / "items").mkdir()
    np.save(tmp_path / "items" / "x.npy", np.random.default_rng(0).normal(size=(20, 4)).astype("float32"))
    model = Model("toy", tmp_path / "m", {"x": TensorSpec("float32", (None, 4))}, ("y",))
    oracle = type("Oracle", (), {"label": "numpy", "run": staticmethod(run)})()
    return write_reference([oracle], model, tmp_path / "items", 20, tmp_path / "out", lambda *_told: None, batch=8)


def test_a_model_that_draws_random_numbers_is_no_measure(tmp_path):
    draw = np.random.default_rng(1)
    with pytest.raises(HarnessError, match="answers the same items differently each time"):
        ask_one(tmp_path, lambda given: {"y": given["x"] + draw.normal(size=given["x"].shape)})


def test_a_model_that_mixes_items_is_asked_for_one_at_a_time(tmp_path):
    found = ask_one(tmp_path, lambda given: {"y": given["x"] - 0.5 * given["x"].max(axis=0)})
    assert (found.alone, found.batch) == (True, 1)
    np.testing.assert_allclose(np.load(found.files["y"]), 0.5 * np.load(tmp_path / "items" / "x.npy"), rtol=1e-6)


def test_an_oracle_that_wants_most_of_the_memory_makes_room_for_the_next(tmp_path):
    from harness.build.reference import write_reference
    from harness.measure.isolate import available_bytes
    from harness.types import Model, TensorSpec

    def greedy(given):
        return {
            "y": given["x"] + np.zeros(available_bytes() // 2, np.uint8)[0] + 1
        }  # never touched, so it costs nothing

    (tmp_path / "items").mkdir()
    np.save(tmp_path / "items" / "x.npy", np.ones((4, 2), "float32"))
    model = Model("toy", tmp_path / "m", {"x": TensorSpec("float32", (None, 2))}, ("y",))
    oracles = [
        type("Oracle", (), {"label": label, "run": staticmethod(run)})()
        for label, run in (("greedy", greedy), ("modest", lambda given: {"y": given["x"] + 1}))
    ]
    found = write_reference(oracles, model, tmp_path / "items", 4, tmp_path / "out", lambda *_told: None, batch=4)
    assert found.oracle == "modest"
    assert np.load(found.files["y"]).tolist() == [[2, 2]] * 4


@pytest.mark.parametrize(("alone", "free", "batch"), [(False, True, 32), (True, True, 1), (True, False, 4)])
def test_such_a_model_is_judged_one_item_at_a_time(alone, free, batch):
    from types import SimpleNamespace as Stub

    from harness.bench.quality import evaluation_batch
    from harness.build.reference import Reference

    built = Stub(reference=Reference(alone=alone), model=Stub(precision=Stub(scheme="float")))
    planned, state = Stub(cell=Stub(options=Stub(batch=4))), Stub(capabilities=Stub(dynamic_batch=free))
    assert evaluation_batch(planned, built, state) == batch


def test_a_model_that_needs_several_items_is_asked_for_several(tmp_path):
    def run(given):
        if len(given["x"]) < 2:
            raise ValueError("at least two")
        return {"y": given["x"] * 2}

    np.testing.assert_array_equal(np.load(ask_one(tmp_path, run).files["y"]), 2 * np.load(tmp_path / "items" / "x.npy"))
