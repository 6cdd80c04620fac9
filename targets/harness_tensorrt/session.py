"""An engine as a session: pinned copies in and out on one stream, or launches alone on inputs that rotate."""

from __future__ import annotations

import itertools
import json
import logging
import os
import random
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from harness.api import Artifact, HarnessError, Options, Placement, Purpose, TensorSpec
from harness_tensorrt.cuda import Buffer, Cuda
from harness_tensorrt.engine import make_logger, why
from harness_tensorrt.flavors import Flavor, Params, import_library
from harness_tensorrt.lowering import MACS_FILE, plan_path
from harness_tensorrt.placement import placements
from harness_tensorrt.timing import Nvml, event_times_us, stated

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Arrays = Mapping[str, NDArray[Any]]

_PROFILED_RUNS = 20
_NUMPY = {
    "FLOAT": "float32", "HALF": "float16", "INT8": "int8", "UINT8": "uint8",
    "INT32": "int32", "INT64": "int64", "BOOL": "bool",
}  # fmt: skip


class TensorrtSession:
    """A deserialised engine with its buffers and stream.

    Args:
        flavor: Which library; the plan must be its own.
        artifact: What ``lower`` wrote on this host.
        params: CUDA graph or not; the rest is in the plan.
        options: The batch that the plan was built for.
        purpose: Layer times are collected for "placement" only.

    Raises:
        HarnessError: The engine does not load here.
    """

    def __init__(self, flavor: Flavor, artifact: Artifact, params: Params, options: Options, purpose: Purpose) -> None:
        self._flavor, self._artifact, self._params, self._purpose = flavor, artifact, params, purpose
        self._trt = import_library(flavor)
        self._cuda = Cuda()
        self._cuda.waits(spin=params.spin)
        self._device, self._capability = self._cuda.device()
        self._before_bytes = self._cuda.held_bytes()
        self._logger = make_logger(self._trt, logging.getLogger("harness"))
        self._runtime = self._trt.Runtime(self._logger)
        self._build = random.SystemRandom().randrange(params.builds)  # each process takes its own chance of tactics
        self._engine = self._runtime.deserialize_cuda_engine(plan_path(artifact.path, self._build).read_bytes())
        if self._engine is None:  # it does not raise
            raise HarnessError(f"the plan does not load on {self._device}: {why(self._logger)}")
        self._context = self._engine.create_execution_context()
        if self._context is None:
            raise HarnessError(f"no execution context on {self._device}: {why(self._logger)}")
        # Never the default stream: TensorRT then adds synchronisation of its own.
        self._stream = self._cuda.call("cudaStreamCreateWithFlags", self._cuda.api.cudaStreamNonBlocking)
        self._inputs, self._outputs = self._allocate(options.batch)
        self._spare: list[Buffer] = []
        self._graph: Any = None
        self._told: Mapping[str, str] = {}

    @property
    def inputs(self) -> Mapping[str, TensorSpec]:
        """Inputs by name, of fixed shape."""
        return {name: _spec(buffer) for name, buffer in self._inputs.items()}

    @property
    def outputs(self) -> Mapping[str, TensorSpec]:
        """Outputs by name."""
        return {name: _spec(buffer) for name, buffer in self._outputs.items()}

    def run(self, inputs: Arrays) -> Arrays:
        """Copy in, launch, copy out and wait, all on one stream; the returned arrays are copies."""
        for name, buffer in self._inputs.items():
            buffer.host[...] = inputs[name]
            if self._spare:  # compute-only runs leave another address there
                self._context.set_tensor_address(name, buffer.device)
        self._upload()
        self._launch()
        self._download()
        self._cuda.call("cudaStreamSynchronize", self._stream)
        return {name: buffer.host.copy() for name, buffer in self._outputs.items()}

    def bind(self, inputs: Arrays) -> Callable[[], None]:
        """Copy in once, several times over; the call launches on the next copy and waits."""
        self.run(inputs)
        places = itertools.cycle(self._copies())

        def compute() -> None:
            for name, address in next(places).items():
                self._context.set_tensor_address(name, address)
            self._launch()
            self._cuda.call("cudaStreamSynchronize", self._stream)

        return compute

    def _copies(self) -> list[dict[str, int]]:
        """Return addresses of the inputs and of further copies of them; a graph has its addresses captured."""
        found = [{name: buffer.device for name, buffer in self._inputs.items()}]
        for _copy in range(0 if self._params.cuda_graph else self._params.rotation - 1):
            made = {name: Buffer(self._cuda, item.host.dtype, item.host.shape) for name, item in self._inputs.items()}
            for name, buffer in made.items():
                buffer.host[...] = self._inputs[name].host
                buffer.upload(self._stream)
            self._cuda.call("cudaStreamSynchronize", self._stream)
            self._spare += made.values()
            found.append({name: buffer.device for name, buffer in made.items()})
        return found

    def placements(self) -> tuple[Placement, ...]:
        """Return one entry per layer of the engine, with its share of time when opened for it."""
        inspector = self._engine.create_engine_inspector()
        inspector.execution_context = self._context
        information = json.loads(inspector.get_engine_information(self._trt.LayerInformationFormat.JSON))
        sidecar = self._artifact.path.with_name(MACS_FILE)
        macs = json.loads(sidecar.read_text()) if sidecar.exists() else {}
        profiled = self._purpose == "placement"
        self._told = self._tell() if profiled else {}  # before the profiler, which puts layers one after the other
        times = self._layer_times() if profiled else {}
        return placements(information, macs=macs, times=times, device=self._device)

    def device_memory_bytes(self) -> int:
        """Return weights, activation scratch and I/O buffers as the engine states them."""
        return sum(self._memory().values())

    def _memory(self) -> dict[str, int]:
        buffers = (*self._inputs.values(), *self._outputs.values(), *self._spare)
        return {
            "weights": int(self._engine.get_engine_stat(self._trt.EngineStat.TOTAL_WEIGHTS_SIZE)),
            "activations": int(self._engine.device_memory_size_v2),
            "buffers": sum(buffer.bytes for buffer in buffers),
        }

    def effective(self) -> Mapping[str, str]:
        """Return device, library, and how launches are made; after ``placements`` also what the GPU tells of them."""
        values = {
            "device": f"{self._device}, compute capability {self._capability[0]}.{self._capability[1]}",
            "runtime": f"{self._flavor.title} {self._trt.__version__}",
            "launch": "CUDA graph" if self._graph is not None else "enqueue",
            "wait": "the host spins" if self._params.spin else "the host blocks",
            "transfers": "pinned host memory, in and out on the stream of the launch; compute-only runs have none",
            "rotation": f"{1 if self._params.cuda_graph else self._params.rotation} inputs in compute-only runs",
            "build": f"engine {self._build + 1} of {self._params.builds}",
            "threads": "not applicable: the work is on the GPU",
        }
        return {**values, **self._told}

    def _tell(self) -> dict[str, str]:
        """Return device times, memory and energy of some more runs, each with the reason where there is none."""
        stated_bytes = ", ".join(f"{name} {size} B" for name, size in self._memory().items())
        grown = self._cuda.held_bytes() - self._before_bytes
        found = {
            "device time": stated(event_times_us(self._cuda, self._stream, self._launch)),
            "device time of copying in": stated(event_times_us(self._cuda, self._stream, self._upload)),
            "device time of copying out": stated(event_times_us(self._cuda, self._stream, self._download)),
            "device memory": f"{stated_bytes} by the engine; {grown} B more in use on the GPU since it was opened",
        }
        try:
            nvml = Nvml(self._cuda.bus())
        except Exception as error:  # noqa: BLE001  NVML's errors are classes of its own; any of them is the reason
            return found | {"energy": f"not available: {error}"}
        try:
            process = nvml.process_bytes(os.getpid())
            found["process memory"] = "not available: NVML names no process" if process is None else f"{process} B"
            found["energy"] = str(nvml.energy(self._step))
            found["gpu state"] = nvml.state()
        except Exception as error:  # noqa: BLE001  likewise
            found.setdefault("energy", f"not available: {error}")
        finally:
            nvml.close()
        return found

    def _step(self) -> None:
        self._launch()
        self._cuda.call("cudaStreamSynchronize", self._stream)

    def _upload(self) -> None:
        for buffer in self._inputs.values():
            buffer.upload(self._stream)

    def _download(self) -> None:
        for buffer in self._outputs.values():
            buffer.download(self._stream)

    def close(self) -> None:
        """Free buffers, graph, stream and engine; further calls do nothing."""
        if self._engine is None:
            return
        for buffer in (*self._inputs.values(), *self._outputs.values(), *self._spare):
            buffer.free()
        if self._graph is not None:
            self._cuda.call("cudaGraphExecDestroy", self._graph)
        self._context = self._engine = self._runtime = None  # in this order: each lives in the next
        self._cuda.call("cudaStreamDestroy", self._stream)

    def _allocate(self, batch: int) -> tuple[dict[str, Buffer], dict[str, Buffer]]:
        import numpy as np

        engine, context, trt = self._engine, self._context, self._trt
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        inputs = [name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
        for name in inputs:
            shape = tuple(engine.get_tensor_shape(name))
            context.set_input_shape(name, tuple(batch if size == -1 else int(size) for size in shape))
        missing = context.infer_shapes()
        if missing:
            raise HarnessError(f"the engine leaves shapes open: {', '.join(missing)}")
        buffers = {}
        for name in names:
            dtype = np.dtype(_numpy_name(engine.get_tensor_dtype(name).name, name))
            buffers[name] = Buffer(self._cuda, dtype, tuple(int(size) for size in context.get_tensor_shape(name)))
            context.set_tensor_address(name, buffers[name].device)
        return (
            {name: buffers[name] for name in names if name in inputs},
            {name: buffers[name] for name in names if name not in inputs},
        )

    def _launch(self) -> None:
        if self._graph is not None:
            self._cuda.call("cudaGraphLaunch", self._graph, self._stream)
            return
        if not self._context.execute_async_v3(int(self._stream)):
            raise HarnessError(f"the engine failed: {why(self._logger)}")
        if self._params.cuda_graph and self._purpose != "placement":  # a profiler cannot look into a graph
            self._capture()

    def _capture(self) -> None:
        """Record the launches; the first plain launch, which a capture needs before it, is done."""
        cuda = self._cuda
        cuda.call("cudaStreamSynchronize", self._stream)
        mode = cuda.api.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        cuda.call("cudaStreamBeginCapture", self._stream, mode)
        self._context.execute_async_v3(int(self._stream))
        graph = cuda.call("cudaStreamEndCapture", self._stream)
        self._graph = cuda.call("cudaGraphInstantiate", graph, 0)
        cuda.call("cudaGraphDestroy", graph)

    def _layer_times(self) -> dict[str, float]:
        """Return layer name -> milliseconds summed over a few runs on the inputs of the last call."""
        trt = self._trt
        times: dict[str, float] = {}

        class Profiler(trt.IProfiler):  # type: ignore[misc, name-defined]  # known at run time only
            """Sum up."""

            def __init__(self) -> None:
                trt.IProfiler.__init__(self)

            def report_layer_time(self, layer_name: str, ms: float) -> None:
                """Take one layer's time of one run."""
                times[layer_name] = times.get(layer_name, 0.0) + ms

        self._context.profiler = Profiler()
        for _run in range(_PROFILED_RUNS):
            self._step()
        return times


def _numpy_name(dtype: str, tensor: str) -> str:
    if dtype not in _NUMPY:
        raise HarnessError(f"tensor {tensor!r} has type {dtype}, for which numpy has no array")
    return _NUMPY[dtype]


def _spec(buffer: Buffer) -> TensorSpec:
    return TensorSpec(buffer.host.dtype.name, tuple(buffer.host.shape))
