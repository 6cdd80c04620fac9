"""Targets whose truth is known: they wait, compute, jitter, fail or hold memory exactly as their parameters say.

They take any model and run none. ``harness selftest`` measures them, and a plugin author can try a campaign on them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import mmap
import os
import random
import signal
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from harness.api import (
    Artifact,
    Availability,
    HarnessError,
    Job,
    Model,
    Options,
    Placement,
    Purpose,
    TargetSpec,
    TensorSpec,
    param,
)
from harness_null.target import NullSession, capabilities, declared, lower, probe

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Arrays = Mapping[str, NDArray[Any]]

_BLOCK = bytes(65536)
_MIB = 2**20
_clock = time.perf_counter_ns


def spin(ns: int) -> None:
    """Keep the CPU busy until the wall clock has advanced by ``ns``."""
    deadline = _clock() + ns
    while _clock() < deadline:
        pass


def _ns(ms: float) -> int:
    return round(ms * 1e6)


@dataclass(frozen=True)
class SpinParams:
    """Parameters of ``spin``."""

    ms: float = param(5.0, "milliseconds of wall-clock time of one inference", gt=0)
    transfer_ms: float = param(0.0, "added by inputs that are not bound before: end-to-end minus compute-only", ge=0)


@dataclass(frozen=True)
class SleepParams:
    """Parameters of ``sleep``."""

    ms: float = param(5.0, "milliseconds that one inference blocks without computing", gt=0)


@dataclass(frozen=True)
class WorkParams:
    """Parameters of ``work``."""

    blocks: int = param(40, "blocks of 64 KiB that one inference hashes: a fixed amount of computing", ge=1)


@dataclass(frozen=True)
class GemmParams:
    """Parameters of ``gemm``."""

    size: int = param(512, "rows and columns of the float32 matrices that one inference multiplies", ge=8, le=8192)
    claims: float = param(1.0, "times the multiplications that it really does, in what it says of itself", gt=0)


@dataclass(frozen=True)
class NoisyParams:
    """Parameters of ``noisy``."""

    ms: float = param(5.0, "median milliseconds of one inference", gt=0)
    jitter: float = param(0.05, "sigma of the log-normal factor of each inference", ge=0, le=2)
    launch_jitter: float = param(0.02, "sigma of the log-normal factor of each process", ge=0, le=2)
    spikes: float = param(0.0, "share of inferences that take ten times as long", ge=0, le=1)


@dataclass(frozen=True)
class FailingParams:
    """Parameters of ``failing``."""

    at: Literal["probe", "lower", "open", "run"] = param("run", "where it fails")
    how: Literal["raise", "exit", "segfault", "hang", "memory"] = param("raise", "in which way")
    after: int = param(0, "inferences that succeed before, for at=run", ge=0)


@dataclass(frozen=True)
class SlowLoadParams:
    """Parameters of ``slow-load``."""

    load_ms: float = param(500.0, "milliseconds that loading takes", ge=0)
    first_ms: float = param(100.0, "milliseconds that the first inference takes more", ge=0)
    ms: float = param(5.0, "milliseconds of one inference", gt=0)


@dataclass(frozen=True)
class HoardParams:
    """Parameters of ``hoard``."""

    anon_mib: int = param(0, "MiB of anonymous memory that loading touches and keeps", ge=0)
    file_mib: int = param(0, "MiB of a mapped file that loading reads and keeps mapped", ge=0)
    burst_mib: int = param(0, "MiB that loading touches and gives back: seen by the peak alone", ge=0)


@dataclass(frozen=True)
class EchoParams:
    """Parameters of ``echo``."""

    flips: int = param(0, "of the first items, how many get another class than their input's largest value", ge=0)


class KnownSession(NullSession):
    """Does ``act`` on each inference, and ``extra`` before it where the inputs were not bound."""

    def __init__(
        self, inputs: Mapping[str, TensorSpec], outputs: tuple[str, ...], batch: int, act: Callable[[], None],
        extra: Callable[[], None] | None = None,
    ) -> None:  # fmt: skip
        super().__init__(inputs, outputs, batch)
        self._act = act
        self._extra = extra

    def run(self, inputs: Arrays) -> Arrays:
        """Act, and return zeros."""
        if self._extra is not None:
            self._extra()
        self._act()
        return super().run(inputs)

    def bind(self, _inputs: Arrays) -> Callable[[], None]:
        """Return the act alone."""
        return self._act

    def effective(self) -> Mapping[str, str]:
        """Say that one thread runs."""
        return {"threads": "1", "device": "cpu"}


class GemmSession(KnownSession):
    """Multiplies two matrices with numpy's own library, and says how much it multiplied."""

    def __init__(
        self, inputs: Mapping[str, TensorSpec], outputs: tuple[str, ...], batch: int, params: GemmParams
    ) -> None:
        import numpy as np

        chance = np.random.default_rng(0)
        shape = (params.size, params.size)
        left, right = (chance.standard_normal(shape, dtype=np.float32) for _ in range(2))
        out = np.empty_like(left)

        def multiply() -> None:
            np.matmul(left, right, out=out)

        super().__init__(inputs, outputs, batch, multiply)
        self._macs = round(params.size**3 * params.claims)

    def placements(self) -> tuple[Placement, ...]:
        """Return the one product."""
        return (Placement("MatMul", "gemm", "numpy", "CPU", "float32", self._macs),)


class HoardSession(KnownSession):
    """Holds memory of known size and kind."""

    def __init__(
        self, inputs: Mapping[str, TensorSpec], outputs: tuple[str, ...], batch: int, params: HoardParams
    ) -> None:
        super().__init__(inputs, outputs, batch, lambda: None)
        if params.burst_mib:
            _touched(_private(params.burst_mib * _MIB)).close()
        self._held = [_touched(_private(params.anon_mib * _MIB))] if params.anon_mib else []
        if params.file_mib:
            self._held.append(_mapped_file(params.file_mib * _MIB))

    def close(self) -> None:
        """Give all of it back."""
        while self._held:
            self._held.pop().close()


def _private(size: int) -> mmap.mmap:
    """Map private anonymous memory; the default of Python's mmap is shared, which counts as a file's."""
    return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)


def _touched(area: mmap.mmap) -> mmap.mmap:
    for start in range(0, len(area), mmap.PAGESIZE):
        area[start] = 1
    return area


def _mapped_file(size: int) -> mmap.mmap:
    """Map a file that has no name any more and read every page of it."""
    with tempfile.TemporaryFile() as stream:
        for _ in range(size // len(_BLOCK)):
            stream.write(_BLOCK)
        stream.flush()
        area = mmap.mmap(stream.fileno(), size, access=mmap.ACCESS_READ)
    for start in range(0, size, mmap.PAGESIZE):
        area[start]
    return area


class EchoSession(NullSession):
    """Returns its first input, flattened per item, with the two largest values exchanged in the first items."""

    def __init__(
        self, inputs: Mapping[str, TensorSpec], outputs: tuple[str, ...], batch: int, params: EchoParams
    ) -> None:
        super().__init__(inputs, outputs, batch)
        self.outputs = {name: TensorSpec("float32", (None, None)) for name in outputs}
        self._left = params.flips

    def run(self, inputs: Arrays) -> Arrays:
        """Echo a batch."""
        import numpy as np

        values = next(iter(inputs.values()))
        flat = values.reshape(len(values), -1).astype(np.float32)
        for row in flat[: self._left]:
            second, first = np.argsort(row, kind="stable")[-2:]
            row[[first, second]] = row[[second, first]]
        self._left = max(0, self._left - len(flat))
        return dict.fromkeys(self.outputs, flat)


def _fail(how: str) -> None:
    if how == "exit":
        os._exit(3)
    if how == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    if how == "hang":
        time.sleep(86_400)
    if how == "memory":
        raise MemoryError("target failing was asked to run out of memory")
    raise HarnessError("target failing was asked to fail")


def _failing_probe(params: FailingParams) -> Availability:
    if params.at == "probe":
        _fail(params.how)
    return probe(params)


def _failing_lower(model: Model, params: FailingParams, options: Options, job: Job) -> Artifact:
    if params.at == "lower":
        _fail(params.how)
    return lower(model, params, options, job)


def _noise(params: NoisyParams) -> Callable[[], None]:
    chance = random.Random(os.getpid())  # noqa: S311  each process has a factor of its own; no secret
    launch = chance.lognormvariate(0, params.launch_jitter)

    def act() -> None:
        spike = 10 if chance.random() < params.spikes else 1
        spin(round(params.ms * 1e6 * launch * chance.lognormvariate(0, params.jitter) * spike))

    return act


def _counted(params: FailingParams) -> Callable[[], None]:
    left = params.after

    def act() -> None:
        nonlocal left
        if params.at == "run" and left <= 0:
            _fail(params.how)
        left -= 1

    return act


def _first_longer(params: SlowLoadParams) -> Callable[[], None]:
    extra = _ns(params.first_ms)

    def act() -> None:
        nonlocal extra
        spin(_ns(params.ms) + extra)
        extra = 0

    return act


def _hash(blocks: int) -> None:
    digest = hashlib.sha256()
    for _ in range(blocks):
        digest.update(_BLOCK)


def _open_spin(artifact: Artifact, params: SpinParams, options: Options, _purpose: Purpose) -> KnownSession:
    ns, transfer = _ns(params.ms), _ns(params.transfer_ms)
    return KnownSession(*declared(artifact, options), lambda: spin(ns), (lambda: spin(transfer)) if transfer else None)


def _open_sleep(artifact: Artifact, params: SleepParams, options: Options, _purpose: Purpose) -> KnownSession:
    return KnownSession(*declared(artifact, options), lambda: time.sleep(params.ms / 1e3))


def _open_work(artifact: Artifact, params: WorkParams, options: Options, _purpose: Purpose) -> KnownSession:
    return KnownSession(*declared(artifact, options), lambda: _hash(params.blocks))


def _open_gemm(artifact: Artifact, params: GemmParams, options: Options, _purpose: Purpose) -> GemmSession:
    return GemmSession(*declared(artifact, options), params)


def _open_noisy(artifact: Artifact, params: NoisyParams, options: Options, _purpose: Purpose) -> KnownSession:
    return KnownSession(*declared(artifact, options), _noise(params))


def _open_failing(artifact: Artifact, params: FailingParams, options: Options, _purpose: Purpose) -> KnownSession:
    if params.at == "open":
        _fail(params.how)
    return KnownSession(*declared(artifact, options), _counted(params))


def _open_slow_load(artifact: Artifact, params: SlowLoadParams, options: Options, _purpose: Purpose) -> KnownSession:
    spin(_ns(params.load_ms))
    return KnownSession(*declared(artifact, options), _first_longer(params))


def _open_hoard(artifact: Artifact, params: HoardParams, options: Options, _purpose: Purpose) -> HoardSession:
    return HoardSession(*declared(artifact, options), params)


def _open_echo(artifact: Artifact, params: EchoParams, options: Options, _purpose: Purpose) -> EchoSession:
    return EchoSession(*declared(artifact, options), params)


def _spec(name: str, summary: str, params: type[Any], open_session: Callable[..., NullSession]) -> TargetSpec[Any]:
    return TargetSpec(
        name=name,
        summary=summary,
        params=params,
        accepts=frozenset({"onnx", "tflite", "torch"}),
        probe=probe,
        capabilities=capabilities,
        lower=lower,
        open=open_session,
        ranked=False,
        default=False,
    )


SPECS = (
    _spec("spin", "runs no model: spins to a wall-clock deadline", SpinParams, _open_spin),
    _spec("sleep", "runs no model: blocks without computing", SleepParams, _open_sleep),
    _spec("work", "runs no model: computes a fixed amount", WorkParams, _open_work),
    _spec("gemm", "runs no model: multiplies matrices of a known size", GemmParams, _open_gemm),
    _spec("noisy", "runs no model: spins for times that jitter within and between processes", NoisyParams, _open_noisy),
    dataclasses.replace(
        _spec("failing", "runs no model: fails where and how it is told", FailingParams, _open_failing),
        probe=_failing_probe,
        lower=_failing_lower,
        known_gaps={"runs": "it is there to fail, by default in its first run"},
    ),
    _spec("slow-load", "runs no model: loads slowly, and its first inference is slow", SlowLoadParams, _open_slow_load),
    _spec("hoard", "runs no model: holds a known amount of memory", HoardParams, _open_hoard),
    _spec("echo", "runs no model: returns its input, with a known number of other classes", EchoParams, _open_echo),
)
