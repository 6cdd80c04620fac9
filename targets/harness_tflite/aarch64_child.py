"""Run a .tflite file for a parent in another interpreter: stands alone, on numpy and ai-edge-litert.

It is started by its path, not as a module of a package: the interpreter, an aarch64 one, need not have harness.
Messages are a line of JSON, and the raw bytes of the arrays that it lists behind it.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import Any, BinaryIO


def main(argv: list[str]) -> int:
    """Load the file with the threads and XNNPACK that are asked for, and answer until the parent closes its end."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # a runtime that prints would break the answers
    options = json.loads(argv[0])
    interpreter = _load(options)
    _send(answers, _about(interpreter), [])
    while line := sys.stdin.buffer.readline():
        _send(answers, *_run(interpreter, json.loads(line), sys.stdin.buffer))
    return 0


def _load(options: dict[str, Any]) -> Any:
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    resolver = OpResolverType.AUTO if options["xnnpack"] else OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    # The bytes, not the path: under emulation a file would be looked for below the foreign root first.
    interpreter = Interpreter(
        model_content=Path(options["model"]).read_bytes(),
        num_threads=options["threads"],
        experimental_op_resolver_type=resolver,
    )
    for entry in interpreter.get_input_details():
        shape = [int(size) for size in entry["shape"]]
        if shape and shape[0] != options["batch"]:
            interpreter.resize_tensor_input(entry["index"], [options["batch"], *shape[1:]])
    interpreter.allocate_tensors()
    return interpreter


def _about(interpreter: Any) -> dict[str, Any]:
    tensors = interpreter.get_tensor_details()
    return {
        "machine": platform.machine(),
        "version": metadata.version("ai-edge-litert"),
        "nodes": [
            {"op_name": node["op_name"], "index": int(node["index"])}
            | {side: [int(tensor) for tensor in node[side]] for side in ("inputs", "outputs")}
            for node in interpreter._get_ops_details()
        ],
        "tensors": [
            {"index": int(item["index"]), "name": item["name"], "dtype": item["dtype"].__name__}
            | {"shape": [int(size) for size in item["shape"]]}
            for item in tensors
        ],
        "inputs": [int(item["index"]) for item in interpreter.get_input_details()],
    }


def _run(interpreter: Any, message: dict[str, Any], source: BinaryIO) -> tuple[dict[str, Any], list[bytes]]:
    """Set the tensors that a message lists, run, and return those that it wants."""
    import numpy as np

    for item in message["set"]:
        array = np.frombuffer(source.read(item["bytes"]), item["dtype"]).reshape(item["shape"])
        interpreter.set_tensor(item["index"], array)
    interpreter.invoke()
    arrays = [np.ascontiguousarray(interpreter.get_tensor(index)) for index in message["get"]]
    header = [{"dtype": array.dtype.name, "shape": list(array.shape), "bytes": array.nbytes} for array in arrays]
    return {"got": header}, [array.tobytes() for array in arrays]


def _send(stream: BinaryIO, message: dict[str, Any], parts: list[bytes]) -> None:
    stream.write(json.dumps(message).encode() + b"\n" + b"".join(parts))
    stream.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
