"""Our own plugins pass the conformance kit: declarations and a few offers quickly, every offer in full when slow."""

from __future__ import annotations

import importlib

import pytest
from plugin_factory import make_plugin

from harness.plugins import load_registry
from harness.testing import Settings, offers
from harness.testing.results import Report, Result
from harness.testing.run import check_offer

QUICK = {
    ("method", "magnitude-pruning"),
    ("method", "low-rank"),
    ("exporter", "onnx"),
    ("target", "onnxruntime"),
    ("target", "failing"),
}
OFFERS = [pytest.param(*offer, id=" ".join(offer)) for offer in offers()]


@pytest.fixture(scope="module")
def registry():
    return load_registry()


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Keep the test models from one offer to the next."""
    return tmp_path_factory.mktemp("kit-cache")


def conforms(registry, kind: str, name: str, settings: Settings) -> list[Result]:
    results = check_offer(registry, kind, name, settings)
    Report(name, tuple(results)).raise_failures()
    return results


@pytest.mark.parametrize(("kind", "name"), OFFERS)
def test_what_an_offer_declares_holds(registry, kind, name):
    results = conforms(registry, kind, name, Settings(declared_only=True))
    assert {"docs", "naming"} <= {result.check for result in results}


@pytest.mark.parametrize(("kind", "name"), sorted(QUICK))
def test_it_conforms_on_one_layer_kind(registry, cache, kind, name):
    results = conforms(registry, kind, name, Settings(quick=True, cache=cache))
    assert [str(result) for result in results if result.state == "skipped"] == []
    assert "runs:dense" in {result.key for result in results}


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("kind", "name"), OFFERS)
def test_it_conforms_on_every_layer_kind(registry, cache, kind, name):
    results = conforms(registry, kind, name, Settings(cache=cache))
    assert "runs" in {result.check for result in results} or kind == "workload"


@pytest.mark.parametrize("name", ["tensorrt", "tensorrt-rtx"])
def test_a_target_that_is_not_here_is_skipped_with_what_it_lacks(registry, cache, name):
    results = conforms(registry, "target", name, Settings(quick=True, cache=cache))
    skipped = {result.key: result.seen for result in results if result.state == "skipped"}
    if not skipped:
        pytest.skip(f"{name} is available here")
    assert skipped == {"runs": skipped["runs"]}
    assert skipped["runs"].startswith("not available here: ")
    assert "tensorrt" in skipped["runs"].lower() or "nvidia" in skipped["runs"].lower()


HELPER = """
import torch
from harness.api import MethodSpec, NoParams, hookimpl


class Masked(torch.nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.weight, self.bias = inner.weight, inner.bias

    def forward(self, x):
        weight = self.weight * (self.weight.abs() > self.weight.abs().median())
        return torch.nn.functional.linear(x, weight, self.bias)


def compress(model, params, job):
    from harness_torch import load, save
    module = load(model)
    for name, layer in list(module.named_modules()):
        if isinstance(layer, torch.nn.Linear):
            parent, _, last = name.rpartition(".")
            setattr(module.get_submodule(parent), last, Masked(layer))
    return save(module, model, job)


@hookimpl
def harness_methods():
    yield MethodSpec(name="masked", family="pruning", summary="masks left in place", params=NoParams,
                     compress=compress, changes=frozenset({"weights"}), defaults=())
"""


@pytest.mark.slow
def test_a_helper_layer_that_a_method_leaves_in_a_torch_model_is_named(tmp_path, cache, monkeypatch):
    site = make_plugin(tmp_path, "helper", HELPER)
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setenv("PYTHONPATH", str(site))
    importlib.invalidate_caches()
    found = check_offer(load_registry(), "method", "masked", Settings(quick=True, cache=cache))
    layers = {result.key: (result.state, result.seen) for result in found if result.check == "layers"}
    assert layers == {"layers:dense": ("failed", "Masked")}
