"""Stand-ins for CUDA and the TensorRT bindings: "device" memory is host memory, the engine doubles its input.

They exist so that the order of copies, launches and frees can be checked without a GPU; they measure nothing.
"""

from __future__ import annotations

import ctypes
import json
from enum import IntEnum
from types import SimpleNamespace
from typing import Any

import numpy as np


class CudaRuntime:
    """Functions of ``cuda.bindings.runtime`` that return status and value; keeps what is allocated and called."""

    cudaHostAllocDefault = 0
    cudaStreamNonBlocking = 1
    cudaDeviceScheduleSpin = 1
    cudaDeviceScheduleBlockingSync = 4
    cudaMemcpyKind = SimpleNamespace(cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2)
    cudaStreamCaptureMode = SimpleNamespace(cudaStreamCaptureModeThreadLocal=1)

    def __init__(self) -> None:
        self.memory: dict[int, Any] = {}
        self.calls: list[str] = []
        self.captured: Any = None
        self.clock_us = 0
        self.flags = 0
        self.launch: Any = None

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("cuda") and name[4:5].isupper():
            object.__getattribute__(self, "calls").append(name)
        return object.__getattribute__(self, name)

    def _allocate(self, size: int) -> int:
        block = (ctypes.c_uint8 * size)()
        self.memory[ctypes.addressof(block)] = block
        return ctypes.addressof(block)

    def cudaGetDeviceCount(self):
        return 0, 1

    def cudaGetDevice(self):
        return 0, 0

    def cudaGetDeviceProperties(self, device: int):
        return 0, SimpleNamespace(name=b"Stand-in", major=9, minor=0)

    def cudaSetDeviceFlags(self, flags: int):
        self.flags = flags
        return (0,)

    def cudaDeviceGetPCIBusId(self, size: int, device: int):
        return 0, b"0000:00:1e.0\0\0"

    def cudaMemGetInfo(self):
        return 0, 10**9 - sum(len(block) for block in self.memory.values()), 10**9

    def cudaEventCreate(self):
        return 0, [0]

    def cudaEventRecord(self, event: list[int], stream: int):
        event[0] = self.clock_us = self.clock_us + 5  # the "GPU" needs 5 us for what lies between two records
        return (0,)

    def cudaEventElapsedTime(self, start: list[int], stop: list[int]):
        return 0, (stop[0] - start[0]) / 1e3

    def cudaEventSynchronize(self, event: list[int]):
        return (0,)

    cudaEventDestroy = cudaEventSynchronize

    def cudaMalloc(self, size: int):
        return 0, self._allocate(size)

    def cudaHostAlloc(self, size: int, flags: int):
        return 0, self._allocate(size)

    def cudaFree(self, pointer: int):
        del self.memory[pointer]
        return (0,)

    cudaFreeHost = cudaFree

    def cudaMemcpyAsync(self, target: int, source: int, size: int, kind: int, stream: int):
        ctypes.memmove(target, source, size)
        return (0,)

    def cudaStreamCreateWithFlags(self, flags: int):
        return 0, 7

    def cudaStreamSynchronize(self, stream: int):
        return (0,)

    cudaStreamDestroy = cudaGraphDestroy = cudaGraphExecDestroy = cudaStreamSynchronize

    def cudaStreamBeginCapture(self, stream: int, mode: int):
        return (0,)

    def cudaStreamEndCapture(self, stream: int):
        return 0, "graph"

    def cudaGraphInstantiate(self, graph: str, flags: int):
        return 0, "executable"

    def cudaGraphLaunch(self, graph: str, stream: int):
        self.launch()
        return (0,)


class _DataType(IntEnum):
    FLOAT = 0


class _Mode(IntEnum):
    INPUT = 1
    OUTPUT = 2


class Context:
    """Doubles the input of the shape that was set."""

    profiler: Any = None

    def __init__(self) -> None:
        self.addresses: dict[str, int] = {}
        self.shape: tuple[int, ...] = ()
        self.fails = False

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> None:
        self.shape = shape

    def infer_shapes(self) -> list[str]:
        return []

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self.shape

    def set_tensor_address(self, name: str, address: int) -> None:
        self.addresses[name] = address

    def execute_async_v3(self, stream: int) -> bool:
        if self.fails:
            return False
        size = int(np.prod(self.shape)) * 4
        blocks = {name: (ctypes.c_uint8 * size).from_address(place) for name, place in self.addresses.items()}
        values = {name: np.frombuffer(memoryview(block), np.float32) for name, block in blocks.items()}
        values["out"][:] = 2 * values["row"]
        if self.profiler is not None:
            self.profiler.report_layer_time("first", 1.0)
            self.profiler.report_layer_time("second", 3.0)
        return True


class Engine:
    """An engine with one input and one output of a free batch."""

    num_io_tensors = 2
    device_memory_size_v2 = 1000

    def __init__(self) -> None:
        self.context = Context()

    def create_execution_context(self) -> Context:
        return self.context

    def get_tensor_name(self, index: int) -> str:
        return ("row", "out")[index]

    def get_tensor_mode(self, name: str) -> _Mode:
        return _Mode.INPUT if name == "row" else _Mode.OUTPUT

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return (-1, 3)

    def get_tensor_dtype(self, name: str) -> _DataType:
        return _DataType.FLOAT

    def get_engine_stat(self, stat: str) -> int:
        return 200

    def create_engine_inspector(self) -> Any:
        tensor = {"DataType": "Float", "Format": "(kLINEAR)"}
        layers = [
            {"Name": "first", "LayerType": "gemm", "Inputs": [tensor], "Metadata": "[ONNX Layer: product]"},
            {"Name": "second", "LayerType": "kgen", "Inputs": [tensor]},
        ]
        return SimpleNamespace(get_engine_information=lambda form: json.dumps({"Layers": layers}))


class _Base:
    """What the library's classes to derive from are here."""


class _Logger(_Base):
    Severity = SimpleNamespace(ERROR="error", INTERNAL_ERROR="internal")


def bindings(engine: Engine | None) -> Any:
    """Return a module whose runtime loads this engine, or says why not."""

    class Runtime:
        def __init__(self, logger: Any) -> None:
            self.logger = logger

        def deserialize_cuda_engine(self, plan: bytes) -> Engine | None:
            if engine is None:
                self.logger.log("error", "the plan is of\nanother version")
            return engine

    return SimpleNamespace(
        __version__="11.4.0",
        ILogger=_Logger,
        IProfiler=_Base,
        Runtime=Runtime,
        TensorIOMode=_Mode,
        EngineStat=SimpleNamespace(TOTAL_WEIGHTS_SIZE="weights"),
        LayerInformationFormat=SimpleNamespace(JSON="json"),
    )
