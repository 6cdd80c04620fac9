"""Speak to a phone through adb: push, run, pull, and what it says of itself."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from harness.api import HarnessError, MissingDependency

TIMEOUT_S = 300.0
FOLDER = "/data/local/tmp/harness"  # the one place that adb's user may write to and run programs from
HINT = "'adb devices' lists what is connected; docs/mobile.md says how to prepare a phone"
# What tells one device from another and stays the same: parts, system and its build.
PROPERTIES = (
    "ro.product.manufacturer", "ro.product.model", "ro.product.device", "ro.soc.manufacturer", "ro.soc.model",
    "ro.board.platform", "ro.hardware", "ro.product.cpu.abi", "ro.build.version.release", "ro.build.version.sdk",
    "ro.build.fingerprint",
)  # fmt: skip
_PROPERTY = re.compile(r"^\[(.+?)\]: \[(.*)\]$", re.MULTILINE)


class Phone:
    """One device.

    Args:
        serial: As ``adb devices`` lists it.

    Raises:
        MissingDependency: There is no adb.
    """

    def __init__(self, serial: str) -> None:
        adb = shutil.which("adb")
        if adb is None:
            raise MissingDependency("adb is not installed", hint="apt install adb, or Android's SDK platform tools")
        self.serial = serial
        self._adb = adb

    def shell(self, *words: str) -> str:
        """Run a program on the device and return what it printed to stdout and stderr.

        Raises:
            HarnessError: It ended with another status than 0, or the device is not there.
        """
        command = " ".join(shlex.quote(word) for word in words)
        return self._call(["shell", f"{command} 2>&1"], f"{words[0]} on {self.serial}")

    def push(self, file: Path, to: str) -> None:
        """Copy a file to the device."""
        self._call(["push", str(file), to], f"pushing {file.name} to {self.serial}")

    def pull(self, path: str, to: Path) -> None:
        """Copy a file from the device."""
        self._call(["pull", path, str(to)], f"pulling {path} from {self.serial}")

    def holds(self, path: str) -> bool:
        """Tell whether a file is on the device."""
        return self.shell("sh", "-c", f"test -f {shlex.quote(path)} && echo yes || echo no").strip() == "yes"

    def properties(self) -> Mapping[str, str]:
        """Return what the device says of its parts and its system; empty ones are left out."""
        found = dict(_PROPERTY.findall(self.shell("getprop").replace("\r", "")))
        kept = {name: found[name] for name in PROPERTIES if found.get(name)}
        return {**kept, "kernel": self.shell("uname", "-r").strip()}

    def require(self) -> None:
        """Refuse a device that is not there or does not let us in.

        Raises:
            HarnessError: With what adb says of it.
        """
        state = self._call(["get-state"], f"reaching {self.serial}").strip()
        if state != "device":
            raise HarnessError(f"the device {self.serial} is {state!r}, not ready", hint=HINT)

    def _call(self, arguments: Sequence[str], what: str) -> str:
        command = [self._adb, "-s", self.serial, *arguments]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, errors="replace", timeout=TIMEOUT_S, check=False
            )
        except subprocess.TimeoutExpired:
            raise HarnessError(f"{what} took longer than {TIMEOUT_S:g} s", hint=HINT) from None
        if done.returncode != 0:
            said = [line.strip() for line in (done.stderr + done.stdout).splitlines() if line.strip()]
            # A server that starts says so before it says what is wrong.
            said = [line for line in said if not line.startswith("* daemon")]
            last = said[-1] if said else f"status {done.returncode}"
            raise HarnessError(f"{what} failed: {last}", hint=HINT)
        return done.stdout
