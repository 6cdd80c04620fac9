"""A network in parts that run one after another, as one session: what a user of its parts would write around them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from harness.errors import HarnessError
from harness.specs import Session, SupportsDeviceMemory, SupportsEffective, SupportsPlacements, TargetSpec
from harness.types import Artifact, Options, Placement, TensorSpec

if TYPE_CHECKING:
    from harness.specs import Arrays

    Run = Callable[[Any], Any]


def opened(spec: TargetSpec[Any], artifact: Artifact, params: Any, options: Options, purpose: Any) -> Session:
    """Open an artifact, or all of its parts."""
    if not artifact.parts:
        return spec.open(artifact, params, options, purpose)
    sessions: list[Session] = []
    try:
        sessions.extend(spec.open(part, params, options, purpose) for part in artifact.parts)
    except BaseException:
        for session in sessions:
            session.close()
        raise
    return Chain(sessions)


class Chain:
    """Sessions in a row; each takes by name what the inputs and the sessions before it give.

    Args:
        sessions: In running order; the last one gives the outputs.
    """

    def __init__(self, sessions: Sequence[Session]) -> None:
        self.sessions = tuple(sessions)
        self._takes = [tuple(session.inputs) for session in self.sessions]
        devices = [item for item in self.sessions if isinstance(item, SupportsDeviceMemory)]
        if len(devices) == len(self.sessions):  # else the chain, too, does not know
            self.device_memory_bytes = lambda: sum(item.device_memory_bytes() for item in devices)

    @property
    def inputs(self) -> Mapping[str, TensorSpec]:
        """Inputs that no session before gives."""
        given: set[str] = set()
        found: dict[str, TensorSpec] = {}
        for session in self.sessions:
            found |= {name: spec for name, spec in session.inputs.items() if name not in given and name not in found}
            given |= set(session.outputs)
        return found

    @property
    def outputs(self) -> Mapping[str, TensorSpec]:
        """Outputs of the last session."""
        return self.sessions[-1].outputs

    def run(self, inputs: Arrays) -> Arrays:
        """Run all, one after another."""
        known = dict(inputs)
        result: Arrays = {}
        for session, names in zip(self.sessions, self._takes, strict=True):
            result = session.run({name: known[name] for name in names})
            known.update(result)
        return result

    def alone(self, pool: Sequence[Arrays]) -> list[tuple[Run, list[dict[str, Any]]]]:
        """Return each session's run with the inputs that reach it, for each item of a pool."""
        found: list[tuple[Run, list[dict[str, Any]]]] = []
        known = [dict(item) for item in pool]
        for session, names in zip(self.sessions, self._takes, strict=True):
            own = [{name: item[name] for name in names} for item in known]
            found.append((session.run, own))
            for item, given in zip(known, own, strict=True):
                item.update({name: value.copy() for name, value in session.run(given).items()})
        return found

    def placements(self) -> tuple[Placement, ...]:
        """Return what every session says, with its place in the name; no shares of time, which are of one session.

        Raises:
            HarnessError: A session does not say.
        """
        if not all(isinstance(session, SupportsPlacements) for session in self.sessions):
            raise HarnessError("the parts do not report placements")
        return tuple(
            dataclasses.replace(item, name=f"part {at}: {item.name}", time_share=None)
            for at, session in enumerate(self.sessions, start=1)
            if isinstance(session, SupportsPlacements)
            for item in session.placements()
        )

    def effective(self) -> Mapping[str, str]:
        """Return the options in force in the first session; all are opened with the same ones."""
        first = self.sessions[0]
        return first.effective() if isinstance(first, SupportsEffective) else {}

    def close(self) -> None:
        """Close all."""
        for session in self.sessions:
            session.close()
