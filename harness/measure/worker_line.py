"""The worker's end of the conversation: handshake, answers, and failures with a name on them."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from harness import codec, imports
from harness.explain import KnownError, Where, failure
from harness.measure import channel, isolate
from harness.types import Stage

DOING = {  # what a process that fails could not do
    "configure": "the target could not be loaded",
    "open": "the model could not be opened and run",
    "evaluate": "the model could not run on the evaluation items",
    "placement": "what ran where could not be read",
}
RUNNING = "the model could not be run"


def doing(kind: str) -> str:
    """Say what was not done where an answer to a message of this kind is not the one that is due."""
    return DOING.get(kind, RUNNING)


def serve(
    line: channel.Channel,
    handlers: Mapping[str, Callable[[Mapping[str, Any]], dict[str, Any]]],
    known: Callable[[], Sequence[KnownError]] = tuple,
) -> None:
    """Answer messages until one of kind "close", or until the parent is gone.

    Args:
        line: To the parent.
        handlers: Kind of message -> what answers it.
        known: Gives the causes that the target knows of what its runtime raises, when they are needed.
    """
    stage: Stage = "latency"
    blame = "harness"
    while True:
        try:
            message = line.receive()
        except channel.Closed:
            return
        stage, blame = message.get("stage", stage), message.get("blame", blame)
        try:
            answer = {"kind": "done", **handlers[message["kind"]](message)}
        except BaseException as error:  # noqa: BLE001  plugins raise anything, SystemExit included; it becomes a failure with a name on it
            where = Where(stage, blame, doing(message["kind"]), known())
            answer = {"kind": "failure", "failure": codec.to_data(failure(error, where))}
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
    imports.take()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's; it kills its workers
    line = channel.Channel(*descriptors)
    line.send(channel.hello())
    return line
