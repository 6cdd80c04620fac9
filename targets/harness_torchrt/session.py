"""A program loaded in PyTorch: eager, compiled, or captured into a CUDA graph."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from harness.api import Artifact, HarnessError, MissingDependency, Options, Placement, Purpose, TensorSpec
from harness_torchrt import program
from harness_torchrt.placement import profile

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from harness_torchrt.params import Params

    Arrays = Mapping[str, NDArray[Any]]

_PROFILED = 5  # runs whose medians give the shares of time
_WARM_CAPTURE = 3  # runs on a side stream before a capture, as torch's notes on CUDA graphs ask


def open_session(artifact: Artifact, params: Params, options: Options, purpose: Purpose) -> TorchSession:
    """Load a program; compiling and fusing happen at the first run of each batch size.

    Raises:
        MissingDependency: torch, or torchao for int8, is not installed.
    """
    torch = program.import_torch()
    _configure(torch, params, options, profiled=purpose == "placement")
    if "int8" in artifact.realised:
        _register_int8()
    module, facts = program.load(artifact.path)
    kind = CudaSession if params.device == "cuda" else TorchSession
    return kind(torch, module, facts, params, options)


def _configure(torch: Any, params: Params, options: Options, *, profiled: bool) -> None:
    torch.set_num_threads(options.threads)
    if torch.get_num_interop_threads() != 1:
        with contextlib.suppress(RuntimeError):  # work has begun, which in a fresh worker it has not; read back below
            torch.set_num_interop_threads(1)
    torch.backends.cuda.matmul.allow_tf32 = params.tf32
    torch.backends.cudnn.allow_tf32 = params.tf32
    warnings.filterwarnings("ignore", message=".*not writable.*")  # inputs are read-only, and are only read
    warnings.filterwarnings("ignore", message="To copy construct from a tensor")  # inductor's own code
    if params.mode == "compile":
        import torch._inductor.config as inductor

        inductor.compile_threads = 1  # else a pool of compiling processes stays beside what is measured
        inductor.freezing = params.freezing
        inductor.cpp.enable_kernel_profile = profiled  # names the generated kernels to the profiler; costs time


class TorchSession:
    """One module and what it became for each batch size."""

    def __init__(self, torch: Any, module: Any, facts: program.Facts, params: Params, options: Options) -> None:
        self._torch, self._facts, self._params, self._options = torch, facts, params, options
        self._device = torch.device(params.device)
        module = module.to(self._device)
        if params.channels_last:
            module = module.to(memory_format=torch.channels_last)
        self._module: Any = module
        self._ready: dict[tuple[Any, ...], Callable[..., Any]] = {}
        self._last: Arrays | None = None

    @property
    def inputs(self) -> Mapping[str, TensorSpec]:
        """Inputs by name."""
        return self._facts.inputs

    @property
    def outputs(self) -> Mapping[str, TensorSpec]:
        """Outputs by name."""
        return self._facts.outputs

    def run(self, inputs: Arrays) -> Arrays:
        """Run once, arrays in and out."""
        self._last = inputs
        with self._torch.inference_mode():
            given = self._given(inputs)
            results = self._callable(given)(*given)
            several = results if isinstance(results, (tuple, list)) else (results,)
            return {name: value.cpu().numpy() for name, value in zip(self._facts.outputs, several, strict=True)}

    def bind(self, inputs: Arrays) -> Callable[[], None]:
        """Return a call on inputs that lie on the device already; outputs stay there."""
        given = self._given(inputs)
        with self._torch.inference_mode():
            function = self._callable(given)

        def call() -> None:
            with self._torch.inference_mode():
                function(*given)
                self._wait()

        return call

    def _wait(self) -> None:
        """Wait for the device; the CPU is done when a call returns."""

    def _given(self, inputs: Arrays) -> tuple[Any, ...]:
        tensors = (self._torch.from_numpy(inputs[name]).to(self._device) for name in self._facts.inputs)
        if not self._params.channels_last:
            return tuple(tensors)
        last = self._torch.channels_last
        return tuple(item.contiguous(memory_format=last) if item.dim() == 4 else item for item in tensors)

    def _callable(self, given: tuple[Any, ...]) -> Callable[..., Any]:
        batch = tuple(item.shape for item in given)
        if batch not in self._ready:
            self._ready[batch] = self._prepare(given)
        return self._ready[batch]

    def _prepare(self, given: tuple[Any, ...]) -> Callable[..., Any]:
        """Return what runs inputs of this batch size."""
        del given
        if self._params.mode == "compile":
            return self._compiled()
        eager: Callable[..., Any] = self._module
        return eager

    def _compiled(self) -> Callable[..., Any]:
        import torch._inductor.config as inductor

        inductor.freezing = inductor.freezing or self._facts.quantized  # the int8 operators come of freezing alone
        compiled: Callable[..., Any] = self._torch.compile(self._module, dynamic=False)
        return compiled

    def placements(self) -> tuple[Placement, ...]:
        """Profile a few more runs on the last inputs and return what ran.

        Raises:
            HarnessError: Nothing was run yet.
        """
        if self._last is None:
            raise HarnessError("placements are of runs, and nothing was run yet")
        with self._torch.inference_mode():
            given = self._given(self._last)
            function = self._callable(given)
            return profile(self._torch, lambda: function(*given), runs=_PROFILED, items=self._options.batch)

    def effective(self) -> Mapping[str, str]:
        """Return what torch says of its settings."""
        torch = self._torch
        values = {
            "threads": str(torch.get_num_threads()),
            "inter_op_threads": str(torch.get_num_interop_threads()),
            "device": str(self._device),
            "mode": self._params.mode,
            "vector_isa": str(torch.backends.cpu.get_cpu_capability()),
            "onednn": str(torch.backends.mkldnn.is_available()).lower(),
            "matmul_precision": str(torch.get_float32_matmul_precision()),
            "version": str(torch.__version__),
        }
        if self._params.mode == "compile":
            import torch._inductor.config as inductor

            values |= {"backend": "inductor", "freezing": str(inductor.freezing).lower()}
        return values

    def close(self) -> None:
        """Free the module."""
        self._module, self._ready, self._last = None, {}, None


def capture(torch: Any, function: Callable[..., Any], given: tuple[Any, ...]) -> Callable[..., Any]:
    """Capture a run into a CUDA graph; a replay reads the captured buffers, so inputs are copied into them."""
    cuda = torch.cuda
    held = tuple(item.clone() for item in given)
    side = cuda.Stream()
    side.wait_stream(cuda.current_stream())
    with cuda.stream(side):
        for _ in range(_WARM_CAPTURE):
            function(*held)
    cuda.current_stream().wait_stream(side)
    graph = cuda.CUDAGraph()
    with cuda.graph(graph):
        results = function(*held)

    def replay(*inputs: Any) -> Any:
        for buffer, item in zip(held, inputs, strict=True):
            buffer.copy_(item)
        graph.replay()
        return results

    return replay


class CudaSession(TorchSession):
    """The same on an NVIDIA GPU: synchronous, and with graphs where they are asked for."""

    def _wait(self) -> None:
        self._torch.cuda.synchronize(self._device)

    def _prepare(self, given: tuple[Any, ...]) -> Callable[..., Any]:
        function = super()._prepare(given)
        return capture(self._torch, function, given) if self._params.cuda_graphs else function

    def device_memory_bytes(self) -> int:
        """Return the most that torch's allocator has reserved on the GPU in this process."""
        return int(self._torch.cuda.max_memory_reserved(self._device))

    def effective(self) -> Mapping[str, str]:
        """Return the settings of the GPU beside the others."""
        torch = self._torch
        return {
            **super().effective(),
            "gpu": str(torch.cuda.get_device_name(self._device)),
            "compute_capability": ".".join(map(str, torch.cuda.get_device_capability(self._device))),
            "cuda": str(torch.version.cuda),
            "cudnn": str(torch.backends.cudnn.version()),
            "tf32": str(torch.backends.cuda.matmul.allow_tf32).lower(),
            "cuda_graphs": str(self._params.cuda_graphs).lower(),
        }


def _register_int8() -> None:
    """Load the operators that a quantized program holds, and the compiler's passes that fuse them; importing does both.

    Raises:
        MissingDependency: torchao is not installed.
    """
    try:
        with program.quiet():
            import torchao.quantization.pt2e.quantizer.x86_inductor_quantizer  # noqa: F401
    except (ImportError, OSError) as error:
        raise MissingDependency(f"int8 for torch needs torchao: {error}", hint=program.HINT) from error
