from __future__ import annotations

import dataclasses
import hashlib
import json
import pickle
import zipfile
from types import SimpleNamespace

import build_support
import numpy as np
import pytest
import records

from harness.build import Built, Cache, build_plan, open_pack, pack, pack_request, write_pack
from harness.build.packfile import Reader
from harness.bundle.read import _digests, _packed
from harness.codec import content_sha256
from harness.config import write_config
from harness.errors import BadModel, HarnessError
from harness.store import RunStore

METHODS = ("toy-base", "toy-prune+toy-int8")


@pytest.fixture
def toy(tmp_path, monkeypatch):
    yield build_support.install(tmp_path, monkeypatch)
    build_support.forget()


@pytest.fixture
def packed(toy, tmp_path):
    plan, registry, states = toy.plan(*METHODS)
    results = build_plan(plan, toy.cache, registry=registry, states=states)
    toy.ran()
    return write_pack(plan, results, toy.cache, tmp_path / "b.hpk"), plan, registry, states, results


def rewrite(path, change):
    """Write a pack again with changed members; its manifest is made to fit unless it is changed itself."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, raw in members.items():
            archive.writestr(name, raw)


def seal(members):
    hashes = {name: hashlib.sha256(raw).hexdigest() for name, raw in members.items() if name != "manifest.json"}
    members["manifest.json"] = json.dumps(hashes).encode()


def reopen(packed, tmp_path, **changes):
    path, plan, registry, states, _results = packed
    arguments = {"registry": registry, "states": states, "cache": Cache(tmp_path / "elsewhere")} | changes
    return open_pack(path, plan, **arguments)


def test_a_pack_gives_the_same_artifacts_and_data_elsewhere(toy, packed, tmp_path):
    opened = reopen(packed, tmp_path)
    assert toy.ran() == []
    for cell_id, before in packed[-1].items():
        after = opened[cell_id]
        assert isinstance(after, Built), after
        assert after.artifact.path.read_bytes() == before.artifact.path.read_bytes()
        assert after.artifact.path.is_relative_to(tmp_path / "elsewhere")
        assert dataclasses.replace(after.artifact, path=before.artifact.path) == before.artifact
        assert after.model.lineage == before.model.lineage
        assert after.evaluation.sha256 == before.evaluation.sha256
        shards = [np.load(built.evaluation.folder / "x.npy") for built in (after, before)]
        np.testing.assert_array_equal(*shards)
        assert after.seconds == before.seconds


OTHER = dataclasses.replace(
    build_support.AVAILABLE, capabilities=dataclasses.replace(build_support.CAPABILITIES, isa=("toy1024",))
)


def test_another_host_lowers_again_from_the_packed_model(toy, packed, tmp_path):
    opened = reopen(packed, tmp_path, states={"toy-runtime": OTHER})
    assert sorted(toy.ran()) == ["lower float32 batch=1 threads=1", "lower int8 batch=1 threads=1"]
    assert {built.artifact.how for built in opened.values()} == {"toy1024"}
    assert {built.artifact.realised for built in opened.values()} == {"float32", "int8"}


def test_a_network_in_parts_is_packed_with_what_each_part_is_calibrated_with(toy, tmp_path):
    plan, registry, states = toy.plan("toy-int8+toy-cut")
    results = build_plan(plan, toy.cache, registry=registry, states=states)
    toy.ran()
    path = write_pack(plan, results, toy.cache, tmp_path / "b.hpk")
    (before,) = results.values()
    (same,) = open_pack(path, plan, registry=registry, states=states, cache=Cache(tmp_path / "same")).values()
    assert toy.ran() == []
    assert same.artifact.sha256 == before.artifact.sha256 == content_sha256(same.artifact.path)
    assert [part.path.parent.name for part in same.artifact.parts] == ["0", "1"]
    for one, other in zip(same.artifact.parts, before.artifact.parts, strict=True):
        assert one.path.read_bytes() == other.path.read_bytes()
        assert one.path.is_relative_to(tmp_path / "same")
    elsewhere = {"toy-runtime": OTHER}
    (again,) = open_pack(path, plan, registry=registry, states=elsewhere, cache=Cache(tmp_path / "other")).values()
    assert toy.ran() == ["lower int8 batch=1 threads=1"] * 2
    assert "toy1024" in again.artifact.how
    # the second part sees twice the range, so its integers tell which feeds calibrated it
    for one, other in zip(again.artifact.parts, before.artifact.parts, strict=True):
        np.testing.assert_array_equal(np.load(one.path), np.load(other.path))


def test_a_folder_is_held_against_its_record_file_by_file(toy, tmp_path):
    plan, registry, states = toy.plan("toy-cut")
    results = build_plan(plan, toy.cache, registry=registry, states=states)
    path = write_pack(plan, results, toy.cache, tmp_path / "b.hpk")
    ((cell_id, built),) = results.items()
    run = SimpleNamespace(records=[dataclasses.replace(records.record(), cell_id=cell_id, artifact=built.artifact)])
    assert _packed(path, run) == ""

    def swap(members):
        one, two = (name for name in members if name.endswith(".toyart"))
        members[one], members[two] = members[two], members[one]
        seal(members)

    rewrite(path, swap)
    assert "is not the artifact that the record" in _packed(path, run)


def test_a_graph_and_its_weights_have_the_hash_of_both():
    members = {"a/model.bin": b"weights", "a/model.xml": b"graph"}
    reader = SimpleNamespace(
        names=lambda folder: sorted(name for name in members if name.startswith(f"{folder}/")),
        digest=lambda name: hashlib.sha256(members[name]).hexdigest(),
        read=members.__getitem__,
    )
    found = [hashlib.sha256(raw).hexdigest() for raw in (b"graph", b"graphweights")]
    assert list(_digests(reader, "a", "a/model.xml")) == found


def test_a_part_that_points_out_of_the_pack_is_refused(toy, tmp_path):
    plan, registry, states = toy.plan("toy-cut")
    results = build_plan(plan, toy.cache, registry=registry, states=states)
    path = write_pack(plan, results, toy.cache, tmp_path / "b.hpk")

    def climb(members):
        info = json.loads(members["pack.json"])
        for model in info["models"].values():
            model["parts"][1]["feeds"] = "../../feeds"
        members["pack.json"] = json.dumps(info).encode()
        seal(members)

    rewrite(path, climb)
    with pytest.raises(BadModel, match="points to"):
        open_pack(path, plan, registry=registry, states=states, cache=Cache(tmp_path / "elsewhere"))


def test_a_pack_holds_no_training_data_no_unexported_model_and_its_request(packed):
    with zipfile.ZipFile(packed[0]) as archive:
        names = archive.namelist()
    assert not [name for name in names if "/train/" in name or name.endswith("model.npy")]
    assert pack_request(packed[0]).methods == METHODS


def test_a_cell_that_is_not_packed_is_unavailable(toy, packed, tmp_path):
    plan, registry, states = toy.plan("toy-prune:keep=1")
    results = open_pack(packed[0], plan, registry=registry, states=states, cache=Cache(tmp_path / "elsewhere"))
    failure = results[plan.cells[-1].cell_id]
    assert (failure.status, failure.blame) == ("unavailable", "b.hpk")
    assert "toy-prune:keep=1" in failure.reason


def flip(members):
    name = next(name for name in members if name.endswith(".toyart"))
    members[name] = members[name][:-1] + bytes([members[name][-1] ^ 1])


def pickled(members):
    name = next(name for name in members if name.endswith(".toyart"))
    members[name] = pickle.dumps({"run": "anything"})
    seal(members)


def newer(members):
    members["pack.json"] = members["pack.json"].replace(b'"schema": 1', b'"schema": 2')
    seal(members)


def climbing(members):
    info = json.loads(members["pack.json"])
    for artifact in info["artifacts"].values():
        artifact["path"] = "../../../etc/passwd"
    members["pack.json"] = json.dumps(info).encode()
    seal(members)


def slip(members):
    members["artifacts/../../../evil"] = b"x"
    seal(members)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (flip, "its hash differs"),
        (pickled, "holds a pickle"),
        (newer, "schema 2"),
        (climbing, "points to"),
        (slip, "leads out"),
        (lambda members: members.update({"extra": b"x"}), "manifest lists"),
        (lambda members: members.pop("manifest.json"), "not a pack"),
        (lambda members: members.pop(next(iter(members))), "manifest lists"),
        (lambda members: members.update({"manifest.json": b"[]"}), "cannot be read"),
    ],
)
def test_a_damaged_or_hostile_pack_is_refused(packed, tmp_path, change, text):
    rewrite(packed[0], change)
    with pytest.raises(BadModel, match=text):
        reopen(packed, tmp_path)
    assert not (tmp_path / "evil").exists()
    assert not list((tmp_path / "elsewhere").glob("tmp/*"))


def test_a_torn_pack_is_refused(packed, tmp_path):
    packed[0].write_bytes(packed[0].read_bytes()[:-100])
    with pytest.raises(BadModel, match="not a pack"):
        reopen(packed, tmp_path)


def test_a_run_folder_is_packed_from_its_configuration(toy, packed, tmp_path):
    _path, plan, registry, _states, results = packed
    with RunStore.create(tmp_path / "results", records.info(request=plan.request)) as store:
        write_config(store.folder / "bench.toml", plan.request)
        for planned in plan.cells:
            artifact = results[planned.cell_id].artifact
            store.write_record(dataclasses.replace(records.record(), cell_id=planned.cell_id, artifact=artifact))
    out = pack(store.folder, tmp_path / "again.hpk", cache=toy.cache, registry=registry)
    assert pack_request(out) == plan.request


def test_a_run_whose_artifacts_cannot_be_had_again_is_not_packed(toy, packed, tmp_path):
    _path, plan, registry, _states, results = packed
    other = dataclasses.replace(results[plan.cells[0].cell_id].artifact, sha256="f" * 64)
    with RunStore.create(tmp_path / "results", records.info(request=plan.request)) as store:
        write_config(store.folder / "bench.toml", plan.request)
        store.write_record(dataclasses.replace(records.record(), cell_id=plan.cells[0].cell_id, artifact=other))
    with pytest.raises(HarnessError, match="not the one that the run measured"):
        pack(store.folder, tmp_path / "again.hpk", cache=toy.cache, registry=registry)


def test_a_run_on_all_cores_is_packed_as_it_was_planned(toy, tmp_path, monkeypatch):
    """Bench counts physical cores and the quota: with two threads to a core, logical CPUs plan other cells."""
    from harness.build import packer

    plan, registry, states = toy.plan("toy-base", threads=("all",))  # planned for 2 cores
    results = build_plan(plan, toy.cache, registry=registry, states=states)
    with RunStore.create(tmp_path / "results", records.info(request=plan.request)) as store:
        write_config(store.folder / "bench.toml", plan.request)
        for planned in plan.cells:
            artifact = results[planned.cell_id].artifact
            made = dataclasses.replace(records.record(), cell=planned.cell, cell_id=planned.cell_id, artifact=artifact)
            store.write_record(made)
    monkeypatch.setattr(packer.os, "sched_getaffinity", lambda _pid: set(range(4)))
    monkeypatch.setattr(packer, "effective_cores", lambda: 2)
    out = pack(store.folder, tmp_path / "b.hpk", cache=toy.cache, registry=registry)
    reader = Reader(out)
    assert set(reader.info.cells) == {planned.cell_id for planned in plan.cells}
    reader.close()
    monkeypatch.setattr(packer, "effective_cores", lambda: 4)
    with pytest.raises(HarnessError, match=r"2 threads.*was measured, and is not planned now"):
        pack(store.folder, tmp_path / "b.hpk", cache=toy.cache, registry=registry)


def test_what_a_run_did_not_measure_is_not_packed(toy, packed, tmp_path):
    _path, plan, registry, _states, results = packed
    first = plan.cells[0].cell_id
    with RunStore.create(tmp_path / "results", records.info(request=plan.request)) as store:
        write_config(store.folder / "bench.toml", plan.request)
        store.write_record(dataclasses.replace(records.record(), cell_id=first, artifact=results[first].artifact))
    reader = Reader(pack(store.folder, tmp_path / "again.hpk", cache=toy.cache, registry=registry))
    assert set(reader.info.cells) == {first}
    reader.close()


def test_nothing_built_is_nothing_to_pack(toy, tmp_path):
    plan, _registry, _states = toy.plan("toy-base")
    with pytest.raises(HarnessError, match="nothing to pack"):
        write_pack(plan, {}, toy.cache, tmp_path / "b.hpk")
    assert not list(tmp_path.glob("*.hpk"))
    assert not list(tmp_path.glob(".*.partial"))
