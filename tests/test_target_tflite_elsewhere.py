"""LiteRT where this host is not: on a phone through adb, and on aarch64 kernels; and tensors stored sparse."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("ai_edge_litert", reason="ai-edge-litert is not installed")

import adb_standin
from tflite_files import separable

import harness_tflite
from harness.api import (
    Artifact,
    Calibration,
    HarnessError,
    Job,
    Model,
    Options,
    Precision,
    Split,
    SupportsClock,
    TensorSpec,
)
from harness_tflite import adb, android, flatbuffer
from harness_tflite.params import Params
from harness_tflite.sparse import sparsify

IMAGES = np.random.default_rng(1).random((6, 16, 16, 3), dtype=np.float32)


def _artifact(path: Path, realised: str = "float32") -> Artifact:
    return Artifact(path, "tflite", "0", realised, "", path.stat().st_size, path.stat().st_size)


def _job(tmp_path: Path) -> Job:
    (tmp_path / "out").mkdir()
    return Job(tmp_path / "out", 0, 1, None, None, lambda share, text: None, logging.getLogger("harness"))  # type: ignore[arg-type]  # a float model asks for neither data nor workload


def _run(path: Path, *, xnnpack: bool = True) -> np.ndarray:
    session = harness_tflite.open_session(_artifact(path), Params(xnnpack=xnnpack), Options(), "accuracy")
    return session.run({"x": IMAGES[:1]})["mean"]


# -- sparse tensors


def test_shares_of_time_are_the_profilers(tmp_path: Path) -> None:
    path = separable(tmp_path / "m.tflite", 0.0, channels=64, size=28)
    session = harness_tflite.open_session(_artifact(path), Params(), Options(), "placement")
    placed = session.placements()
    assert sum(place.time_share for place in placed) == pytest.approx(1)
    work = [place for place in placed if place.macs]
    assert [place.op for place in work] == ["Conv", "Conv", "DepthwiseConv", "Conv", "DepthwiseConv"]
    assert sum(place.time_share for place in work) > 0.8
    assert all(place.kernel.startswith("XNNPACK ") for place in placed)


@pytest.mark.parametrize("xnnpack", [True, False])
def test_sparse_rows_compute_what_the_dense_kernels_do(tmp_path: Path, *, xnnpack: bool) -> None:
    dense = separable(tmp_path / "dense.tflite", 0.8)
    found = sparsify(dense, tmp_path / "sparse.tflite")
    assert set(found.zeros) == {"point0", "point1"}
    assert all(0.7 < share < 0.9 for share in found.zeros.values())
    np.testing.assert_array_equal(_run(tmp_path / "sparse.tflite", xnnpack=xnnpack), _run(dense, xnnpack=xnnpack))


def test_sparse_rows_make_the_file_smaller(tmp_path: Path) -> None:
    dense = separable(tmp_path / "dense.tflite", 0.9, channels=256, blocks=3)
    found = sparsify(dense, tmp_path / "sparse.tflite")
    saved = dense.stat().st_size - (tmp_path / "sparse.tflite").stat().st_size
    # 4 bytes a value; of the tenth that stays, 4 of the value and 1 of its column
    assert saved == found.bytes_saved == pytest.approx(3 * 256 * 256 * (4 - 0.1 * 5), rel=0.02)


def test_columns_past_255_take_two_bytes(tmp_path: Path) -> None:
    dense = separable(tmp_path / "dense.tflite", 0.9, channels=300, blocks=1, size=4)
    sparsify(dense, tmp_path / "sparse.tflite")
    image = {"x": IMAGES[:1, :8, :8]}
    outputs = [
        harness_tflite.open_session(_artifact(path), Params(), Options(), "accuracy").run(image)["mean"]
        for path in (dense, tmp_path / "sparse.tflite")
    ]
    np.testing.assert_array_equal(*outputs)


def test_buffers_stay_aligned(tmp_path: Path) -> None:
    sparsify(separable(tmp_path / "dense.tflite", 0.8), tmp_path / "sparse.tflite")
    model = flatbuffer.open_model(tmp_path / "sparse.tflite")
    places = [offset for _index, _tensor, offset, _length in flatbuffer._constants(model)]
    assert len(places) > 5
    assert {place % 16 for place in places} == {0}


def test_a_kernel_with_few_zeros_stays_dense(tmp_path: Path) -> None:
    dense = separable(tmp_path / "dense.tflite", 0.3)
    assert sparsify(dense, tmp_path / "sparse.tflite").zeros == {}
    assert not (tmp_path / "sparse.tflite").exists()


@pytest.mark.parametrize(
    ("zeros", "flags", "words"),
    [(0.8, (), "2 1x1 kernels with 83% zeros as sparse rows"), (0.0, ("stored_sparse_executed_dense",), "no 1x1")],
)
def test_a_pruned_model_is_lowered_sparse(tmp_path: Path, zeros: float, flags: tuple[str, ...], words: str) -> None:
    source = separable(tmp_path / "dense.tflite", zeros)
    model = Model("tflite", source, {"x": TensorSpec("float32", (None, 16, 16, 3))}, ("mean",))
    wanted = dataclasses.replace(model, precision=Precision(storage="sparse"))
    artifact = harness_tflite.lower(wanted, Params(), Options(), _job(tmp_path))
    assert artifact.flags == flags
    assert words in artifact.how
    assert artifact.stored_bytes <= artifact.artifact_bytes
    np.testing.assert_array_equal(_run(artifact.path), _run(source))


class _Images:
    def split(self, name: str) -> Split:
        return Split({"x": IMAGES})


@pytest.mark.parametrize("scheme", ["static", "dynamic"])
def test_a_file_without_a_signature_is_quantized(tmp_path: Path, scheme: str) -> None:
    path = separable(tmp_path / "m.tflite", 0.0)
    assert flatbuffer.signature_names(path) == ((), ())
    precision = Precision("int8", "int8", scheme, calibration=Calibration(samples=6))
    model = Model("tflite", path, {"x": TensorSpec("float32", (None, 16, 16, 3))}, ("mean",), precision=precision)
    job = dataclasses.replace(_job(tmp_path), data=_Images())
    artifact = harness_tflite.lower(model, Params(), Options(), job)
    expected = _run(path)
    assert 0 < np.abs(_run(artifact.path) - expected).max() < 0.1 * np.abs(expected).max()
    session = harness_tflite.open_session(artifact, Params(), Options(), "placement")
    found = {(place.op, place.precision) for place in session.placements() if place.macs}
    depthwise = "int8" if scheme == "static" else "float32"  # dynamic int8 is slow on depthwise convolutions
    assert found == {("Conv", "int8"), ("DepthwiseConv", depthwise)}
    assert [file.name for file in job.out.iterdir()] == ["model.tflite"]


# -- a phone


@pytest.fixture
def phone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "phone"
    monkeypatch.setenv("PATH", f"{adb_standin.make(folder)}{os.pathsep}{os.environ['PATH']}")
    return folder


def _tool(tmp_path: Path) -> str:
    path = tmp_path / "android_aarch64_benchmark_model"
    path.write_bytes(b"\x7fELF stands for the program")
    return str(path)


def _on_phone(tmp_path: Path, **changes: object) -> Params:
    return Params(**{"android": adb_standin.SERIAL, "tool": _tool(tmp_path), **changes})


def test_a_phone_is_probed_and_tells_what_it_is(tmp_path: Path, phone: Path) -> None:
    found = harness_tflite.probe(_on_phone(tmp_path))
    assert found.available, found.reason
    assert found.device["ro.product.model"] == "Pixel 8"
    assert found.device["ro.soc.model"] == "Tensor G3"
    assert found.device["kernel"].startswith("5.15")
    assert "ro.serialno" not in found.device
    assert harness_tflite.runs_on(_on_phone(tmp_path)) == "device"


def test_outputs_come_back_from_the_phone(tmp_path: Path, phone: Path) -> None:
    path = separable(tmp_path / "m.tflite", 0.0)
    session = harness_tflite.open_session(_artifact(path), _on_phone(tmp_path), Options(), "accuracy")
    np.testing.assert_array_equal(session.run({"x": IMAGES[:1]})["mean"], _run(path))
    assert session.effective()["delegates"].startswith("Explicitly applied XNNPACK delegate")
    assert session.effective()["device_peak_memory"] == "158.43 MB, by the tool"
    session.close()
    left = [file.name for file in (phone / "storage/data/local/tmp/harness").iterdir()]
    assert sorted(name.partition("-")[0] for name in left) == ["benchmark_model", "model"]


def test_a_batch_is_asked_of_the_tool(tmp_path: Path, phone: Path) -> None:
    path = separable(tmp_path / "m.tflite", 0.0)
    session = harness_tflite.open_session(_artifact(path), _on_phone(tmp_path), Options(batch=3), "accuracy")
    found = session.run({"x": IMAGES[:3]})["mean"]
    np.testing.assert_array_equal(found[1:2], session.run({"x": np.stack([IMAGES[1]] * 3)})["mean"][:1])


def test_the_phone_takes_the_time(tmp_path: Path, phone: Path) -> None:
    path = separable(tmp_path / "m.tflite", 0.0)
    session = harness_tflite.open_session(_artifact(path), _on_phone(tmp_path), Options(threads=2), "latency")
    assert isinstance(session, SupportsClock)
    assert 1_000_000 <= session.clocked_ns({"x": IMAGES[:1]}, 40) < 1_007_000
    session.clocked_ns({"x": IMAGES[:1]}, 40)
    calls = adb_standin.calls(phone)
    (_first, last) = (call[1] for call in calls if call[0] == "shell" and "--num_runs=40" in call[1])
    assert "--num_threads=2" in last
    assert "--use_xnnpack=true" in last
    assert "--input_layer_shape=1,16,16,3" in last
    pushed = [call[2] for call in calls if call[0] == "push" and "input-" in call[2]]
    assert len(pushed) == 1  # an input that is on the phone is not sent again


def test_a_file_that_is_on_the_phone_is_not_sent_again(tmp_path: Path, phone: Path) -> None:
    path = separable(tmp_path / "m.tflite", 0.0)
    for _ in range(2):
        harness_tflite.open_session(_artifact(path), _on_phone(tmp_path), Options(), "latency").close()
    pushed = [call[2] for call in adb_standin.calls(phone) if call[0] == "push"]
    assert [Path(name).name.partition("-")[0] for name in pushed] == ["benchmark_model", "model"]


def test_timings_of_a_recorded_log_are_read() -> None:
    said = (adb_standin.DATA / "benchmark_model.txt").read_text()
    assert android.mean_ns(said) == 186_640_000
    with pytest.raises(HarnessError, match="no timings; its last line: Segmentation fault"):
        android.mean_ns("INFO: STARTING!\nSegmentation fault\n")


@pytest.mark.parametrize(
    ("state", "changes", "words"),
    [
        ("device", {"android": "absent"}, "reaching absent failed: error: device 'absent' not found"),
        ("unauthorized", {}, "check for a confirmation dialog on your device"),
        ("offline", {}, "device offline"),
        ("device", {"tool": "/nowhere"}, "tool=/nowhere is no file here"),
        ("device", {"tool": ""}, r"tool=\(none\) is no file here"),
    ],
)
def test_a_phone_that_cannot_be_used_says_why(
    tmp_path: Path, phone: Path, state: str, changes: dict[str, str], words: str
) -> None:
    (phone / "state").write_text(state)
    found = harness_tflite.probe(_on_phone(tmp_path, **changes))
    assert not found.available
    assert re.search(words, found.reason)
    assert found.hint


def test_without_adb_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found = harness_tflite.probe(_on_phone(tmp_path))
    assert (found.available, found.reason) == (False, "adb is not installed")
    assert "apt install adb" in found.hint


def test_the_real_adb_without_a_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which("adb") is None:
        pytest.skip("adb is not installed")
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", "5591")  # a server of its own
    try:
        found = harness_tflite.probe(_on_phone(tmp_path, android="absent"))
    finally:
        subprocess.run(["adb", "kill-server"], check=False, capture_output=True)
    assert not found.available
    assert "device 'absent' not found" in found.reason
    with pytest.raises(HarnessError, match=r"pushing .* to absent failed"):
        adb.Phone("absent").push(Path(__file__), "/data/local/tmp")
    subprocess.run(["adb", "kill-server"], check=False, capture_output=True)


# -- aarch64 kernels; a script that claims to be an aarch64 Python stands for one


def _claims_aarch64(tmp_path: Path, *, then: str = "") -> str:
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(f"import platform\nplatform.machine = lambda: 'aarch64'\n{then}")
    path = tmp_path / "python-aarch64"
    path.write_text(f"#!/bin/sh\nPYTHONPATH='{site}' exec '{sys.executable}' \"$@\"\n")
    path.chmod(0o755)
    return str(path)


def test_the_other_kernels_outputs_are_compared(tmp_path: Path) -> None:
    params = Params(arm64=_claims_aarch64(tmp_path))
    assert harness_tflite.probe(params).available
    assert harness_tflite.runs_on(params) == "emulator"
    path = separable(tmp_path / "m.tflite", 0.0)
    session = harness_tflite.open_session(_artifact(path), params, Options(), "accuracy")
    for image in IMAGES:
        session.run({"x": image[None]})
    assert session.effective()["remark"].endswith("outputs bit for bit those of this host over 6 items")
    here = harness_tflite.open_session(_artifact(path), Params(), Options(), "accuracy")
    assert [(place.kernel, place.macs) for place in session.placements()] == [
        (place.kernel, place.macs) for place in here.placements()
    ]
    assert {place.time_share for place in session.placements()} == {None}  # emulated time is no time
    session.close()


_ROTTEN = """
import builtins, sys
from ai_edge_litert import interpreter
real = interpreter.Interpreter.get_tensor
interpreter.Interpreter.get_tensor = lambda self, index: real(self, index) * {factor}
"""


def test_outputs_that_differ_by_rounding_are_told(tmp_path: Path) -> None:
    params = Params(arm64=_claims_aarch64(tmp_path, then=_ROTTEN.format(factor="1.00001")))
    path = separable(tmp_path / "m.tflite", 0.0)
    session = harness_tflite.open_session(_artifact(path), params, Options(), "accuracy")
    session.run({"x": IMAGES[:1]})
    assert re.search(r"outputs within 1e-05 of this host's over 1 items", session.effective()["remark"])
    session.close()


def test_outputs_that_differ_by_more_are_refused(tmp_path: Path) -> None:
    params = Params(arm64=_claims_aarch64(tmp_path, then=_ROTTEN.format(factor="1.01")))
    path = separable(tmp_path / "m.tflite", 0.0)
    session = harness_tflite.open_session(_artifact(path), params, Options(), "accuracy")
    with pytest.raises(HarnessError, match=r"output 'mean' on aarch64 is off by 0\.01 of"):
        session.run({"x": IMAGES[:1]})
    session.close()


def test_a_python_that_dies_says_its_last_words(tmp_path: Path) -> None:
    found = harness_tflite.probe(Params(arm64=_claims_aarch64(tmp_path, then="raise SystemExit('out of luck')\n")))
    assert not found.available
    assert "out of luck" in found.reason


def test_a_python_of_another_machine_is_refused(tmp_path: Path) -> None:
    found = harness_tflite.probe(Params(arm64=sys.executable))
    assert not found.available
    assert "not aarch64" in found.reason or found.available
    assert "aarch64_setup" in found.hint


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("rotten", "LiteRT in the aarch64 Python ended with status 1"),  # it starts, and dies when it is run
        ("#!/bin/sh\necho hello\ncat > /dev/null\n", "the aarch64 Python answered b'hello"),
    ],
)
def test_a_probe_that_fails_leaves_no_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, words: str
) -> None:
    started, popen = [], subprocess.Popen

    def noted(*args: Any, **kwargs: Any) -> Any:
        started.append(popen(*args, **kwargs))
        return started[-1]

    monkeypatch.setattr("harness_tflite.aarch64.subprocess.Popen", noted)
    if script == "rotten":
        python = _claims_aarch64(tmp_path, then=_ROTTEN.format(factor="None"))
    else:
        (tmp_path / "python").write_text(script)
        (tmp_path / "python").chmod(0o755)
        python = str(tmp_path / "python")
    found = harness_tflite.probe(Params(arm64=python))
    assert words in found.reason
    (child,) = started
    assert child.poll() is not None
    assert child.stdin.closed
    assert child.stdout.closed


def test_no_python_says_how_to_make_one(tmp_path: Path) -> None:
    found = harness_tflite.probe(Params(arm64=str(tmp_path / "none")))
    assert "is not a program" in found.reason
    assert "aarch64_setup FOLDER" in found.hint


@pytest.fixture(scope="module")
def arm_python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An aarch64 Python: that of HARNESS_ARM64, else one made from packages."""
    given = os.environ.get("HARNESS_ARM64")
    if given:
        return given
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        pytest.skip("apt-get and dpkg-deb, which fetch QEMU and an aarch64 Python, are not here")
    folder = tmp_path_factory.mktemp("arm64")
    done = subprocess.run(
        [sys.executable, "-m", "harness_tflite.aarch64_setup", str(folder)], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        pytest.skip(f"no aarch64 Python could be made: {done.stderr.strip()[-300:]}")
    return done.stdout.strip()


@pytest.mark.slow
def test_real_aarch64_kernels_agree_with_this_host(tmp_path: Path, arm_python: str) -> None:
    params = Params(arm64=arm_python)
    path = separable(tmp_path / "m.tflite", 0.0)
    session = harness_tflite.open_session(_artifact(path), params, Options(), "accuracy")
    for image in IMAGES:
        session.run({"x": image[None]})
    remark = session.effective()["remark"]
    session.close()
    assert remark.startswith("aarch64 kernels of LiteRT")
    assert re.search(r"over 6 items$", remark)


_TIME = """
import json, sys, time
import numpy as np
from ai_edge_litert.interpreter import Interpreter
best = []
for path in sys.argv[1:]:
    runner = Interpreter(model_content=open(path, "rb").read(), num_threads=1)
    runner.allocate_tensors()
    found = []
    for _ in range(3):
        start = time.perf_counter()
        runner.invoke()
        found.append(time.perf_counter() - start)
    best.append(min(found))
print(json.dumps(best))
"""


@pytest.mark.slow
def test_aarch64_takes_the_sparse_kernels(tmp_path: Path, arm_python: str) -> None:
    """Emulated time counts instructions, not time on hardware: it tells that another kernel ran."""
    dense = separable(tmp_path / "dense.tflite", 0.9, channels=128, size=28, blocks=4)
    sparsify(dense, tmp_path / "sparse.tflite")
    script = tmp_path / "time.py"
    script.write_text(_TIME)
    done = subprocess.run(
        [arm_python, str(script), str(dense), str(tmp_path / "sparse.tflite")],
        capture_output=True,
        text=True,
        check=True,
    )
    first, second = json.loads(done.stdout)
    assert first / second > 2
    for path, kernel in ((dense, "GEMM"), (tmp_path / "sparse.tflite", "SPMM")):
        session = harness_tflite.open_session(_artifact(path), Params(arm64=arm_python), Options(), "placement")
        placed = session.placements()
        session.close()
        assert sum(kernel in place.kernel for place in placed) >= 4
