"""Parameters of the target."""

from __future__ import annotations

from dataclasses import dataclass

from harness.api import param


@dataclass(frozen=True)
class Params:
    """How LiteRT runs a model."""

    xnnpack: bool = param(True, "let XNNPACK run what it can; off leaves LiteRT's own kernels")
    arm64: str = param("", "an aarch64 Python with ai-edge-litert: its outputs are checked, nothing is timed")
    android: str = param("", "serial of an Android device, as 'adb devices' lists it, that runs the model")
    tool: str = param("", "with android: LiteRT's benchmark_model for the device, which is pushed to it")
