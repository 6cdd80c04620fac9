"""Checks that several kinds of offers share: how a call ended, and what it did beside its work."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.testing.observed import Raised, Watched
from harness.testing.results import Judge
from harness.types import Failure, TensorSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

_PURPOSE = "raise Unsupported('why', hint='what to do instead') for what cannot be; let nothing else out"


def ended(judge: Judge, seen: object, doing: str, sample: str) -> bool:
    """Note how a call ended that should have answered; tell whether it did."""
    if not isinstance(seen, Failure):
        return True
    check = "time-limit" if seen.status == "timeout" else "crash" if seen.status in {"crashed", "oom"} else "runs"
    judge.expect(
        check,
        False,
        expected=f"{doing} returns",
        seen=f"{seen.status}: {seen.reason}",
        sample=sample,
        fix={
            "time-limit": "bound the loop or the wait; report progress with job.progress in long work",
            "crash": "find the native call that ends the process; raise instead of exiting",
            "runs": "the kit's own process failed; see the message",
        }[check],
    )
    return False


def raised_well(judge: Judge, raised: Raised | None, doing: str, sample: str) -> bool:
    """Note an exception: Unsupported skips what depends on it; tell whether there is none."""
    if raised is None:
        return True
    if raised.unsupported:
        judge.skip("runs", f"not supported: {raised.message}", sample)
        return False
    if raised.kind == "MissingDependency":
        judge.skip("runs", raised.message, sample)
        return False
    judge.expect(
        "runs", False, expected=f"{doing} works, or raises Unsupported", seen=str(raised), fix=_PURPOSE, sample=sample
    )
    return False


def beside(judge: Judge, watched: Watched, sample: str, *, files: bool) -> None:
    """Check what a call did beside its work."""
    outside = watched.outside
    judge.expect(
        "outside",
        not outside,
        expected="writes go into job.out",
        seen=f"it wrote {', '.join(outside[:3])}",
        fix="write below job.out, and point libraries' temporary folders there",
        sample=sample,
    )
    judge.expect(
        "threads-left",
        not watched.left_threads,
        expected="no thread stays behind",
        seen=f"still there: {', '.join(watched.left_threads)}",
        sample=sample,
        fix="join threads and shut executors down before returning (a with-block does)",
    )
    judge.expect(
        "environment",
        not watched.environment,
        expected="os.environ is as before",
        seen=f"changed: {', '.join(watched.environment)}",
        fix="pass options to the library, or put the values back",
        sample=sample,
    )
    if files:
        judge.expect(
            "files-left",
            watched.left_files == 0,
            expected="every file is closed",
            seen=f"{watched.left_files} more descriptors open than before",
            sample=sample,
            fix="open files in a with-block; close maps and archives",
        )


def told(specs: Mapping[str, TensorSpec]) -> str:
    """Return arrays by name as a reader sees them: "x float32[None, 8]"."""
    return ", ".join(f"{name} {spec.dtype}{list(spec.shape)}" for name, spec in sorted(specs.items()))


def arrays(folder: Path | None) -> list[Array]:
    """Return the arrays of a folder, by file name."""
    import numpy as np

    return [np.load(path, allow_pickle=False) for path in sorted(folder.glob("*.npy"))] if folder else []


def error_of(got: Array, wanted: Array) -> float:
    """Return the largest difference over the largest value of ``wanted``; infinite where shapes differ."""
    import numpy as np

    if got.shape != wanted.shape:
        return math.inf
    scale = float(np.max(np.abs(wanted.astype(np.float64)), initial=1e-12))
    worst = float(np.max(np.abs(got.astype(np.float64) - wanted.astype(np.float64)), initial=0.0))
    return worst / scale if math.isfinite(worst) else math.inf


def sqnr_db(got: Array, wanted: Array) -> float:
    """Return the signal-to-quantization-noise ratio, 10 log10(sum x^2 / sum (x - y)^2), in dB."""
    import numpy as np

    if got.shape != wanted.shape:
        return -math.inf
    signal, noise = wanted.astype(np.float64), wanted.astype(np.float64) - got.astype(np.float64)
    power = float(np.sum(noise**2))
    if not math.isfinite(power):
        return -math.inf
    return 10 * math.log10(max(float(np.sum(signal**2)), 1e-30) / max(power, 1e-30))
