"""A build step that misbehaves costs its own cell: what others are given, are built from and run beside stays whole."""

from __future__ import annotations

import build_support
import hostile
import numpy as np
import pytest

from harness.build import Built, build_plan
from harness.plan import Request, make_plan
from harness.plugins import load_registry
from harness.types import Failure

INNOCENT = ("toy-base", "toy-prune", "toy-int8")


class Both:
    """The toy plugin, and a hostile one of another distribution."""

    def __init__(self, toy) -> None:
        self.toy = toy

    def build(self, *deeds, workers=2, method="evil", **more):
        registry = load_registry(only={"toy", "evil"})
        methods = (*INNOCENT, *(f"{method}:deed={deed}" for deed in deeds))
        request = Request(workloads=("toy-task",), methods=methods, targets=("toy-runtime",), **more)
        states = {"toy-runtime": build_support.AVAILABLE}
        plan = make_plan(request, registry, states, 2)
        found = build_plan(plan, self.toy.cache, registry=registry, states=states, workers=workers, timeout_s=60)
        return {cell.labels["method"].rpartition("=")[2]: found[cell.cell_id] for cell in plan.cells}


@pytest.fixture
def both(tmp_path, monkeypatch):
    toy = build_support.install(tmp_path, monkeypatch)
    hostile.install(tmp_path, monkeypatch)
    yield Both(toy)
    build_support.forget()


def assert_innocent(found) -> None:
    """Each other cell is built, and its artifact is what its method makes."""
    weights = np.load(found["toy-base"].model.path)
    assert np.count_nonzero(weights) == 4
    for name in INNOCENT:
        built = found[name]
        assert isinstance(built, Built), built
        assert np.count_nonzero(np.load(built.artifact.path)) == (3 if name == "toy-prune" else 4)
        assert np.load(built.evaluation.folder / "x.npy").any()
    np.testing.assert_array_equal(np.load(found["toy-base"].artifact.path), weights)


@pytest.mark.parametrize("deed", ["delete-input", "move-input", "overwrite-input"])
def test_what_a_step_does_to_its_input_reaches_nobody(both, deed):
    found = both.build(deed)
    assert_innocent(found)
    assert isinstance(found[deed], Built), found[deed]
    assert np.load(found[deed].model.path).any()
    again = both.build(deed)
    assert all(built.cached for built in again.values()), "something in the cache was damaged"


def test_a_step_that_gives_what_it_changed_in_place_is_told(both):
    found = both.build("return-overwritten")
    assert_innocent(found)
    assert found["return-overwritten"].status == "failed"
    assert "had changed it in place; a step writes into job.out" in found["return-overwritten"].reason


@pytest.mark.parametrize("deed", ["wreck-cache", "delete-cache", "delete-root", "add-to-cache"])
@pytest.mark.parametrize("workers", [1, 2])
def test_entries_that_a_step_damages_are_made_again_within_the_run(both, deed, workers):
    assert_innocent(both.build(deed, workers=workers))


def test_several_plugins_that_damage_the_cache_cost_themselves_alone(both):
    assert_innocent(both.build("wreck-cache", "delete-cache", "add-to-cache", "delete-root"))


def test_an_entry_that_was_damaged_between_two_runs_is_made_again(both):
    first = both.build()
    path = first["toy-base"].artifact.path
    raw = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(bytes(len(raw)))  # of the same size
    found = both.build()
    assert_innocent(found)
    assert found["toy-base"].artifact.path.read_bytes() == raw


def test_a_step_that_empties_the_folders_of_others_costs_them_nothing(both):
    assert_innocent(both.build("wreck-others"))


@pytest.mark.parametrize("deed", ["patch-numpy", "environment", "abort", "descriptors"])
@pytest.mark.parametrize("workers", [1, 2])
def test_what_a_step_does_to_its_process_reaches_no_step_of_another_plugin(both, deed, workers):
    found = both.build(deed, workers=workers)
    assert_innocent(found)
    if deed in {"abort", "descriptors"}:
        assert found[deed].status == "crashed"


def test_what_a_step_leaves_running_ends_before_cells_are_read(both):
    assert_innocent(both.build("linger"))


def test_an_interrupt_that_a_plugin_raises_is_its_failure(both):
    found = both.build("interrupt")
    assert_innocent(found)
    assert (found["interrupt"].status, found["interrupt"].stage) == ("failed", "compress")
    assert found["interrupt"].blame == "evil (plug-evil)"
    assert "KeyboardInterrupt" in found["interrupt"].reason


@pytest.mark.parametrize(
    ("deed", "said"), [("mute", "Mute: what it says cannot be had"), ("flags", "200000 characters")]
)
def test_what_cannot_be_told_is_its_failure(both, deed, said):
    failure = both.build(deed)[deed]
    assert (failure.status, failure.blame) == ("failed", "evil (plug-evil)")
    assert said in failure.reason


@pytest.mark.parametrize("deed", ["long", "long-refusal"])
def test_a_text_without_end_is_cut_and_kept(both, deed):
    failure = both.build(deed)[deed]
    assert isinstance(failure, Failure)
    assert len(failure.reason) < 400
    assert len(failure.details) > 100_000


def test_the_memory_limit_binds_build_steps_and_says_so(both):
    failure = both.build("memory", memory_limit_bytes=300 << 20)["memory"]
    assert (failure.status, failure.stage) == ("oom", "compress")
    assert "--memory-limit allows a step 300 MiB" in failure.reason
    assert isinstance(both.build("memory")["memory"], Built)


def test_weights_that_are_no_numbers_are_the_methods_own_failure(both):
    failure = both.build("nan")["nan"]
    assert (failure.status, failure.stage, failure.blame) == ("failed", "compress", "evil (plug-evil)")
    assert "left weights that are no numbers: 2 NaN in 'weights'" in failure.reason


@pytest.mark.parametrize("method", ["evil", "evil-pruning", "evil-none"])
def test_a_method_that_gives_its_input_back_is_told(both, method):
    built = both.build("same", method=method)["same"]
    assert any(flag.startswith("not_actually_") for flag in built.model.flags)
