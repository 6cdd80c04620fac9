"""MLCommons LoadGen drives the session of a worker: single-stream, offline and server, with LoadGen's own clock.

Imported by a worker only when it is asked for a scenario; ``mlcommons-loadgen`` is the extra ``loadgen``.
"""

from __future__ import annotations

import gc
import importlib
import queue
import re
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.errors import MissingDependency

SUMMARY, DETAIL = "mlperf_log_summary.txt", "mlperf_log_detail.txt"
P99 = 0.99
SCENARIOS = {"single_stream": "SingleStream", "offline": "Offline", "server": "Server"}


def library() -> Any:
    """Import LoadGen.

    Raises:
        MissingDependency: It is not installed here.
    """
    try:
        return importlib.import_module("mlperf_loadgen")
    except ImportError as error:
        raise MissingDependency(
            f"scenarios are driven by MLCommons LoadGen, which is not installed: {error}",
            hint="pip install 'compression-harness[loadgen]'",
        ) from None


def settings(generator: Any, ask: Mapping[str, Any]) -> Any:
    """Return LoadGen's settings for one run.

    Args:
        generator: The module.
        ask: ``scenario``, ``seconds``, ``seed``; ``qps`` for offline (expected) and server (offered), ``bound_ns``
            for server: the limit of its p99.
    """
    wanted = generator.TestSettings()
    wanted.scenario = getattr(generator.TestScenario, SCENARIOS[ask["scenario"]])
    wanted.mode = generator.TestMode.PerformanceOnly
    wanted.min_duration_ms = wanted.max_duration_ms = round(ask["seconds"] * 1e3)
    wanted.min_query_count = 1
    wanted.schedule_rng_seed = wanted.sample_index_rng_seed = wanted.qsl_rng_seed = ask["seed"]
    if ask["scenario"] == "offline":
        wanted.offline_expected_qps = ask["qps"]
        wanted.max_duration_ms = 0  # its one query runs to its end
    if ask["scenario"] == "server":
        wanted.server_target_qps = ask["qps"]
        wanted.server_target_latency_ns = ask["bound_ns"]
        wanted.server_target_latency_percentile = P99
    return wanted


def drive(run: Callable[[Any], Any], pool: Sequence[Any], batch: int, ask: Mapping[str, Any]) -> dict[str, Any]:
    """Run one scenario and return what LoadGen reports.

    Args:
        run: One synchronous inference of ``batch`` items.
        pool: Prepared inputs; a sample of LoadGen is one item, ``batch`` of them share an inference (offline).
        batch: Items per inference; single-stream and server need 1.
        ask: See ``settings``.

    Returns:
        ``valid``, and LoadGen's numbers by their names in its summary.
    """
    generator = library()
    system = _System(generator, run, pool, batch)
    inline = ask["scenario"] == "single_stream"  # a closed loop: the next query waits for this one's answer
    sut = generator.ConstructSUT(system.serve if inline else system.waiting.put, lambda: None)
    samples = generator.ConstructQSL(len(pool), len(pool), lambda _names: None, lambda _names: None)
    server = threading.Thread(target=system.loop, daemon=True)
    server.start()
    gc.disable()
    try:
        with tempfile.TemporaryDirectory(prefix="harness-loadgen-") as folder:
            generator.StartTestWithLogSettings(sut, samples, settings(generator, ask), _logs(generator, folder))
            return read_summary((Path(folder) / SUMMARY).read_text())
    finally:
        gc.enable()
        system.waiting.put(None)
        server.join()
        generator.DestroyQSL(samples)
        generator.DestroySUT(sut)


class _System:
    """The session as LoadGen's system under test; one thread runs it, as one session does in the timed loop."""

    def __init__(self, generator: Any, run: Callable[[Any], Any], pool: Sequence[Any], batch: int) -> None:
        self.generator, self.run, self.pool, self.batch = generator, run, pool, batch
        self.waiting: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def serve(self, queries: Sequence[Any]) -> None:
        """Run queries, ``batch`` at a time, and report each as it completes."""
        for start in range(0, len(queries), self.batch):
            part = queries[start : start + self.batch]
            self.run(self.pool[part[0].index])
            self.generator.QuerySamplesComplete([self.generator.QuerySampleResponse(item.id, 0, 0) for item in part])

    def loop(self) -> None:
        """Serve what is waiting until there is ``None``."""
        while (queries := self.waiting.get()) is not None:
            self.serve(queries)


def _logs(generator: Any, folder: str) -> Any:
    output = generator.LogOutputSettings()
    output.outdir, output.copy_summary_to_stdout = folder, False
    logs = generator.LogSettings()
    logs.log_output, logs.enable_trace = output, False
    return logs


def read_summary(text: str) -> dict[str, Any]:
    """Read LoadGen's summary: its verdict, and every number by its name."""
    pairs = re.findall(r"^\s*(.+?)\s*:\s*([-+.\deE]+)\s*$", text, re.MULTILINE)
    return {"valid": "Result is : VALID" in text, "numbers": {name: float(value) for name, value in pairs}}
