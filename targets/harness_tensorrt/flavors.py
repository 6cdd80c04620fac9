"""The two libraries behind one Python API, and the params that they share. They are never called by the same name."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any, Literal

from harness.api import MissingDependency, param

_CUDA_HINT = "pip install 'cuda-python>=12.6'"


@dataclass(frozen=True)
class Flavor:
    """One of the libraries.

    Attributes:
        name: Of the target, and the stem of its plan format.
        module: What is imported.
        title: As its vendor writes it.
        packages: Distributions that decide its version; which of them is installed depends on the CUDA release.
        hint: The command that installs it.
    """

    name: str
    module: str
    title: str
    packages: tuple[str, ...]
    hint: str

    @property
    def plan_format(self) -> str:
        """Format of its artifacts: a plan of one is no plan of the other."""
        return f"{self.name}-plan"


TENSORRT = Flavor(
    name="tensorrt",
    module="tensorrt",
    title="TensorRT",
    packages=("tensorrt", "tensorrt-cu13", "tensorrt-cu12", "cuda-python"),
    hint="pip install 'compression-harness[tensorrt]' (tensorrt-cu13 fetches its libraries from NVIDIA's own index)",
)
RTX = Flavor(
    name="tensorrt-rtx",
    module="tensorrt_rtx",
    title="TensorRT for RTX",
    packages=("tensorrt-rtx", "tensorrt-rtx-cu13", "cuda-python"),
    hint="pip install 'compression-harness[tensorrt-rtx]'",
)


@dataclass(frozen=True)
class Params:
    """How an engine is built and run."""

    tf32: bool = param(False, "let float32 layers round their products to 10 bits of mantissa")
    optimization_level: int = param(3, "builder effort", ge=0, le=5)
    rest: Literal["float32", "float16"] = param(
        "float32", "what a quantized file computes where it is not quantized; float16 needs tensor cores to pay"
    )
    sparse_weights: bool = param(
        False, "let the builder take 2:4 kernels; always on for a model whose weights were pruned 2:4"
    )
    builds: int = param(
        1, "engines built from one file, of which each process loads one by chance: tactic choice is noisy", ge=1, le=10
    )
    cuda_graph: bool = param(False, "capture the launches once and replay them")
    spin: bool = param(True, "let the host spin while it waits for the GPU; off blocks, which costs latency")
    rotation: int = param(
        4, "inputs on the device that compute-only runs rotate, so that none stays in cache; 1 with graphs", ge=1, le=64
    )


def import_library(flavor: Flavor) -> Any:
    """Return the library's module.

    Raises:
        MissingDependency: The package is not installed, or one of its shared libraries cannot be loaded.
    """
    try:
        return importlib.import_module(flavor.module)
    except ModuleNotFoundError as error:
        if error.name != flavor.module:
            raise MissingDependency(f"{flavor.title} needs {error.name}, not installed", hint=flavor.hint) from error
        raise MissingDependency(f"the Python package {flavor.module!r} is not installed", hint=flavor.hint) from error
    except ImportError as error:
        text = f"the Python package {flavor.module!r} is installed but does not load: {error}"
        raise MissingDependency(text, hint=flavor.hint) from error


def import_cuda() -> Any:
    """Return the CUDA runtime's Python module: ``cuda.bindings.runtime``, or ``cuda.cudart`` before 12.6.

    Raises:
        MissingDependency: Neither can be imported.
    """
    try:
        return importlib.import_module("cuda.bindings.runtime")
    except ImportError as error:
        try:
            return importlib.import_module("cuda.cudart")
        except ImportError:
            text = f"the CUDA runtime's Python package cannot be imported: {error}"
            raise MissingDependency(text, hint=_CUDA_HINT) from error


def import_nvml() -> Any:
    """Return NVIDIA's Python module of NVML.

    Raises:
        MissingDependency: It is not installed.
    """
    try:
        return importlib.import_module("pynvml")
    except ImportError as error:
        text = f"NVML's Python package cannot be imported: {error}"
        raise MissingDependency(text, hint="pip install nvidia-ml-py") from error
