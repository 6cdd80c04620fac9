"""One life of a session under watch: open, run, ask, close."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness import codec, params
from harness.build.tasks import Use
from harness.measure.inputs import open_items, take
from harness.measure.outputs import write_outputs
from harness.testing.observed import Ran, Watched
from harness.testing.watch import Watch, raised, watching
from harness.types import Artifact, Options, Placement, TensorSpec

if TYPE_CHECKING:
    from harness.build.run import Plugins
    from harness.specs import Session

_LOOP_CPU_S, _LOOP_S = 0.2, 1.0  # of CPU time, but not longer than this by the clock
_LEAST_CPU_S = 0.02  # a session that waits computes nothing that could be shared out
_SINGLES = 5  # items that are run one at a time


class Sessions:
    """Answers of the kit's process about sessions; several lives in one process."""

    def __init__(self, plugins: Plugins) -> None:
        self.plugins = plugins

    def run(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """Open a session, do everything with it that a measurement does, and close it."""
        use, out = codec.from_data(Use, message["use"]), Path(message["out"])
        life = _Life(
            spec=self.plugins.offer("target", use).spec,
            use=use,
            artifact=codec.from_data(Artifact, message["artifact"]),
            options=codec.from_data(Options, message["options"]),
            purpose=message["purpose"],
            evaluation=Path(message["evaluation"]),
            out=out,
        )
        out.mkdir(parents=True)
        with watching(out) as watch:
            seen = life.live(watch)
        return {"seen": codec.to_data(dataclasses.replace(seen, watched=watch.seen()))}


def _thread_ns() -> dict[str, int]:
    """Return thread -> nanoseconds on a CPU, for the threads that live; empty where the kernel does not tell."""
    found: dict[str, int] = {}
    for path in Path("/proc/self/task").glob("*/schedstat"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            found[path.parent.name] = int(path.read_text().split()[0])
    return found


@dataclasses.dataclass
class _Life:
    spec: Any
    use: Use
    artifact: Artifact
    options: Options
    purpose: str
    evaluation: Path
    out: Path
    stage: str = "open"

    def live(self, watch: Watch) -> Ran:
        """Go through all stages; what raised is where the story ends."""
        seen, session = Ran(Watched(0.0)), None
        try:
            values = params.build(self.spec.params, self.use.params, owner=f"target {self.use.name!r}")
            session = self.spec.open(self.artifact, values, self.options, self.purpose)
            lacking = tuple(n for n in ("inputs", "outputs", "run", "close") if not hasattr(session, n))
            if lacking:
                return dataclasses.replace(seen, missing_members=lacking, stage="open")
            seen = self._run(session, seen)
            watch.look()
            seen = self._ask(session, seen)
            self.stage = "close"
            session.close()
            session = None
            return dataclasses.replace(seen, stage="")
        except Exception as error:  # noqa: BLE001  a plugin may raise anything; the checks judge it
            return dataclasses.replace(seen, raised=raised(error), stage=self.stage)
        finally:
            if session is not None and self.stage != "close" and hasattr(session, "close"):
                try:
                    session.close()
                except Exception as error:  # noqa: BLE001  the first error is the one to tell
                    del error

    def _run(self, session: Session, seen: Ran) -> Ran:
        self.stage = "run"
        specs = dict(session.inputs)
        seen = dataclasses.replace(seen, inputs=specs, outputs_declared=dict(session.outputs))
        items = open_items(self.evaluation, specs)
        fixed = next((s.shape[0] for s in specs.values() if s.shape and s.shape[0] is not None), None)
        batch = fixed or self.options.batch
        pool = take(items, specs, range(batch))
        kept = {name: array.copy() for name, array in pool.items()}
        first = {name: np.array(value) for name, value in session.run(pool).items()}
        changed = tuple(name for name in pool if not np.array_equal(pool[name], kept[name]))
        again = session.run({name: array.copy() for name, array in kept.items()})
        equal = all(np.array_equal(first[name], np.asarray(again[name]), equal_nan=True) for name in first)
        write_outputs(session.run, specs, {}, self.evaluation, self.out / "outputs", batch=batch, items=None)
        single = self._singles(session, specs, items) if fixed is None and self.options.batch > 1 else None
        shapes = {name: TensorSpec(str(value.dtype), value.shape) for name, value in first.items()}
        return dataclasses.replace(
            seen,
            first=shapes,
            inputs_changed=changed,
            again_equal=equal,
            outputs=self.out / "outputs",
            single=single,
            batch=batch,
            busy_threads=self._load(session, kept),
        )

    def _singles(self, session: Session, specs: Mapping[str, TensorSpec], items: Mapping[str, Any]) -> Path:
        """Run the first items one at a time."""
        rows = [session.run(take(items, specs, [index])) for index in range(_SINGLES)]
        rows = [{name: np.array(value) for name, value in row.items()} for row in rows]
        folder = self.out / "single"
        folder.mkdir()
        for name in rows[0]:
            np.save(folder / f"{name.replace('/', '_')}.npy", np.concatenate([row[name] for row in rows]))
        return folder

    @staticmethod
    def _load(session: Session, inputs: Mapping[str, Any]) -> float:
        """Return how many threads the work of a loop of runs was worth.

        That is the CPU time of the process over that of its busiest thread: other processes on the host do not
        change it, and it is 1 also where a single thread of a pool does all the work.
        """
        before, cpu, started = _thread_ns(), time.process_time(), time.perf_counter()
        while time.process_time() - cpu < _LOOP_CPU_S and time.perf_counter() - started < _LOOP_S:
            session.run(inputs)
        spent, after = time.process_time() - cpu, _thread_ns()
        busiest = max((after[thread] - before.get(thread, 0) for thread in after), default=0) / 1e9
        return spent / busiest if spent > _LEAST_CPU_S and busiest > 0 else 1.0

    def _ask(self, session: Any, seen: Ran) -> Ran:
        if hasattr(session, "effective"):
            self.stage = "effective"
            seen = dataclasses.replace(seen, effective={str(k): str(v) for k, v in session.effective().items()})
        if self.purpose == "placement" and hasattr(session, "placements"):
            self.stage = "placements"
            found = session.placements()
            wrong = next((type(item).__name__ for item in found if not isinstance(item, Placement)), "")
            seen = dataclasses.replace(seen, placements=None if wrong else tuple(found), placements_gave=wrong)
        return seen
