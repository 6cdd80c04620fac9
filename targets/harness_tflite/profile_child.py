"""Print which kernels ran a .tflite file, and for how long, from LiteRT's own profiler, as JSON.

Stands alone, on ai-edge-litert: it is started by its path, in a process of its own, because it calls LiteRT's C
interface, for which there is no Python one. Sources: litert/c/litert_profiler.h, litert_profiler_event.h,
litert_compiled_model.h and litert_opaque_options.h of LiteRT 2.
"""

from __future__ import annotations

import ctypes
import json
import sys
from importlib import util
from pathlib import Path
from typing import Any

RUNS = 30  # their times are added up: the profiler counts whole microseconds
_CPU = 1
_OPERATOR, _DELEGATE_OPERATOR, _DELEGATE_PROFILED = 2, 4, 8  # event types
_Pointer = ctypes.c_void_p
_Size = ctypes.c_size_t


class _Memory(ctypes.Structure):
    _fields_ = (("total", _Size), ("in_use", _Size), ("private", _Size))


class _Event(ctypes.Structure):
    _fields_ = (
        ("tag", ctypes.c_char_p),
        ("kind", ctypes.c_int),
        ("start_us", ctypes.c_uint64),
        ("elapsed_us", ctypes.c_uint64),
        ("before", _Memory),
        ("after", _Memory),
        ("index", ctypes.c_uint64),
        ("subgraph", ctypes.c_uint64),
        ("source", ctypes.c_int),
    )


class _TensorType(ctypes.Structure):
    """Element type; rank and whether it has strides; eight dimensions; eight strides."""

    _fields_ = (
        ("element", ctypes.c_int),
        ("bits", ctypes.c_uint32),
        ("dimensions", ctypes.c_int32 * 8),
        ("strides", ctypes.c_uint32 * 8),
    )


class Runtime:
    """The C interface; a call that fails raises ``RuntimeError`` with its name."""

    def __init__(self) -> None:
        spec = util.find_spec("ai_edge_litert")
        if spec is None or not spec.submodule_search_locations:
            raise RuntimeError("ai-edge-litert is not installed")
        self._library = ctypes.CDLL(str(Path(next(iter(spec.submodule_search_locations))) / "libLiteRt.so"))

    def call(self, name: str, *arguments: Any) -> None:
        """Call a function that returns a status."""
        try:
            status = getattr(self._library, name)(*arguments)
        except AttributeError:
            raise RuntimeError(f"this release of LiteRT has no {name}") from None
        if status != 0:
            raise RuntimeError(f"{name} returned {status}")

    def make(self, name: str, *arguments: Any) -> Any:
        """Call a function that gives a handle back through its last argument."""
        found = _Pointer()
        self.call(name, *arguments, ctypes.byref(found))
        return found


def compiled(runtime: Runtime, path: Path) -> tuple[Any, Any, Any]:
    """Load a file for the CPU with the profiler on; return environment, model and compiled model."""
    environment = runtime.make("LiteRtCreateEnvironment", 0, None)
    model = runtime.make("LiteRtCreateModelFromFile", environment, str(path).encode())
    options = runtime.make("LiteRtCreateOptions")
    runtime.call("LiteRtSetOptionsHardwareAccelerators", options, _CPU)
    system = ctypes.CDLL(None)
    system.strdup.restype = _Pointer
    text = _Pointer(system.strdup(b"enable_profiling = true\n"))  # freed by the runtime, with the function beside it
    free = ctypes.cast(system.free, _Pointer)
    ours = runtime.make("LiteRtCreateOpaqueOptions", b"runtime_options_string", text, free)
    runtime.call("LiteRtAddOpaqueOptions", options, ours)
    return environment, model, runtime.make("LiteRtCreateCompiledModel", environment, model, options)


def buffers(runtime: Runtime, environment: Any, model: Any, loaded: Any, side: str) -> tuple[Any, Any]:
    """Return number and handles of the inputs' or outputs' memory; what is in it does not change the kernels."""
    signature = runtime.make("LiteRtGetModelSignature", model, _Size(0))
    count = _Size()
    runtime.call(f"LiteRtGetNumSignature{side}s", signature, ctypes.byref(count))
    made = []
    for place in range(count.value):
        tensor = runtime.make(f"LiteRtGetSignature{side}TensorByIndex", signature, _Size(place))
        kind = _TensorType()
        runtime.call("LiteRtGetRankedTensorType", tensor, ctypes.byref(kind))
        needs = runtime.make(f"LiteRtGetCompiledModel{side}BufferRequirements", loaded, _Size(0), _Size(place))
        made.append(
            runtime.make("LiteRtCreateManagedTensorBufferFromRequirements", environment, ctypes.byref(kind), needs)
        )
    return count, (_Pointer * count.value)(*made)


def profile(path: Path) -> list[dict[str, Any]]:
    """Run a file and return its kernels in order of execution, with the microseconds of all runs.

    Raises:
        RuntimeError: LiteRT refuses, or its runs do not tell the same.
    """
    runtime = Runtime()
    environment, model, loaded = compiled(runtime, path)
    sides = [buffers(runtime, environment, model, loaded, side) for side in ("Input", "Output")]
    profiler = runtime.make("LiteRtCompiledModelGetProfiler", loaded)
    arguments = [item for side in sides for item in side]
    total: list[dict[str, Any]] = []
    for run in range(RUNS + 1):
        runtime.call("LiteRtResetProfiler", profiler)
        runtime.call("LiteRtStartProfiler", profiler)
        runtime.call("LiteRtRunCompiledModel", loaded, _Size(0), *arguments)
        runtime.call("LiteRtStopProfiler", profiler)
        found = events(runtime, profiler)
        if run == 1:  # the first one allocates
            total = found
        elif run > 1:
            if [item["kernel"] for item in found] != [item["kernel"] for item in total]:
                raise RuntimeError("two runs list different kernels")
            for item, more in zip(total, found, strict=True):
                item["us"] += more["us"]
    return total


def events(runtime: Runtime, profiler: Any) -> list[dict[str, Any]]:
    """Return the operators of the last run; a delegate's own are listed in place of it."""
    count = ctypes.c_int()
    runtime.call("LiteRtGetNumProfilerEvents", profiler, ctypes.byref(count))
    listed = (_Event * count.value)()
    runtime.call("LiteRtGetProfilerEvents", profiler, count, listed)
    return [
        {"kernel": item.tag.decode(), "delegated": item.kind != _OPERATOR, "us": item.elapsed_us}
        for item in listed
        if item.kind in {_DELEGATE_OPERATOR, _DELEGATE_PROFILED}
        or (item.kind == _OPERATOR and b"Delegate" not in item.tag)
    ]


if __name__ == "__main__":
    try:
        sys.stdout.write(json.dumps(profile(Path(sys.argv[1]))) + "\n")
    except RuntimeError as error:
        raise SystemExit(str(error)) from None
