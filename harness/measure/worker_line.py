"""The worker's end of the conversation: handshake, answers, and failures with a name on them."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping
from typing import Any

from harness import codec
from harness.errors import HarnessError, Unsupported
from harness.measure import channel, isolate
from harness.types import Failure

MEMORY_WORDS = ("bad_alloc", "out of memory", "cannot allocate memory", "failed to allocate", "memoryerror")


def failure(error: BaseException, stage: str, blame: str) -> Failure:
    """Turn what a plugin or a runtime raised into a failure with one sentence."""
    text = " ".join(str(error).split())[:500]
    if isinstance(error, Unsupported):
        return Failure("not-applicable", stage, blame, text)  # type: ignore[arg-type]  # the parent names the stage
    kind = type(error).__name__
    memory = isinstance(error, MemoryError) or any(word in text.lower() for word in MEMORY_WORDS)
    reason = text if isinstance(error, HarnessError) else f"{kind}: {text}" if text else kind
    return Failure("oom" if memory else "failed", stage, blame, reason)  # type: ignore[arg-type]  # as above


def serve(line: channel.Channel, handlers: Mapping[str, Callable[[Mapping[str, Any]], dict[str, Any]]]) -> None:
    """Answer messages until one of kind "close", or until the parent is gone."""
    stage, blame = "latency", "harness"
    while True:
        try:
            message = line.receive()
        except channel.Closed:
            return
        stage, blame = message.get("stage", stage), message.get("blame", blame)
        try:
            answer = {"kind": "done", **handlers[message["kind"]](message)}
        except Exception as error:  # noqa: BLE001  plugins and runtimes raise anything; it becomes a failure with a name on it
            answer = {"kind": "failure", "failure": codec.to_data(failure(error, stage, blame))}
        line.send(answer)
        if message["kind"] == "close":
            return


def start(argv: list[str]) -> channel.Channel:
    """Isolate this process and shake hands."""
    descriptors = [int(word) for word in argv]
    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)
    isolate.die_with_parent()
    isolate.offer_to_oom_killer()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's; it kills its workers
    line = channel.Channel(*descriptors)
    line.send(channel.hello())
    return line
