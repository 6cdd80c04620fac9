"""A loaded model in ONNX Runtime."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.api import Artifact, LayerOutput, MissingDependency, Options, Placement, Purpose, TensorSpec
from harness_onnx import BATCH, macs_by_node
from harness_onnxruntime.layers import Layers
from harness_onnxruntime.placement import read_profile
from harness_onnxruntime.probe import HINT, providers

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from harness_onnxruntime.params import Params

    Arrays = Mapping[str, NDArray[Any]]

_LEVELS = {
    "all": "ORT_ENABLE_ALL", "extended": "ORT_ENABLE_EXTENDED", "basic": "ORT_ENABLE_BASIC", "off": "ORT_DISABLE_ALL",
}  # fmt: skip
_ACCURACY_LEVEL = "session.qdq_matmulnbits_accuracy_level"
_LEVEL_OF = {"float32": "1", "int8": "4"}
_ACTIVATIONS = {"1": "float32", "4": "int8"}  # inputs of MatMulNBits by accuracy level
# A transpose fused over the cast of a float16 value leaves a node without an operator, and the process dies where
# another pass reads it: https://github.com/microsoft/onnxruntime/issues/28392
_FATAL_TO_FLOAT16 = ("MatmulTransposeFusion",)
_DTYPES = {"float": "float32", "double": "float64"}
_MEMORY = {"cuda": "cuda", "tensorrt": "cuda", "dml": "dml"}  # where a provider's compute-only runs read and write


def open_session(artifact: Artifact, params: Params, options: Options, purpose: Purpose) -> OnnxRuntimeSession:
    """Load an artifact: static at the cell's batch, except for accuracy, where the batch stays free.

    Raises:
        MissingDependency: onnxruntime is not installed.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingDependency(f"onnxruntime cannot be imported: {error}", hint=HINT) from error
    settings = _settings(onnxruntime, params, options)
    folder = None
    if purpose != "accuracy":
        settings.add_free_dimension_override_by_name(BATCH, options.batch)
    if purpose == "placement":  # the profiler costs time, so a latency session has none
        folder = tempfile.TemporaryDirectory(prefix="harness-ort-")
        settings.enable_profiling = True
        settings.profile_file_prefix = str(Path(folder.name) / "profile")
    left_out = list(_FATAL_TO_FLOAT16) if params.provider == "cpu" and "float16" in artifact.weight_bytes else []
    create = partial(onnxruntime.InferenceSession, providers=providers(params), disabled_optimizers=left_out)
    session = create(str(artifact.path), settings)
    memory = _MEMORY.get(params.provider, "cpu")
    again = partial(Layers, artifact.path, partial(create, sess_options=_settings(onnxruntime, params, options)))
    return OnnxRuntimeSession(session, onnxruntime, artifact.path, options, folder, memory, again, left_out)


def _settings(onnxruntime: Any, params: Params, options: Options) -> Any:
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = options.threads
    settings.inter_op_num_threads = 1
    settings.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    settings.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, _LEVELS[params.graph_optimization])
    settings.enable_cpu_mem_arena = params.arena
    settings.log_severity_level = 3
    # The runtime's own default is int8: https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html
    settings.add_session_config_entry(_ACCURACY_LEVEL, _LEVEL_OF[params.weight_only_activations])
    if not params.prepacking:
        settings.add_session_config_entry("session.disable_prepacking", "1")
    if params.mmap:
        settings.add_session_config_entry("session.use_memory_mapped_ort_model", "1")
    settings.add_session_config_entry("session.intra_op.allow_spinning", "1" if params.spinning else "0")
    return settings


def _macs(path: Path) -> Mapping[str, int]:
    """Return the MACs of a file's nodes; those of a rewritten file are its source's, which lies beside it."""
    source = path.with_name("model.onnx")
    return macs_by_node(source if source.is_file() else path) if path.suffix == ".onnx" or source.is_file() else {}


class OnnxRuntimeSession:
    """One ``InferenceSession``, its threads and its arena."""

    def __init__(
        self,
        session: Any,
        onnxruntime: Any,
        path: Path,
        options: Options,
        folder: tempfile.TemporaryDirectory[str] | None,
        memory: str,
        with_layers: Callable[[], Layers],
        left_out: Sequence[str] = (),
    ) -> None:
        self._session = session
        self._runtime = onnxruntime
        self._path = path
        self._options = options
        self._folder = folder
        self._memory = memory
        self._with_layers = with_layers
        self._layers: Layers | None = None
        self._left_out = ",".join(left_out)
        self._names = [item.name for item in session.get_outputs()]

    @property
    def inputs(self) -> Mapping[str, TensorSpec]:
        """Inputs by name."""
        return {item.name: _spec(item) for item in self._session.get_inputs()}

    @property
    def outputs(self) -> Mapping[str, TensorSpec]:
        """Outputs by name."""
        return {item.name: _spec(item) for item in self._session.get_outputs()}

    def run(self, inputs: Arrays) -> Arrays:
        """Run once."""
        return dict(zip(self._names, self._session.run(None, inputs), strict=True))

    def bind(self, inputs: Arrays) -> Callable[[], None]:
        """Return a call on inputs that lie in the device's memory already; outputs stay there."""
        binding = self._session.io_binding()
        for name, array in inputs.items():
            binding.bind_ortvalue_input(name, self._runtime.OrtValue.ortvalue_from_numpy(array, self._memory, 0))
        for name in self._names:
            binding.bind_output(name, self._memory)

        def call() -> None:
            self._session.run_with_iobinding(binding)

        def call_and_wait() -> None:
            self._session.run_with_iobinding(binding)
            binding.synchronize_outputs()

        return call if self._memory == "cpu" else call_and_wait

    def layers(self, inputs: Arrays) -> Iterator[LayerOutput]:
        """Run once and yield what each operator gives, from a second session of the same options."""
        if self._layers is None:
            self._layers = self._with_layers()
        yield from self._layers.run(inputs)

    def placements(self) -> tuple[Placement, ...]:
        """Return what the profiler saw in the runs so far; only with purpose "placement"."""
        if self._folder is None:
            return ()
        profile = Path(self._session.end_profiling()).read_bytes()
        return read_profile(profile, batch=self._options.batch, macs=_macs(self._path))

    def effective(self) -> Mapping[str, str]:
        """Return what the session says of its options."""
        settings = self._session.get_session_options()
        return {
            "threads": str(settings.intra_op_num_threads),
            "inter_op_threads": str(settings.inter_op_num_threads),
            "graph_optimization": str(settings.graph_optimization_level).rpartition(".")[2],
            "disabled_optimizers": self._left_out or "none",
            "providers": ",".join(self._session.get_providers()),
            "provider_options": _told(self._session.get_provider_options()),
            "arena": str(settings.enable_cpu_mem_arena).lower(),
            "weight_only_activations": _ACTIVATIONS[settings.get_session_config_entry(_ACCURACY_LEVEL)],
            "spinning": settings.get_session_config_entry("session.intra_op.allow_spinning"),
            "version": str(self._runtime.__version__),
        }

    def close(self) -> None:
        """Free the session, and the profile if there is one."""
        self._session = self._layers = None
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None


def _told(options: Mapping[str, Mapping[str, str]]) -> str:
    """Return what other providers than the CPU's say of their options that change results or speed."""
    wanted = ("use_tf32", "device_id", "enable_cuda_graph", "trt_fp16_enable", "trt_int8_enable")
    found = [f"{key}={held[key]}" for held in options.values() for key in wanted if key in held]
    return " ".join(found) or "none"


def _spec(item: Any) -> TensorSpec:
    kind = item.type.removeprefix("tensor(").removesuffix(")")
    shape = tuple(size if isinstance(size, int) else None for size in item.shape)
    return TensorSpec(_DTYPES.get(kind, kind), shape)
