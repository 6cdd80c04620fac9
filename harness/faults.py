"""What a plugin does to the process that runs its code: told from what the user does, kept off stdout, and put back."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator
from pathlib import Path
from types import FrameType
from typing import TextIO

_SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGPIPE") if hasattr(signal, name))
_received = False


def listen() -> None:
    """Count the user's Ctrl-C from now on, so that a ``KeyboardInterrupt`` that a plugin raises is told from it."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupted)


def _interrupted(_number: int, _frame: FrameType | None) -> None:
    global _received
    _received = True
    raise KeyboardInterrupt


def of_plugin(error: BaseException) -> bool:
    """Tell whether code that was called raised this by itself; only the user's Ctrl-C is not the plugin's.

    Where nobody counted, in a program that has its own handler, a ``KeyboardInterrupt`` is taken for the user's.
    """
    if not isinstance(error, KeyboardInterrupt):
        return True
    handler = signal.getsignal(signal.SIGINT)
    return not _received if handler is _interrupted else handler is signal.SIG_IGN


def tried(call: Callable[[], object], limit_s: float = 60.0) -> str:
    """Say how a call ended its process, tried in a copy of this one; empty where it returned or raised.

    Args:
        call: What is tried.
        limit_s: Longest wait for it.
    """
    if not hasattr(os, "fork") or threading.active_count() > 1:
        return ""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException), contained():
            call()
        os.write(writer, b".")
        os._exit(0)
    os.close(writer)
    try:
        return _ended(child, reader, time.monotonic() + limit_s, limit_s)
    finally:
        os.close(reader)


def _ended(child: int, reader: int, deadline: float, limit_s: float) -> str:
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if select.select([reader], [], [], 0 if done else 0.02)[0] and os.read(reader, 1):
            if not done:
                os.waitpid(child, 0)
            return ""
        if done:
            code = os.waitstatus_to_exitcode(status)
            return f"exited with status {code}" if code >= 0 else f"was ended by {signal.Signals(-code).name}"
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return f"did not come to an end within {limit_s:g} s"


class Escaped(Exception):
    """A plugin raised what is no ``Exception``: it wanted to end the process, or looked like the user's Ctrl-C."""


@contextlib.contextmanager
def called() -> Generator[None, None, None]:
    """Call a plugin's function in this process: whatever it raises is an ``Exception``, but for the user's Ctrl-C.

    Raises:
        Escaped: In place of ``SystemExit``, ``KeyboardInterrupt`` and their like.
    """
    with contained():
        try:
            yield
        except Exception:
            raise
        except BaseException as error:
            if not of_plugin(error):
                raise
            from harness.explain import raised  # only where something went wrong

            raise Escaped(raised(error)) from error


@contextlib.contextmanager
def contained() -> Generator[None, None, None]:
    """Run a plugin's code: what it prints goes to stderr, and what it changes of the process is put back.

    That is the working folder, the environment, handlers of signals and the alarm, the import path and the streams.
    """
    folder, environment, path = _folder(), dict(os.environ), list(sys.path)
    handlers = {number: signal.getsignal(number) for number in _SIGNALS}
    alarm = hasattr(signal, "getitimer") and signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    with _streams():
        try:
            yield
        finally:
            if folder is not None:
                os.chdir(folder)
            if alarm:
                signal.setitimer(signal.ITIMER_REAL, 0)
            for name in [name for name in os.environ if name not in environment]:
                del os.environ[name]
            for name, value in environment.items():
                if os.environ.get(name) != value:  # what is as it was is not touched: threads of a runtime may read it
                    os.environ[name] = value
            if not set(path) <= set(sys.path):
                sys.path[:] = path
            if threading.current_thread() is threading.main_thread():
                for number, handler in handlers.items():
                    if handler is not None and signal.getsignal(number) is not handler:
                        signal.signal(number, handler)


def _folder() -> Path | None:
    try:
        return Path.cwd()
    except OSError:  # it was removed
        return None


@contextlib.contextmanager
def _streams() -> Generator[None, None, None]:
    """Lead stdout to stderr, for Python and below it; what is closed meanwhile is open again afterwards."""
    ours = sys.stdout, sys.stderr
    for stream in ours:
        with contextlib.suppress(ValueError, OSError, AttributeError):  # closed, or never there
            stream.flush()
    kept = {number: _copy(number) for number in (0, 1, 2)}
    sys.stdout = sys.stderr = aside = _aside()
    os.dup2(aside.fileno(), 1)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError, OSError, AttributeError):
            sys.stderr.flush()
        sys.stdout, sys.stderr = ours
        for number, copy in kept.items():
            if copy is not None:
                os.dup2(copy, number)
                os.close(copy)


def _copy(number: int) -> int | None:
    try:
        return os.dup(number)
    except OSError:  # the process was started without it
        return None


def _aside() -> TextIO:
    """Return a stream to stderr that a plugin may keep and close."""
    try:
        return os.fdopen(os.dup(2), "w", buffering=1, encoding="utf-8", errors="backslashreplace")
    except OSError:
        return open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123  a plugin's handlers may keep it
