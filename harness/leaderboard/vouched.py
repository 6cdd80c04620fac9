"""What the self-test of a host said: its report lies in the host's folder, beside the runs that it vouches for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from harness import codec
from harness.errors import RecordError
from harness.store import Run

FILES = ("selftest-full.json", "selftest.json")  # the first that is there counts


@dataclass(frozen=True)
class Tried:
    """One line of a report, as far as a board shows it."""

    name: str
    kind: str
    verdict: str
    reason: str


@dataclass(frozen=True)
class Vouched:
    """A report of one host."""

    host_id: str
    full: bool
    finished_utc: str
    harness_version: str
    lines: tuple[Tried, ...]

    @property
    def sentence(self) -> str:
        """What the report comes to."""
        counts = Counter(line.verdict for line in self.lines)
        said = ", ".join(f"{counts[word]} {word}" for word in ("pass", "fail", "not-evaluable"))
        failed = [line.name for line in self.lines if line.verdict == "fail"]
        wrong = f": {', '.join(failed)}; figures of this host are not to be published" if failed else ""
        kind = "full self-test" if self.full else "self-test"
        return f"{kind} of this host on {self.finished_utc[:10]}: {said}{wrong}"


def vouched(run: Run) -> Vouched | None:
    """Return the self-test's report that lies beside a run, of the same host; ``None`` where there is none."""
    host_id = run.info.host_id if run.info is not None else ""
    for path in (run.path.parent / name for name in FILES):
        try:
            found = codec.loads(Vouched, path.read_bytes(), where=str(path))
        except (OSError, RecordError):
            continue
        if found.host_id == host_id:
            return found
    return None


def sentences(runs: Sequence[Run]) -> Iterator[str]:
    """Yield what the boards' notes say of each host's self-test, where one was made."""
    yield from (report.sentence for report in reports(runs))


def reports(runs: Sequence[Run]) -> list[Vouched]:
    """Return the reports beside some runs, each once."""
    found = {run.path.parent: vouched(run) for run in runs}
    return [report for report in found.values() if report is not None]
