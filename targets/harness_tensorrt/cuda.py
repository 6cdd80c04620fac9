"""The CUDA runtime with errors raised, and buffers that are on the device and pinned on the host."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

from harness.api import HarnessError
from harness_tensorrt.flavors import import_cuda

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class CudaError(HarnessError):
    """A call of the CUDA runtime failed."""


class Cuda:
    """Calls of the CUDA runtime by name; a status other than success raises ``CudaError`` with CUDA's own words."""

    def __init__(self) -> None:
        self.api = import_cuda()

    def call(self, name: str, *arguments: Any) -> Any:
        """Call a function of the runtime and return its value; a tuple where it has several, None where none."""
        status, *values = getattr(self.api, name)(*arguments)
        if int(status):
            _status, words = self.api.cudaGetErrorString(status)
            text = words.decode() if isinstance(words, bytes) else str(words)
            raise CudaError(f"{name} failed with error {int(status)}: {text}")
        return None if not values else values[0] if len(values) == 1 else tuple(values)

    def device(self) -> tuple[str, tuple[int, int]]:
        """Return name and compute capability of the current GPU.

        Raises:
            CudaError: There is no GPU, or no driver for it.
        """
        if not self.call("cudaGetDeviceCount"):
            raise CudaError("cudaGetDeviceCount found no GPU")
        properties = self.call("cudaGetDeviceProperties", self.call("cudaGetDevice"))
        name = properties.name.decode() if isinstance(properties.name, bytes) else str(properties.name)
        return name.rstrip("\0"), (int(properties.major), int(properties.minor))

    def waits(self, *, spin: bool) -> None:
        """Choose how the host waits for the GPU, before the first call that makes a context."""
        kind = self.api.cudaDeviceScheduleSpin if spin else self.api.cudaDeviceScheduleBlockingSync
        self.call("cudaSetDeviceFlags", kind)

    def bus(self) -> bytes | str:
        """Return the PCI bus id of the current GPU, by which NVML knows it."""
        name: bytes | str = self.call("cudaDeviceGetPCIBusId", 64, self.call("cudaGetDevice"))
        return name.split(b"\0")[0] if isinstance(name, bytes) else name

    def held_bytes(self) -> int:
        """Return what all processes hold on the current GPU."""
        free, total = self.call("cudaMemGetInfo")
        return int(total) - int(free)


class Buffer:
    """One tensor on the device with a pinned copy on the host.

    Args:
        cuda: The runtime.
        dtype: Of the items.
        shape: Fixed.
    """

    def __init__(self, cuda: Cuda, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
        import numpy as np

        self._cuda = cuda
        self.bytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        size = max(self.bytes, 1)
        self.device = int(cuda.call("cudaMalloc", size))
        self._pinned = int(cuda.call("cudaHostAlloc", size, cuda.api.cudaHostAllocDefault))
        memory = (ctypes.c_uint8 * size).from_address(self._pinned)
        self.host: NDArray[Any] = np.frombuffer(memoryview(memory), np.uint8, self.bytes).view(dtype).reshape(shape)

    def upload(self, stream: Any) -> None:
        """Copy from the host to the device, in stream order."""
        kind = self._cuda.api.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._cuda.call("cudaMemcpyAsync", self.device, self._pinned, self.bytes, kind, stream)

    def download(self, stream: Any) -> None:
        """Copy from the device to the host, in stream order."""
        kind = self._cuda.api.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._cuda.call("cudaMemcpyAsync", self._pinned, self.device, self.bytes, kind, stream)

    def free(self) -> None:
        """Give both memories back; the host array must not be used any more."""
        self._cuda.call("cudaFree", self.device)
        self._cuda.call("cudaFreeHost", self._pinned)
