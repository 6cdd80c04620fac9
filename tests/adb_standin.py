"""A stand-in for adb and the phone behind it, run as a program: a folder is the phone's storage.

No phone was at hand. Its words for a phone that is not there are those of the real client; the properties and the
benchmark tool's log in tests/data/android are put together from published ones, in the form of the tool's source.
Outputs are computed with the LiteRT that is installed here. Every call is appended to ``calls.json``.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
from pathlib import Path

DATA = Path(__file__).parent / "data" / "android"
SERIAL = "0123456789ABCD"


def make(folder: Path, state: str = "device") -> Path:
    """Write the program ``adb`` and an empty phone into a folder; return the folder for PATH."""
    (folder / "storage").mkdir(parents=True)
    (folder / "state").write_text(state)
    program = folder / "bin" / "adb"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\nexec '{sys.executable}' '{__file__}' '{folder}' \"$@\"\n")
    program.chmod(0o755)
    return program.parent


def calls(folder: Path) -> list[list[str]]:
    """Return what was called, without the serial."""
    lines = (folder / "calls.json").read_text().splitlines()
    return [json.loads(line) for line in lines]


def _fail(text: str) -> int:
    sys.stderr.write(f"{text}\n")
    return 1


def _tool(folder: Path, arguments: list[str]) -> int:
    """Do what benchmark_model does with these flags."""
    import numpy as np
    from ai_edge_litert.interpreter import Interpreter

    flags = dict(word.removeprefix("--").split("=", 1) for word in arguments)
    interpreter = Interpreter(str(_local(folder, flags["graph"])), num_threads=int(flags.get("num_threads", 1)))
    files = [item.split(":") for item in flags.get("input_layer_value_files", "").split(",") if item]
    shapes = [[int(n) for n in text.split(",")] for text in flags.get("input_layer_shape", "").split(":") if text]
    for entry, shape in zip(interpreter.get_input_details(), shapes, strict=False):
        interpreter.resize_tensor_input(entry["index"], shape)
    interpreter.allocate_tensors()
    for entry, (_layer, file), shape in zip(interpreter.get_input_details(), files, shapes, strict=False):
        raw = _local(folder, file).read_bytes()
        array = np.frombuffer(raw, entry["dtype"]).reshape(shape)  # wrong sizes fail, as in the tool
        interpreter.set_tensor(entry["index"], array)
    interpreter.invoke()
    if "output_filepath" in flags:
        outputs = (interpreter.get_tensor(entry["index"]) for entry in interpreter.get_output_details())
        _local(folder, flags["output_filepath"]).write_bytes(b"".join(array.tobytes() for array in outputs))
    text = (DATA / "benchmark_model.txt").read_text()
    sys.stdout.write(text.replace("1.8664e+05", str(1000 + len(calls(folder)) % 7)))
    return 0


def _local(folder: Path, path: str) -> Path:
    return folder / "storage" / path.lstrip("/")


def _shell(folder: Path, command: str) -> int:
    words = shlex.split(command.removesuffix(" 2>&1"))
    head, rest = words[0], words[1:]
    if head == "getprop":
        sys.stdout.write((DATA / "getprop.txt").read_text())
    elif head == "uname":
        sys.stdout.write("5.15.137-android14-11-gbf4f9bc41c3b-ab11664771\n")
    elif head == "mkdir":
        _local(folder, rest[-1]).mkdir(parents=True, exist_ok=True)
    elif head == "chmod":
        _local(folder, rest[-1]).chmod(0o755)
    elif head == "mv":
        _local(folder, rest[0]).rename(_local(folder, rest[1]))
    elif head == "rm":
        for path in rest[1:]:
            _local(folder, path).unlink(missing_ok=True)
    elif head == "sh":
        path = shlex.split(rest[1])[2]
        sys.stdout.write("yes\n" if _local(folder, path).is_file() else "no\n")
    elif "benchmark_model" in head:
        if not os.access(_local(folder, head), os.X_OK):
            sys.stdout.write(f"/system/bin/sh: {head}: can't execute: Permission denied\n")
            return 126
        return _tool(folder, rest)
    else:
        sys.stdout.write(f"/system/bin/sh: {head}: inaccessible or not found\n")
        return 127
    return 0


def main(folder: Path, arguments: list[str]) -> int:
    """Answer one call of adb."""
    serial, words = arguments[1], arguments[2:]
    with (folder / "calls.json").open("a") as log:
        log.write(json.dumps(words) + "\n")
    state = (folder / "state").read_text()
    if serial != SERIAL:
        return _fail(f"error: device '{serial}' not found")
    if state == "unauthorized":
        return _fail("error: device unauthorized.\nThis adb server's $ADB_VENDOR_KEYS is not set\n"
                     "Try 'adb kill-server' if that seems wrong.\n"
                     "Otherwise check for a confirmation dialog on your device.")  # fmt: skip
    if state != "device":
        return _fail(f"error: device {state}")
    if words[0] == "get-state":
        sys.stdout.write("device\n")
    elif words[0] == "push":
        shutil.copyfile(words[1], _local(folder, words[2]))
        sys.stdout.write(f"{words[1]}: 1 file pushed, 0 skipped. 38.2 MB/s\n")
    elif words[0] == "pull":
        shutil.copyfile(_local(folder, words[1]), words[2])
    elif words[0] == "shell":
        return _shell(folder, words[1])
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
