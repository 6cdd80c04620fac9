"""OpenVINO's own tool, benchmark_app: an independent time of the same file."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Any

from harness.api import HarnessError, MissingDependency, ToolRun, VendorTool

_APP = (
    "import os, sys; hasattr(os, 'sched_setaffinity') and os.sched_setaffinity(0, [{cpu}]); "
    "sys.argv[0] = 'benchmark_app'; from openvino.tools.benchmark.main import main; sys.exit(main())"
)


def median_ns(run: ToolRun) -> float:
    """Return benchmark_app's median in ns: synchronous, one stream, one thread, float32.

    Raises:
        MissingDependency: It is not installed.
        HarnessError: It gave no median.
    """
    shapes = ",".join(f"{name}[{','.join(map(str, shape))}]" for name, shape in run.shapes.items())
    command: list[Any] = [
        sys.executable, "-c", _APP.format(cpu=run.cpu), "-m", run.artifact.path, "-d", "CPU", "-api", "sync",
        "-nstreams", "1", "-nthreads", "1", "-hint", "none", "-infer_precision", "f32", "-t", f"{run.seconds:.0f}",
        "-shape", shapes,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, env=dict(run.environment), check=False)
    if "ModuleNotFoundError" in done.stderr:
        raise MissingDependency("benchmark_app is not installed", hint="pip install openvino")
    found = re.search(r"Median:\s+([\d.]+) ms", done.stdout)
    if found is None:
        raise HarnessError(f"benchmark_app gave no median: {(done.stderr or done.stdout).strip()[-200:]}")
    return float(found.group(1)) * 1e6


# It hands its inputs over once, so that handing them over and copying outputs out is not in its time.
TOOL = VendorTool(name="benchmark_app", median_ns=median_ns, bound=True)
