"""An engine as a session: pinned copies in and out on one stream, or launches alone."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from harness.api import Artifact, HarnessError, Options, Placement, Purpose, TensorSpec
from harness_tensorrt.cuda import Buffer, Cuda
from harness_tensorrt.engine import make_logger, why
from harness_tensorrt.flavors import Flavor, Params, import_library
from harness_tensorrt.lowering import MACS_FILE
from harness_tensorrt.placement import placements

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
        self._device, self._capability = self._cuda.device()
        self._logger = make_logger(self._trt, logging.getLogger("harness"))
        self._runtime = self._trt.Runtime(self._logger)
        self._engine = self._runtime.deserialize_cuda_engine(artifact.path.read_bytes())
        if self._engine is None:  # it does not raise
            raise HarnessError(f"the plan does not load on {self._device}: {why(self._logger)}")
        self._context = self._engine.create_execution_context()
        if self._context is None:
            raise HarnessError(f"no execution context on {self._device}: {why(self._logger)}")
        # Never the default stream: TensorRT then adds synchronisation of its own.
        self._stream = self._cuda.call("cudaStreamCreateWithFlags", self._cuda.api.cudaStreamNonBlocking)
        self._inputs, self._outputs = self._allocate(options.batch)
        self._graph: Any = None

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
            buffer.upload(self._stream)
        self._launch()
        for buffer in self._outputs.values():
            buffer.download(self._stream)
        self._cuda.call("cudaStreamSynchronize", self._stream)
        return {name: buffer.host.copy() for name, buffer in self._outputs.items()}

    def bind(self, inputs: Arrays) -> Callable[[], None]:
        """Copy in once; the call launches and waits."""
        self.run(inputs)

        def compute() -> None:
            self._launch()
            self._cuda.call("cudaStreamSynchronize", self._stream)

        return compute

    def placements(self) -> tuple[Placement, ...]:
        """Return one entry per layer of the engine, with its share of time when opened for it."""
        inspector = self._engine.create_engine_inspector()
        inspector.execution_context = self._context
        information = json.loads(inspector.get_engine_information(self._trt.LayerInformationFormat.JSON))
        sidecar = self._artifact.path.with_name(MACS_FILE)
        macs = json.loads(sidecar.read_text()) if sidecar.exists() else {}
        times = self._layer_times() if self._purpose == "placement" else {}
        return placements(information, macs=macs, times=times, device=self._device)

    def device_memory_bytes(self) -> int:
        """Return weights, activation scratch and I/O buffers as the engine states them."""
        weights = self._engine.get_engine_stat(self._trt.EngineStat.TOTAL_WEIGHTS_SIZE)
        buffers = sum(buffer.bytes for buffer in (*self._inputs.values(), *self._outputs.values()))
        return int(weights) + int(self._engine.device_memory_size_v2) + buffers

    def effective(self) -> Mapping[str, str]:
        """Return device, library, and how launches are made; threads do not apply."""
        return {
            "device": f"{self._device}, compute capability {self._capability[0]}.{self._capability[1]}",
            "runtime": f"{self._flavor.title} {self._trt.__version__}",
            "launch": "CUDA graph" if self._graph is not None else "enqueue",
            "threads": "not applicable: the work is on the GPU",
        }

    def close(self) -> None:
        """Free buffers, graph, stream and engine; further calls do nothing."""
        if self._engine is None:
            return
        for buffer in (*self._inputs.values(), *self._outputs.values()):
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
            self._launch()
            self._cuda.call("cudaStreamSynchronize", self._stream)
        return times


def _numpy_name(dtype: str, tensor: str) -> str:
    if dtype not in _NUMPY:
        raise HarnessError(f"tensor {tensor!r} has type {dtype}, for which numpy has no array")
    return _NUMPY[dtype]


def _spec(buffer: Buffer) -> TensorSpec:
    return TensorSpec(buffer.host.dtype.name, tuple(buffer.host.shape))
