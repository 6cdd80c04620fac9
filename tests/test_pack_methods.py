"""Networks in parts and of several widths, packed: what another host measures is what was built."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from harness.build import Built, Cache, build_plan, open_pack, probe_targets, write_pack
from harness.plan import Request, make_plan, resolve_targets
from harness.plugins import load_registry

MIXED = "mixed-precision:budget=0.0:widths=int4/int8/float32"
FACTORY = """
import numpy as np, torch
from harness_workloads import UserWorkload


def make():
    torch.manual_seed(0)
    layers = [torch.nn.Linear(8, 32), torch.nn.ReLU(), torch.nn.Linear(32, 32), torch.nn.ReLU(), torch.nn.Linear(32, 5)]
    network = torch.nn.Sequential(*layers).eval()
    x = np.random.default_rng(0).normal(size=(3000, 8)).astype("float32")
    with torch.no_grad():  # right by its own account, so that whatever is rounded away costs accuracy
        labels = network(torch.from_numpy(x)).argmax(1).numpy()
    return UserWorkload(model=network, inputs={"x": x}, labels=labels)
"""


@pytest.mark.slow
def test_split_and_mixed_networks_are_the_same_from_a_pack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    (tmp_path / "right_by_itself.py").write_text(FACTORY)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    registry = load_registry()
    workload = 'factory:target="right_by_itself:make"'
    request = Request(workloads=(workload,), methods=("int8+split", MIXED), targets=("onnxruntime",))
    states = probe_targets(resolve_targets(request, registry))
    plan = make_plan(request, registry, states, 1)
    built = build_plan(plan, Cache(tmp_path / "cache"), registry=registry, states=states, workers=1)
    path = write_pack(plan, built, Cache(tmp_path / "cache"), tmp_path / "b.hpk")
    before = {cell.labels["method"]: built[cell.cell_id] for cell in plan.cells}
    assert all(isinstance(item, Built) for item in before.values()), before
    assert set(before[MIXED].model.precision.overrides.values()) & {"int8", "float32"}
    assert len(before["int8+split"].model.parts) == 2

    (state,) = states.values()
    isa = dataclasses.replace(state.capabilities, isa=("another",))
    other = dict.fromkeys(states, dataclasses.replace(state, capabilities=isa))
    for name, here in (("same", states), ("other", other)):
        ran: list[str] = []
        cache = Cache(tmp_path / name)
        opened = open_pack(
            path, plan, registry=registry, cache=cache, states=here, workers=1,
            on_event=lambda event, ran=ran: ran.append(event.kind),
        )  # fmt: skip
        after = {cell.labels["method"]: opened[cell.cell_id] for cell in plan.cells}
        assert ran.count("built") == (0 if name == "same" else 3)
        for method, item in before.items():
            assert after[method].artifact.sha256 == item.artifact.sha256, (name, method)
            assert after[method].model.precision == item.model.precision
