"""What LiteRT's own profiler says ran: kernels as XNNPACK names them, their precision, and their share of time."""

from __future__ import annotations

import dataclasses
import json
import logging
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.api import HarnessError, Placement
from harness_tflite.profile_child import RUNS

CHILD = Path(__file__).with_name("profile_child.py")
TIMEOUT_S = 120.0
# XNNPACK's operators -> the field's terms; others keep their name.
_WEIGHTED = {
    "Convolution": "Conv",
    "Fully Connected": "MatMul",
    "Batch Matrix Multiply": "MatMul",
    "Dynamic Fully Connected": "MatMul",
    "Deconvolution": "ConvTranspose",
}
# What data is in; the first that a kernel's name lists is what it computes in. QD8: quantized as it comes.
_DTYPES = {
    "F32": "float32", "PF32": "float32", "F16": "float16", "PF16": "float16", "BF16": "bfloat16", "QS8": "int8",
    "QU8": "int8", "QD8": "int8",
    "QDU8": "int8", "QP8": "int8", "PQS8": "int8", "S8": "int8", "U8": "int8",
}  # fmt: skip
_NAME = re.compile(r"^(?P<op>[^(]+?) \((?P<words>[^)]*)\)")


def profile(path: Path, python: str = sys.executable) -> list[dict[str, Any]]:
    """Return the kernels of a file in order of execution: kernel, delegated, us.

    Raises:
        HarnessError: LiteRT does not tell.
    """
    try:
        done = subprocess.run(
            [python, str(CHILD), str(path)], capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise HarnessError(f"the profiler gave no answer: {error}") from None
    if done.returncode != 0:
        said = (done.stderr.strip() or f"status {done.returncode}").splitlines()[-1]
        raise HarnessError(f"the profiler failed: {said}")
    found: list[dict[str, Any]] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def profiled(listed: Sequence[Placement], events: Sequence[Mapping[str, Any]]) -> tuple[Placement, ...]:
    """Return one entry per kernel that ran, with names and multiply-accumulates from the file's operators.

    Operators with weights follow one another in both lists in one order; what XNNPACK adds (conversions, copies)
    or fuses (paddings, activations) stands in one of them only. Kernels of under a microsecond have no share of time.

    Args:
        listed: What the file holds, in order.
        events: What ran, in order.

    Raises:
        HarnessError: The two do not fit.
    """
    weighted = iter([item for item in listed if item.macs])
    total = sum(event["us"] for event in events)
    clear = total >= RUNS * len(events)  # the profiler cuts off parts of a microsecond of each kernel and run
    found = []
    for event in events:
        entry = _placement(event, event["us"] / total if clear and total else None)
        if entry.macs is None:
            source = next(weighted, None)
            if source is None or not _alike(source, entry):
                raise HarnessError(f"{entry.kernel} fits no operator of the file")
            told = entry.precision if entry.precision != "unknown" else source.precision
            entry = dataclasses.replace(entry, op=source.op, name=source.name, macs=source.macs, precision=told)
        found.append(entry)
    left = next(weighted, None)
    if left is not None:
        raise HarnessError(f"{left.op} {left.name} is not in the profile")
    return tuple(found)


def as_run(path: Path, listed: Sequence[Placement], python: str = sys.executable) -> tuple[Placement, ...]:
    """Return what ran where the profiler tells and it fits the file, else what the file lists, without times."""
    try:
        return profiled(listed, profile(path, python))
    except HarnessError as error:
        logging.getLogger("harness").info("no times of operators: %s", error.message)
        return tuple(listed)


def _placement(event: Mapping[str, Any], share: float | None) -> Placement:
    """Read a kernel's name, such as "Convolution (NHWC, QS8, QC8W) IGEMM"; weights are known by ``macs=None``."""
    kernel = str(event["kernel"])
    if not event["delegated"]:
        weighted = kernel in {"CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "FULLY_CONNECTED", "BATCH_MATMUL"}
        op = kernel.title().replace("_", "")
        return Placement(op, "", f"LiteRT builtin {kernel}", "cpu", "unknown", None if weighted else 0, share)
    match = _NAME.match(kernel)
    op = match["op"] if match else kernel
    words = match["words"].split(", ") if match else []
    precision = next((_DTYPES[word] for word in words if word in _DTYPES), "unknown")
    macs = None if op in _WEIGHTED else 0
    named = _WEIGHTED.get(op, op.removeprefix("Static ").replace(" ", ""))
    return Placement(named, "", f"XNNPACK {kernel}", "cpu", precision, macs, share)


def _alike(source: Placement, ran: Placement) -> bool:
    """Tell whether a kernel can be that of an operator; a 1x1 convolution runs as a matrix product."""
    if ran.kernel.startswith("LiteRT builtin"):
        return source.kernel == ran.kernel
    depthwise = "DWConv" in ran.kernel or "Depthwise" in ran.kernel
    if source.op == "DepthwiseConv" or depthwise:
        return source.op == "DepthwiseConv" or (depthwise and source.op == "Conv")
    return (source.op == "ConvTranspose") == (ran.op == "ConvTranspose")
