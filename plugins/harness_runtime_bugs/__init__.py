"""Public bugs of ONNX Runtime, OpenVINO, NNCF, LiteRT, PyTorch and TensorRT, for ``harness selftest --runtimes``.

Each is a small graph, written down anew after its report, whose right answer is known without the runtime.
"""

from __future__ import annotations

from collections.abc import Iterator

from harness.api import RuntimeBug, hookimpl


@hookimpl
def harness_runtime_bugs() -> Iterator[RuntimeBug]:
    """Offer the bugs; their graphs are made where they are run."""
    from harness_runtime_bugs.catalogue import BUGS

    yield from BUGS
