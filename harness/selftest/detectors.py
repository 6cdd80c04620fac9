"""Live lines of the noise detectors: the host is disturbed on purpose, and each disturbance has to be named."""

from __future__ import annotations

import contextlib
import os
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager

from harness.measure import cpus
from harness.measure.memory import children
from harness.measure.noise import THRESHOLDS
from harness.selftest.alarms import Alarm, classify
from harness.selftest.known import most_by_chance
from harness.selftest.lab import Lab, launches, line
from harness.selftest.values import Line
from harness.types import Launch, LaunchSet

_SPIN = "import os, sys\nos.sched_setaffinity(0, {cpu})\nwhile True: pass"
_GEMM = (
    "import os\nos.sched_setaffinity(0, {cpu})\nimport numpy as np\n"
    "a = np.ones((2048, 2048), np.float32)\nwhile True: a @ a"
)
SLOWED = 0.93  # of the rate a moment ago: clearly below the 97 % of the usual rate that the harness allows
SILENCE_S = {False: 30.0, True: 480.0}  # longest that the silent control takes
_QUOTA = 0.1  # of a CPU: less than a busy host leaves a process, so that the limit is reached there too


@contextlib.contextmanager
def hog(source: str, cpu: int) -> Generator[None, None, None]:
    """Keep a process busy on one CPU."""
    process = subprocess.Popen([sys.executable, "-c", source.replace("{cpu}", f"[{cpu}]")])
    time.sleep(0.3)
    try:
        yield
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def stopped_workers() -> Generator[None, None, None]:
    """Stop every child of this process for 20 ms of every 40: some stop falls into any launch's 60 ms of batches."""
    done = threading.Event()

    def disturb() -> None:
        while not done.wait(0.02):
            for pid in children(os.getpid()):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGSTOP)
            time.sleep(0.02)
            for pid in children(os.getpid()):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    thread = threading.Thread(target=disturb, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


@contextlib.contextmanager
def throttled() -> Generator[None, None, None]:
    """Put this process, and what it starts, into a CPU cgroup with a tenth of a CPU.

    Raises:
        OSError: No such cgroup can be made here.
    """
    parent = next((folder for folder in cpus.cgroup_folders("cpu") if (folder / "cpu.cfs_quota_us").exists()), None)
    version2 = next(
        (folder for folder in cpus.cgroup_folders("") if (folder / "cgroup.subtree_control").exists()), None
    )
    parent = parent or version2
    if parent is None:
        raise OSError("no CPU cgroup is mounted")
    folder = parent / f"harness-selftest-{os.getpid()}"
    folder.mkdir()
    try:
        if (folder / "cpu.cfs_quota_us").exists():
            (folder / "cpu.cfs_period_us").write_text("20000")
            (folder / "cpu.cfs_quota_us").write_text(str(int(20000 * _QUOTA)))
        else:
            (folder / "cpu.max").write_text(f"{int(20000 * _QUOTA)} 20000")
        (folder / "cgroup.procs").write_text(str(os.getpid()))
        yield
    finally:
        with contextlib.suppress(OSError):
            (parent / "cgroup.procs").write_text(str(os.getpid()))
        for _ in range(50):
            with contextlib.suppress(OSError):
                folder.rmdir()
                break
            time.sleep(0.02)


def detectors(lab: Lab) -> Iterator[Line]:
    """Each disturbance is flagged by its own name in at least 19 of 20 launch-sets."""
    (cpu,) = cpus.choose(1)
    others = [other for other in cpus.allowed() if other != cpu]
    yield _flagged(lab, "a stressed core", lambda: hog(_SPIN, cpu), ("cpu/wall", "hiccup", "involuntary switches"))
    yield _flagged(lab, "a stopped worker", stopped_workers, ("cpu/wall",))
    yield _flagged(lab, "a throttled cgroup", throttled, ("throttled periods",))
    if others:
        yield _shared_core(lab, others[-1])


def _flagged(lab: Lab, name: str, disturb: Callable[[], AbstractContextManager[None]], expected: Sequence[str]) -> Line:
    title, trials = f"noise: {name}", lab.trials(2, 20)
    member = lab.member("spin2", "spin", ms=2.0)
    try:
        with disturb():
            sets = lab.sets(f"noise-{name.replace(' ', '-')}", [member], trials)
    except OSError as error:
        return line(title, ("not-evaluable", f"cannot be made here: {error}"))
    named = sum(_names(item, expected) for item in sets)
    least = trials - trials // 20
    seen = f"flagged as {' or '.join(expected)} in {named} of {trials} launch-sets (at least {least})"
    return line(title, ("pass" if named >= least else "fail", seen), {"trials": trials, "flagged": named}, sets)


def _names(item: LaunchSet, expected: Sequence[str]) -> bool:
    reasons = [reason for launch in launches([item]) for reason in launch.noise.reasons if reason.startswith("noisy")]
    return any(name in reason for name in expected for reason in reasons)


def _shared_core(lab: Lab, other: int) -> Line:
    """Heavy vector work beside the measured CPU: only the canary can see it, and only where the core is shared.

    Judged are the launches that the work clearly slowed, by the canary of the same minutes. Where there are none, the
    line asks for what is true then: that the work beside raises no false alarm.
    """
    title, member = "noise: a busy sibling", lab.member("spin2", "spin", ms=2.0)
    quiet = lab.sets("noise-sibling-quiet", [member], 3)
    with hog(_GEMM, other):
        sets = lab.sets("noise-sibling-busy", [member], lab.trials(3, 20))
    before = max(launch.noise.canary_before_gflops for launch in launches(quiet))
    busy = launches(sets)
    level = statistics.median(launch.noise.canary_before_gflops for launch in busy) / before
    slowed = [launch for launch in busy if _slowest(launch) < SLOWED * before]
    figures = {"canary_level": level, "slowed": len(slowed), "trials": len(sets)}
    if len(slowed) < max(2, len(sets) / 4):
        alarms = Counter(classify(launch, busy) for launch in busy)
        seen = (
            f"these CPUs hardly share what slows the canary: it kept {level:.1%}; "
            f"{alarms['false']} of {len(busy)} launches flagged where nothing else saw a cause"
        )
        ok = alarms["false"] <= most_by_chance(len(busy))
        return line(title, ("pass" if ok else "fail", seen), {**figures, "false": alarms["false"]}, sets)
    least = len(slowed) - len(slowed) // 20
    named = sum(any("canary" in reason for reason in launch.noise.reasons) for launch in slowed)
    if all(launch.noise.canary_level is None for launch in busy):  # this host's own clean mode is not known yet
        named = sum(THRESHOLDS["canary level"].judge(_slowest(launch) / before) != "ok" for launch in slowed)
    seen = f"the canary fell to {level:.1%}; flagged in {named} of {len(slowed)} launch-sets that it slowed"
    return line(title, ("pass" if named >= least else "fail", seen), {**figures, "flagged": named}, sets)


def _slowest(launch: Launch) -> float:
    return min(launch.noise.canary_before_gflops, launch.noise.canary_after_gflops)


def silent(lab: Lab) -> Iterator[Line]:
    """The detectors do not cry without a cause: a noisy launch counts as false where nothing else saw a disturbance.

    Launches that the clock or the kernel's counters saw disturbed are not judged; it goes on until enough others are,
    or the time is over.
    """
    member = lab.member("spin2", "spin", ms=2.0)
    wanted, end = lab.trials(5, 40), time.monotonic() + SILENCE_S[lab.full]
    alarms: Counter[Alarm] = Counter()
    sets: list[LaunchSet] = []
    while (judged := len(sets) - alarms["disturbed"]) < wanted and time.monotonic() < end:
        sets += lab.sets("silent", [member], 1, first=len(sets))
        found = launches(sets)
        alarms = Counter(classify(launch, found) for launch in found)
    allowed = most_by_chance(judged)
    figures = {f"launches_{name}": float(count) for name, count in alarms.items()}
    seen = (
        f"{alarms['false']} of {judged} launches called noisy where nothing else saw a cause (up to {allowed}); "
        f"{alarms['caused']} more moved with the clock, {alarms['disturbed']} were disturbed and are not judged"
    )
    if 2 * judged < wanted:
        yield line("noise: silence", ("not-evaluable", f"{seen}; too few are left"), figures, sets)
        return
    yield line("noise: silence", ("pass" if alarms["false"] <= allowed else "fail", seen), figures, sets)
