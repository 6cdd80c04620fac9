"""Make an aarch64 Python with ai-edge-litert in a folder, from Debian and PyPI packages, without root.

    python -m harness_tflite.aarch64_setup FOLDER

It needs ``apt-get`` and ``dpkg-deb`` (Debian, Ubuntu) and Debian's archive keyring. FOLDER/python then starts it.
"""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path

SUITE = "trixie"  # its QEMU runs LiteRT; that of bookworm, 7.2, crashes while the interpreter is built
PYTHON = "3.13"
MIRROR = "http://deb.debian.org/debian"  # packages are signed
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
DEBS = (
    f"python{PYTHON}-minimal", f"libpython{PYTHON}-minimal", f"libpython{PYTHON}-stdlib", "libc6", "libgcc-s1",
    "libstdc++6", "zlib1g", "libexpat1", "libssl3t64", "libffi8", "libbz2-1.0", "liblzma5", "libuuid1",
)  # fmt: skip
WHEELS = (
    "ai-edge-litert", "numpy", "flatbuffers", "protobuf", "ml_dtypes", "tqdm", "typing-extensions",
    "backports.strenum",
)  # fmt: skip
TAGS = ("manylinux2014_aarch64", "manylinux_2_27_aarch64", "manylinux_2_28_aarch64", "manylinux_2_31_aarch64")
_MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}


def make(folder: Path) -> Path:
    """Fill a folder and return the script that starts the interpreter; about 170 MB stay.

    Raises:
        SystemExit: A tool is missing, or a download failed; the message says which.
    """
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise SystemExit(f"{tool} is missing: it comes with Debian and Ubuntu")
    if not Path(KEYRING).is_file():
        raise SystemExit(f"{KEYRING} is missing: install the package debian-archive-keyring")
    folder = folder.resolve()
    root, site = folder / "root", folder / "site"
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as name:
        scratch = Path(name)
        _unpack(_debs(scratch / "arm64", "arm64", DEBS), root)
        _merge(root)
        emulator = () if platform.machine() == "aarch64" else (_emulator(scratch, folder), "-L", str(root))
        _wheels(scratch / "wheels", site)
    return _script(folder / "python", (*emulator, str(root / f"usr/bin/python{PYTHON}")), root, site)


def _merge(root: Path) -> None:
    """Make the link that Debian's base system has: programs look for their loader in /lib."""
    if not (root / "lib").exists():
        (root / "lib").symlink_to("usr/lib")


def _emulator(scratch: Path, folder: Path) -> str:
    architecture = _MACHINES.get(platform.machine(), platform.machine())
    _unpack(_debs(scratch / "host", architecture, ["qemu-user"]), scratch / "tools")
    found = shutil.copy2(scratch / "tools/usr/bin/qemu-aarch64", folder / "qemu-aarch64")
    return str(found)


def _debs(folder: Path, architecture: str, names: Sequence[str]) -> list[Path]:
    """Download packages of the suite with an apt of our own, which leaves the host's alone."""
    for name in ("lists/partial", "cache/archives/partial", "debs"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "status").touch()
    (folder / "sources.list").write_text(f"deb [arch={architecture} signed-by={KEYRING}] {MIRROR} {SUITE} main\n")
    settings: Mapping[str, str] = {
        "Dir::State": f"{folder}", "Dir::State::lists": f"{folder}/lists", "Dir::State::status": f"{folder}/status",
        "Dir::Cache": f"{folder}/cache", "Dir::Etc::sourcelist": f"{folder}/sources.list", "Dir::Etc::sourceparts": "-",
        "APT::Architecture": architecture, "APT::Architectures": architecture, "APT::Sandbox::User": "",
    }  # fmt: skip
    options = [f"-o{name}={value}" for name, value in settings.items()]
    _call(["apt-get", "-qq", *options, "update"])
    _call(["apt-get", "-qq", *options, "download", *names], folder / "debs")
    return sorted((folder / "debs").glob("*.deb"))


def _unpack(debs: Sequence[Path], root: Path) -> None:
    root.mkdir(parents=True, exist_ok=True)
    for deb in debs:
        _call(["dpkg-deb", "-x", str(deb), str(root)])


def _wheels(folder: Path, site: Path) -> None:
    """Unpack the aarch64 wheels of the versions that are installed here: the same runtime, other kernels."""
    wanted = [f"{name}=={metadata.version(name)}" for name in WHEELS]
    tags = [part for tag in TAGS for part in ("--platform", tag)]
    abis = [part for abi in (f"cp{PYTHON.replace('.', '')}", "abi3", "none") for part in ("--abi", abi)]
    pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:", "-d", str(folder)]
    _call([*pip, *tags, *abis, "--python-version", PYTHON, *wanted])
    for wheel in sorted(folder.glob("*.whl")):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(site)


def _script(path: Path, command: Sequence[str], root: Path, site: Path) -> Path:
    words = " ".join(f"'{word}'" for word in command)
    path.write_text(f"#!/bin/sh\nPYTHONHOME='{root}/usr' PYTHONPATH='{site}' exec {words} \"$@\"\n")
    path.chmod(0o755)
    return path


def _call(command: Sequence[str], folder: Path | None = None) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise SystemExit(f"{' '.join(command[:2])} … failed: {said[-1] if said else f'status {done.returncode}'}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit("usage: python -m harness_tflite.aarch64_setup FOLDER")
    sys.stdout.write(f"{make(Path(sys.argv[1]))}\n")
