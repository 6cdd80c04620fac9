"""Framed messages over a pair of pipe descriptors, and the handshake that opens every conversation.

Runtimes and plugins print to stdout and stderr, so the conversation has descriptors of its own.
A frame is a 4-byte big-endian length and that many bytes of JSON.
"""

from __future__ import annotations

import os
import platform
import select
import struct
import sys
import time
from collections.abc import Mapping
from typing import Any

import harness
from harness import codec

PROTOCOL = 1
_HEAD = struct.Struct("!I")
_LIMIT = 1 << 28  # bytes of one frame; more means that the stream is not ours


class Closed(Exception):
    """The other side closed its end: it exited, crashed or was killed."""


class Late(Exception):
    """No complete message arrived in time."""


class Channel:
    """One end of a conversation.

    Args:
        reader: Descriptor that messages are read from.
        writer: Descriptor that messages are written to.
    """

    def __init__(self, reader: int, writer: int) -> None:
        self._reader = reader
        self._writer = writer
        self._poll = select.poll()
        self._poll.register(reader, select.POLLIN | select.POLLHUP)

    def send(self, message: Mapping[str, Any]) -> None:
        """Write one message; raises ``Closed`` when nobody reads."""
        raw = codec.dumps(message)
        data = memoryview(_HEAD.pack(len(raw)) + raw)
        try:
            while data:
                data = data[os.write(self._writer, data) :]
        except BrokenPipeError:
            raise Closed from None

    def receive(self, timeout_s: float | None = None) -> dict[str, Any]:
        """Block until one message is complete and return it.

        Args:
            timeout_s: Longest wait; ``None`` waits for ever.

        Raises:
            Closed: The other side is gone.
            Late: Nothing complete came within ``timeout_s``.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        (size,) = _HEAD.unpack(self._read(_HEAD.size, deadline))
        if size > _LIMIT:
            raise Closed
        return codec.loads(dict[str, Any], self._read(size, deadline), where="message")

    def _read(self, size: int, deadline: float | None) -> bytes:
        parts = bytearray()
        while len(parts) < size:
            left_ms = None if deadline is None else max(0.0, (deadline - time.monotonic()) * 1e3)
            if not self._poll.poll(left_ms):
                raise Late
            part = os.read(self._reader, min(size - len(parts), 1 << 20))
            if not part:
                raise Closed
            parts += part
        return bytes(parts)

    def close(self) -> None:
        """Close both descriptors."""
        for descriptor in {self._reader, self._writer}:
            os.close(descriptor)


def hello() -> dict[str, Any]:
    """Return what a worker says first."""
    return {
        "kind": "hello",
        "protocol": PROTOCOL,
        "harness": harness.__version__,
        "python": platform.python_version(),
        "executable": sys.executable,
    }


def mismatch(message: Mapping[str, Any]) -> str | None:
    """Say why a worker's first message cannot be worked with, or return None.

    Another Python version is fine (a target may live in its own interpreter); another harness is not.
    """
    if message.get("kind") != "hello":
        return f"worker began with {message.get('kind')!r} instead of a handshake"
    where = f"{message.get('executable')} (python {message.get('python')})"
    if message.get("harness") != harness.__version__:
        return f"{where} has harness {message.get('harness')}, this is {harness.__version__}; install the same version"
    if message.get("protocol") != PROTOCOL:
        return f"{where} speaks worker protocol {message.get('protocol')}, this is {PROTOCOL}; install the same version"
    return None
