"""A loaded model in OpenVINO."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.api import Artifact, LayerOutput, Options, Placement, Purpose, TensorSpec
from harness_openvino.layers import Layers
from harness_openvino.misfused import safe_settings
from harness_openvino.placement import read_runtime_model
from harness_openvino.probe import import_openvino, optimized_for

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from harness_openvino.params import Params

    Arrays = Mapping[str, NDArray[Any]]

_READ_BACK = {
    "threads": "INFERENCE_NUM_THREADS",
    "streams": "NUM_STREAMS",
    "performance_hint": "PERFORMANCE_HINT",
    "precision_hint": "INFERENCE_PRECISION_HINT",
    "dynamic_quantization": "DYNAMIC_QUANTIZATION_GROUP_SIZE",
    "pinning": "ENABLE_CPU_PINNING",
    "execution_mode": "EXECUTION_MODE_HINT",
    "devices": "EXECUTION_DEVICES",
    "loaded_from_cache": "LOADED_FROM_CACHE",
}


def open_session(
    artifact: Artifact, params: Params, options: Options, purpose: Purpose
) -> OpenVinoSession | EachBatchSession:
    """Compile an artifact: static at the cell's batch, except for accuracy, where the batch stays free.

    Raises:
        MissingDependency: openvino is not installed.
    """
    openvino = import_openvino()
    core = openvino.Core()
    model = core.read_model(str(artifact.path))
    if purpose != "accuracy":
        fix_batch(model, openvino, options.batch)
    settings = {
        "PERFORMANCE_HINT": params.hint.upper(),
        "INFERENCE_PRECISION_HINT": _precision(artifact, params, openvino),
        "PERF_COUNT": purpose == "placement",  # the counters cost time, so a latency session has none
    }
    if params.hint == "latency" and params.device == "CPU":
        settings["NUM_STREAMS"] = "1"
    of_the_cpu = {
        "INFERENCE_NUM_THREADS": options.threads,
        "ENABLE_CPU_PINNING": params.pinning,
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": str(params.dynamic_quantization),
    }
    if params.device == "CPU":
        settings |= of_the_cpu | safe_settings(model)
    else:  # AUTO passes on what its devices hold
        core.set_property("CPU", of_the_cpu)
    if params.cache:
        core.set_property({"CACHE_DIR": str(_cache_folder())})
    if purpose == "accuracy" and artifact.realised == "binary":
        return EachBatchSession(core, model, settings, openvino, options)
    compile_model = partial(core.compile_model, device_name=params.device, config=settings)
    return OpenVinoSession(compile_model, model, openvino, options)


def plain_session(model: Any) -> OpenVinoSession:
    """Return a session of a graph in memory, computed in float32 where nothing is quantized; its batch stays free."""
    openvino = import_openvino()
    settings = {"INFERENCE_PRECISION_HINT": "f32", **safe_settings(model)}
    compile_model = partial(openvino.Core().compile_model, device_name="CPU", config=settings)
    return OpenVinoSession(compile_model, model, openvino, Options())


def _precision(artifact: Artifact, params: Params, openvino: Any) -> str:
    """Return the hint: without one newer CPUs run a float32 file in bfloat16."""
    if params.precision != "artifact":
        return params.precision
    device = "CPU" if params.device == "AUTO" else params.device
    if artifact.realised == "bfloat16":
        return "bf16"
    return "f16" if artifact.realised == "float16" and "FP16" in optimized_for(openvino, device) else "f32"


def _cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "harness" / "openvino"


def fix_batch(model: Any, openvino: Any, batch: int) -> None:
    """Give every free first dimension of a graph's inputs this size, in place."""
    shapes = {}
    for port in model.inputs:
        shape = port.get_partial_shape()
        for axis in range(shape.rank.get_length()):  # what is left free is the batch, on whatever axis it lies
            if shape[axis].is_dynamic:
                shape[axis] = openvino.Dimension(batch)
        shapes[port] = shape
    model.reshape(shapes)


class OpenVinoSession:
    """One compiled model with one infer request."""

    def __init__(self, compile_model: Callable[[Any], Any], model: Any, openvino: Any, options: Options) -> None:
        self._compile_model = compile_model
        self._compiled = compiled = compile_model(model)
        self._layers: Layers | None = None
        self._model = model
        self._openvino = openvino
        self._options = options
        self._request = compiled.create_infer_request()
        # compiling fuses operators, and an output then has the names of what went into it beside its own
        self._names = [port.any_name for port in model.outputs]
        self._dtypes = {port.any_name: _spec(port).dtype for port in compiled.inputs}

    @property
    def inputs(self) -> Mapping[str, TensorSpec]:
        """Inputs by name."""
        return {port.any_name: _spec(port) for port in self._compiled.inputs}

    @property
    def outputs(self) -> Mapping[str, TensorSpec]:
        """Outputs by name."""
        return {name: _spec(port) for name, port in zip(self._names, self._compiled.outputs, strict=True)}

    def run(self, inputs: Arrays) -> Arrays:
        """Run once; inputs are read where they lie, outputs are copied out."""
        results = self._request.infer(self._cast(inputs), share_inputs=True)
        return {name: results[place] for place, name in enumerate(self._names)}

    def bind(self, inputs: Arrays) -> Callable[[], None]:
        """Return a call on inputs that were handed over before; outputs stay in the request."""
        request = self._compiled.create_infer_request()
        for name, array in self._cast(inputs).items():
            request.set_tensor(name, self._openvino.Tensor(array, shared_memory=True))

        def call() -> None:
            request.infer(share_outputs=True)

        return call

    def _cast(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """Return arrays in the dtypes of the graph, which has float32 where the file had float64."""
        return {name: array.astype(self._dtypes[name], copy=False) for name, array in inputs.items()}

    def layers(self, inputs: Arrays) -> Iterator[LayerOutput]:
        """Run once and yield what each operator gives, from a second compilation with the same settings."""
        if self._layers is None:
            self._layers = Layers(self._compile_model, self._model, self._compiled.get_runtime_model())
        yield from self._layers.run(inputs)

    def placements(self) -> tuple[Placement, ...]:
        """Return what the runtime model says of the runs so far; times only with purpose "placement"."""
        batch = self._options.batch
        rows = read_runtime_model(self._compiled.get_runtime_model(), self._model, batch=batch)
        return tuple(dataclasses.replace(row, device=self._device()) for row in rows)

    def _device(self) -> str:
        return str(self._compiled.get_property("EXECUTION_DEVICES")[0]).strip("()")

    def effective(self) -> Mapping[str, str]:
        """Return what the compiled model says of its options."""
        values = {name: self._property(key) for name, key in _READ_BACK.items()}
        return {**values, "version": str(self._openvino.__version__).partition("-")[0]}

    def _property(self, key: str) -> str:
        try:
            return _text(self._compiled.get_property(key))
        except RuntimeError:  # each device has a set of its own
            return "not reported"

    def close(self) -> None:
        """Free the request and the compiled model."""
        self._request = self._compiled = self._model = self._layers = None


class EachBatchSession:
    """A model compiled anew for each batch size that comes: 1-bit convolutions take no free batch."""

    def __init__(self, core: Any, model: Any, settings: Any, openvino: Any, options: Options) -> None:
        self._core, self._model, self._settings = core, model, settings
        self._openvino, self._options = openvino, options
        self._sessions: dict[int, OpenVinoSession] = {}

    @property
    def inputs(self) -> Mapping[str, TensorSpec]:
        """Inputs by name, with a free batch."""
        return {port.any_name: _spec(port) for port in self._model.inputs}

    @property
    def outputs(self) -> Mapping[str, TensorSpec]:
        """Outputs by name, with a free batch."""
        return {port.any_name: _spec(port) for port in self._model.outputs}

    def run(self, inputs: Arrays) -> Arrays:
        """Run once at the batch that the inputs have."""
        return self._session(len(next(iter(inputs.values())))).run(inputs)

    def layers(self, inputs: Arrays) -> Iterator[LayerOutput]:
        """Run once at the batch that the inputs have, and yield what each operator gives."""
        return self._session(len(next(iter(inputs.values())))).layers(inputs)

    def effective(self) -> Mapping[str, str]:
        """Return what the model compiled first says of its options."""
        return next(iter(self._sessions.values())).effective() if self._sessions else {}

    def close(self) -> None:
        """Free all that was compiled."""
        for session in self._sessions.values():
            session.close()
        self._sessions.clear()

    def _session(self, batch: int) -> OpenVinoSession:
        if batch not in self._sessions:
            model = self._model.clone()
            fix_batch(model, self._openvino, batch)
            compile_model = partial(self._core.compile_model, device_name="CPU", config=self._settings)
            self._sessions[batch] = OpenVinoSession(compile_model, model, self._openvino, self._options)
        return self._sessions[batch]


def _text(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ",".join(str(item) for item in value)
    if hasattr(value, "to_string"):
        return str(value.to_string())
    return str(getattr(value, "name", value))


def _spec(port: Any) -> TensorSpec:
    shape = tuple(None if size.is_dynamic else size.get_length() for size in port.get_partial_shape())
    return TensorSpec(str(port.get_element_type().to_dtype().name), shape)
