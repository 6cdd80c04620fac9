"""An ExecuTorch program as a session: host arrays in and out."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from harness.api import Artifact, Options, Placement, TensorSpec
from harness_executorch import runtime
from harness_executorch.lowering import FACTS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Arrays = Mapping[str, NDArray[Any]]

_SCALARS = {0: "uint8", 1: "int8", 2: "int16", 3: "int32", 4: "int64", 5: "float16", 6: "float32", 7: "float64",
            11: "bool"}  # fmt: skip


class ExecutorchSession:
    """A loaded program.

    Args:
        artifact: What ``lower`` wrote, of one batch size.
        options: Threads.
    """

    def __init__(self, artifact: Artifact, options: Options) -> None:
        import torch

        self._library = runtime.import_runtime()
        self._torch = torch
        torch.set_num_threads(options.threads)
        self._library._unsafe_reset_threadpool(options.threads)
        self._path, self._batch = artifact.path, options.batch
        self._program = self._library._load_program(str(artifact.path))
        self._method = self._program.load_method(runtime.METHOD)
        facts = json.loads(self._program.load_method(FACTS).call(())[0])
        self._inputs = {name: TensorSpec(dtype, tuple(shape)) for name, (dtype, shape) in facts["inputs"].items()}
        self._outputs = {name: self._output(place) for place, name in enumerate(facts["outputs"])}

    def _output(self, place: int) -> TensorSpec:
        meta = self._method.method_meta().output_tensor_meta(place)
        return TensorSpec(_SCALARS[meta.dtype()], tuple(meta.sizes()))

    @property
    def inputs(self) -> Mapping[str, TensorSpec]:
        """Inputs by name, of fixed shape."""
        return self._inputs

    @property
    def outputs(self) -> Mapping[str, TensorSpec]:
        """Outputs by name."""
        return self._outputs

    def run(self, inputs: Arrays) -> Arrays:
        """Run once; inputs are read where they lie, outputs are copied out."""
        results = self._method.call(self._given(inputs), True)
        return {name: value.numpy() for name, value in zip(self._outputs, results, strict=True)}

    def bind(self, inputs: Arrays) -> Callable[[], None]:
        """Hand the inputs over once; the call only runs."""
        given = self._given(inputs)

        def call() -> None:
            self._method.set_inputs(given)  # two pointers; the runtime forgets them after each run
            self._method.execute()

        return call

    def _given(self, inputs: Arrays) -> tuple[Any, ...]:
        return tuple(self._torch.from_numpy(inputs[name]) for name in self._inputs)

    def placements(self) -> tuple[Placement, ...]:
        """Return one entry per operator of the program and of the graphs that it hands to XNNPACK."""
        from harness_executorch.placement import read_program

        return read_program(self._path.read_bytes(), batch=self._batch)

    def effective(self) -> Mapping[str, str]:
        """Return the threads of the runtime's pool, and the version."""
        return {
            "threads": str(self._library._threadpool_get_thread_count()),
            "device": "cpu",
            "version": runtime.version(),
        }

    def close(self) -> None:
        """Free the program."""
        self._method = self._program = None
