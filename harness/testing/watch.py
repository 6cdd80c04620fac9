"""Watch a call: what it writes where, which threads and files it leaves, what it changes around it."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.errors import HarnessError
from harness.testing.observed import Raised, Watched

_PATHS: Mapping[str, tuple[int, ...]] = {
    "open": (0,),
    "os.mkdir": (0,),
    "os.rename": (0, 1),
    "os.remove": (0,),
    "os.rmdir": (0,),
    "os.truncate": (0,),
    "os.symlink": (1,),
    "os.link": (1,),
    "os.chmod": (0,),
}  # audit event -> which of its arguments are paths that it changes
_FINE = ("/dev/", "/proc/", "/sys/")  # no files of anybody
_LIBRARY_THREADS = frozenset({"tqdm_monitor"})  # one for the whole process, that its library keeps for good
# What scikit-learn sets as it is imported; set beforehand, so that it is not taken for the plugin's doing.
_LIBRARY_SETTINGS = {"KMP_DUPLICATE_LIB_OK": "True", "KMP_INIT_AT_FORK": "FALSE"}
_LIBRARY_CACHES = ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR", "MPLCONFIGDIR", "NUMBA_CACHE_DIR")
_SETTLE_S = 1.0  # threads and descriptors of a runtime may take a moment to go


@dataclass
class _Tracer:
    """Python has no way to take an audit hook off again, so one stays and is told when to listen."""

    on: bool = False
    seen: list[str] = field(default_factory=list)

    def hear(self, event: str, args: tuple[Any, ...]) -> None:
        """Note the paths that an event changes."""
        if not self.on or event not in _PATHS or (event == "open" and not _writes(args)):
            return
        for index in _PATHS[event]:
            if isinstance(args[index], (str, bytes, os.PathLike)) and not _relative_to_descriptor(event, args):
                self.seen.append(os.path.abspath(os.fsdecode(args[index])))  # noqa: PTH100  links stay as they are


def _relative_to_descriptor(event: str, args: tuple[Any, ...]) -> bool:
    """Whether the path is relative to an open folder, as in shutil.rmtree; where that lies is not told."""
    return event in {"os.remove", "os.rmdir"} and isinstance(args[-1], int) and args[-1] >= 0


def _writes(args: tuple[Any, ...]) -> bool:
    path, mode, flags = args[0], args[1], args[2] or 0
    if isinstance(path, (str, bytes, os.PathLike)) and os.path.isdir(path):  # noqa: PTH112  bytes have no Path
        return False  # opened for a file without a name (O_TMPFILE), as tempfile.TemporaryFile does, or to be read
    if isinstance(mode, str):
        return any(letter in mode for letter in "wax+")
    return bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))


_TRACER = _Tracer()


def install() -> None:
    """Begin to hear of the files that Python code opens; once in a process.

    Libraries that make a cache on their first use, and name it in the environment, are given one beforehand, and
    what others set as they are imported is set: it is not the plugin's doing.
    """
    for name in _LIBRARY_CACHES:
        os.environ.setdefault(name, str(_library_caches() / name.lower()))
    for name, value in _LIBRARY_SETTINGS.items():
        os.environ.setdefault(name, value)
    sys.addaudithook(_TRACER.hear)


def _library_caches() -> Path:
    return Path(tempfile.gettempdir()) / f"harness-kit-{os.getuid()}"


def thread_count() -> int:
    """Return the threads of this process: the kernel's count, or Python's where there is none."""
    try:
        return len(os.listdir("/proc/self/task"))  # noqa: PTH208  no path is needed
    except OSError:
        return threading.active_count()


def _files() -> int:
    try:
        return len(os.listdir("/proc/self/fd"))  # noqa: PTH208  as above
    except OSError:
        return 0


@dataclass
class Watch:
    """A call under watch; ``seen()`` says what it did."""

    inside: Path
    started: float = field(default_factory=time.monotonic)
    before_threads: int = field(default_factory=thread_count)
    before_files: int = field(default_factory=_files)
    peak_threads: int = 0
    names: frozenset[str] = frozenset()
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    seconds: float = 0.0

    def look(self) -> None:
        """Count the threads now."""
        self.peak_threads = max(self.peak_threads, thread_count())

    def seen(self) -> Watched:
        """Return what the call did, after a moment for threads and files to go."""
        deadline = time.monotonic() + _SETTLE_S
        while time.monotonic() < deadline and (thread_count() > self.before_threads or _files() > self.before_files):
            time.sleep(0.02)
        return Watched(
            seconds=self.seconds,
            outside=tuple(dict.fromkeys(path for path in _TRACER.seen if self._outside(path))),
            left_threads=tuple(sorted({t.name for t in threading.enumerate()} - self.names - _LIBRARY_THREADS)),
            before_threads=self.before_threads,
            peak_threads=self.peak_threads,
            after_threads=thread_count(),
            left_files=max(0, _files() - self.before_files),
            environment=tuple(
                sorted(k for k in {*os.environ, *self.environment} if os.environ.get(k) != self.environment.get(k))
            ),
        )

    def _outside(self, path: str) -> bool:
        if path.startswith(_FINE) or "__pycache__" in path:
            return False
        real = Path(os.path.realpath(path))
        if real.is_relative_to(self.inside.resolve()) or real.is_relative_to(_library_caches()):
            return False
        # a scratch file that is gone again did no harm
        return real.exists() or not real.is_relative_to(Path(tempfile.gettempdir()).resolve())


@contextlib.contextmanager
def watching(inside: Path) -> Generator[Watch]:
    """Watch what happens in the block; only ``inside`` may be written."""
    _TRACER.seen.clear()
    watch = Watch(inside, names=frozenset(thread.name for thread in threading.enumerate()))
    stop = threading.Event()

    def sample() -> None:
        while not stop.wait(0.005):
            watch.look()

    sampler = threading.Thread(target=sample, daemon=True, name="kit-sampler")
    sampler.start()
    watch.before_threads = thread_count()
    watch.names |= {sampler.name}
    _TRACER.on = True
    try:
        yield watch
    finally:
        _TRACER.on = False
        watch.look()
        watch.seconds = time.monotonic() - watch.started
        stop.set()
        sampler.join()
        watch.before_threads -= 1
        watch.peak_threads -= 1


def raised(error: BaseException) -> Raised:
    """Describe an exception with the last line of its traceback that is not harness's."""
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if f"{os.sep}harness{os.sep}" not in frame.filename
    ]
    where = f"{Path(frames[-1].filename).name}:{frames[-1].lineno} in {frames[-1].name}" if frames else ""
    purpose = isinstance(error, HarnessError)
    message = " ".join(str(error.message if isinstance(error, HarnessError) else error).split())[:400]
    return Raised(type(error).__name__, message, purpose, "" if purpose else where)
