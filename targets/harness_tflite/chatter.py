"""Keep what converters and quantizers print out of the user's terminal."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping


@contextlib.contextmanager
def captured(log: logging.Logger) -> Iterator[None]:
    """Send what the process writes to stdout and stderr, C++ included, to the log at debug level; ignore warnings."""
    _flush()
    with tempfile.TemporaryFile() as sink:
        saved = {descriptor: os.dup(descriptor) for descriptor in (1, 2)}
        try:
            for descriptor in saved:
                os.dup2(sink.fileno(), descriptor)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield
        finally:
            _flush()
            _restore(saved)
            sink.seek(0)
            for line in sink.read().decode(errors="replace").splitlines():
                log.debug("%s", line)


def _restore(saved: Mapping[int, int]) -> None:
    for descriptor, copy in saved.items():
        os.dup2(copy, descriptor)
        os.close(copy)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
