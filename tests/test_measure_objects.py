"""Shared objects of a process: real ones against binutils' readelf, and headers made by hand."""

from __future__ import annotations

import dataclasses
import re
import shutil
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest
import records

from harness.compare.software import other_builds
from harness.measure.objects import NO_BUILD_ID, loaded
from harness.store import RunStore, load_run, verify_run
from harness.types import Loaded, SharedObject

ID = bytes(range(20))
PROPERTY = b"\x02\0\0\xc0\x04\0\0\0\x03\0\0\0\0\0\0\0"  # of x86, as its linker pads it


def note(name, kind, text, order="<", align=4):
    head = struct.pack(f"{order}III", len(name), len(text), kind) + name
    head += bytes(-len(head) % align)
    return head + text + bytes(-len(text) % align)


def elf(*segments, wide=True, order="<"):
    """Return an ELF file of notes: bytes with their alignment, a program header for each."""
    size, head = (56, 64) if wide else (32, 52)
    at, table, body = head + size * len(segments), b"", b""
    for notes, align in segments:
        begin = at + len(body)
        fields = (4, 4, begin, 0, 0, len(notes), len(notes), align) if wide else (
            4, begin, 0, 0, len(notes), len(notes), 4, align)  # fmt: skip
        table += struct.pack(f"{order}{'IIQQQQQQ' if wide else 'IIIIIIII'}", *fields)
        body += notes
    ident = b"\x7fELF" + bytes([2 if wide else 1, 1 if order == "<" else 2, 1]) + bytes(9)
    rest = "HHIQQQIHHHHHH" if wide else "HHIIIIIHHHHHH"
    return (
        ident
        + struct.pack(f"{order}{rest}", 3, 62, 1, 0, head, 0, 0, head, size, len(segments), 0, 0, 0)
        + table
        + body
    )


def mapped(folder, *paths, imports=()):
    maps = folder / "maps"
    lines = [f"7f00-7f01 r-xp 00000000 08:01 7{' ' * 20}{path}" for path in paths]
    maps.write_text("\n".join(["7f00-7f01 rw-p 00000000 00:00 0 ", *lines, "7f00-7f01 r-xp 0 00:00 0  [vdso]"]) + "\n")
    return loaded(maps, [str(item) for item in imports])


@pytest.mark.parametrize("wide", [True, False])
@pytest.mark.parametrize("order", ["<", ">"])
def test_a_build_id_is_found_in_every_class_and_byte_order(tmp_path, wide, order):
    segments = (note(b"stapsdt\0", 3, b"other", order), 4), (note(b"GNU\0", 3, ID, order), 4)
    (tmp_path / "a.so").write_bytes(elf(*segments, wide=wide, order=order))
    (found,) = mapped(tmp_path, tmp_path / "a.so").objects
    assert (found.build_id, found.reason, found.size_bytes) == (ID.hex(), "", (tmp_path / "a.so").stat().st_size)


def test_notes_that_stand_eight_bytes_apart_are_passed_over(tmp_path):
    notes = note(b"GNU\0", 5, PROPERTY, align=8)
    (tmp_path / "a.so").write_bytes(elf((notes + note(b"GNU\0", 3, ID, align=8), 8)))
    assert mapped(tmp_path, tmp_path / "a.so").objects[0].build_id == ID.hex()


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (elf((note(b"GNU\0", 1, ID), 4)), NO_BUILD_ID),
        (elf((note(b"GNU\0", 3, ID), 4))[:70], "its ELF header is cut short, or of a kind that is not known"),
        (b"\x7fELF\x09\x01" + bytes(90), "its ELF header is cut short, or of a kind that is not known"),
    ],
)
def test_what_has_no_build_id_says_why(tmp_path, raw, reason):
    (tmp_path / "a.so").write_bytes(raw)
    assert mapped(tmp_path, tmp_path / "a.so").objects == (SharedObject("a.so", len(raw), None, reason),)


def test_paths_name_no_place_of_this_machine(tmp_path):
    site = tmp_path / "env" / "site-packages"
    files = [site / "runtime" / "lib" / "kernel.so", tmp_path / "private" / "cuda.so", tmp_path / "data.bin"]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"no code" if file.suffix == ".bin" else elf((note(b"GNU\0", 3, ID), 4)))
    system = next(
        Path(line.split()[5]) for line in Path("/proc/self/maps").read_text().splitlines() if "libc.so" in line
    )
    gone = f"{site}/runtime/old.so (deleted)"
    found = mapped(tmp_path, *files, system, gone, "/memfd:jit (deleted)", imports=[tmp_path / "env", site])
    assert [item.path for item in found.objects] == ["cuda.so", "runtime/lib/kernel.so", "runtime/old.so"]
    assert found.objects[2] == SharedObject(
        "runtime/old.so", None, None, "its file was deleted or replaced after it was loaded"
    )


def test_a_host_without_maps_says_so(tmp_path):
    found = loaded(tmp_path / "maps")
    assert found.objects == ()
    assert found.reason.startswith("not available: ")


@pytest.mark.skipif(shutil.which("readelf") is None, reason="binutils are not installed")
def test_build_ids_of_this_process_are_those_that_readelf_finds():
    found = {item.path: item for item in loaded().objects}
    root = Path(np.__file__).parents[1]
    ours = [path for path in found if path.startswith("numpy")]
    assert "numpy/_core/_multiarray_umath" in " ".join(ours)
    for path in ours:
        said = subprocess.run(["readelf", "-n", str(root / path)], capture_output=True, text=True, check=True).stdout
        known = re.search(r"Build ID: ([0-9a-f]+)", said)
        assert found[path].build_id == (known[1] if known else None)
        assert found[path].size_bytes == (root / path).stat().st_size
        assert bool(found[path].reason) == (known is None)


def test_a_run_keeps_what_its_targets_loaded_once(tmp_path):
    kernels = Loaded((SharedObject("ort/late.so", 9, "ab"),))
    with RunStore.create(tmp_path, records.info(loaded={})) as run:
        for found in (Loaded(reason="not available: no maps"), records.loaded(), kernels, records.loaded()):
            run.note_loaded("ort", found)
    with RunStore(run.folder) as again:
        assert again.info.loaded["ort"].reason == ""
        assert [item.path for item in again.info.loaded["ort"].objects] == [
            "numpy.libs/libopenblas.so", "onnxruntime/capi/onnxruntime_pybind11_state.so", "ort/late.so",
        ]  # fmt: skip
        lines = len((run.folder / "manifest.jsonl").read_text().splitlines())
        again.note_loaded("ort", kernels)
        assert len((run.folder / "manifest.jsonl").read_text().splitlines()) == lines
    assert verify_run(run.folder) == []


def test_verify_names_a_package_that_changed_under_a_run(tmp_path):
    with RunStore.create(tmp_path, records.info()) as run:
        run.note_loaded("onnxruntime", records.loaded("ab" * 20))
    (problem,) = verify_run(run.folder)
    assert problem.what == "onnxruntime loaded 2 builds of onnxruntime/capi/onnxruntime_pybind11_state.so"
    assert load_run(run.folder).problems == ()


def test_a_comparison_tells_other_builds_under_equal_versions():
    first, second = records.info(), records.info(loaded={"onnxruntime": records.loaded("ab" * 20)})
    (said,) = other_builds(first, second)
    assert said == (
        "onnxruntime loaded other builds under equal package versions: onnxruntime/capi/onnxruntime_pybind11_state.so"
    )
    newer = dataclasses.replace(second, packages={"numpy": "2.4.6", "onnxruntime": "1.32.0"})
    for other in (first, newer, records.info(loaded={}), None):
        assert list(other_builds(first, other)) == []
