"""Parameters of the target."""

from __future__ import annotations

from dataclasses import dataclass

from harness.api import param


@dataclass(frozen=True)
class Params:
    """How a program is made."""

    xnnpack: bool = param(True, "let XNNPACK run what it can; off leaves ExecuTorch's portable kernels")
