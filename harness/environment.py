"""What a process of ours gets of the environment: one list for builders, probes and workers of every kind."""

from __future__ import annotations

import os
from collections.abc import Iterable
from fnmatch import fnmatchcase

from harness import imports

ALLOWED = (
    "CONDA_PREFIX", "COVERAGE_PROCESS_START", "CUDA_HOME", "CUDA_PATH", "CUDA_VISIBLE_DEVICES", "DYLD_LIBRARY_PATH",
    "HF_HOME", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "LD_LIBRARY_PATH", "LOGNAME", "NVIDIA_VISIBLE_DEVICES", "PATH",
    "PYTHONHOME", "PYTHONPATH", "SSL_CERT_FILE", "SYSTEMROOT", "TEMP", "TMP", "TMPDIR", "TORCH_HOME", "TZ", "USER",
    "VIRTUAL_ENV", "HARNESS_*", "XDG_*",
)  # fmt: skip
THREADS = (
    "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)  # fmt: skip
_declared: set[str] = set()


def declare(patterns: Iterable[str]) -> None:
    """Let through what targets say that their runtimes read; plugins are loaded before anything is started."""
    _declared.update(patterns)


def inherited(threads: int, python: str | None = None) -> dict[str, str]:
    """Return the environment of a new process: what is allowed, the threads of libraries, and where it imports from.

    Args:
        threads: That numeric libraries may use.
        python: Its interpreter; ``None`` for this one.
    """
    patterns = (*ALLOWED, *_declared)
    kept = {name: value for name, value in os.environ.items() if any(fnmatchcase(name, one) for one in patterns)}
    kept.pop(imports.VARIABLE, None)  # what this process was told is not what it tells
    return kept | dict.fromkeys(THREADS, str(threads)) | {"PYTHONUNBUFFERED": "1"} | imports.told(python)
