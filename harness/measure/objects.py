"""Which shared objects this process has mapped, and which build of each: what a package's version does not tell."""

from __future__ import annotations

import os
import struct
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from harness.types import Loaded, SharedObject

MAPS = Path("/proc/self/maps")
SYSTEM = ("/bin", "/lib", "/lib32", "/lib64", "/libx32", "/usr/bin", "/usr/lib", "/usr/lib32", "/usr/lib64")
NO_BUILD_ID = "its linker wrote no build-id"
_PT_NOTE, _NT_GNU_BUILD_ID = 4, 3
_MOST_NOTE_BYTES = 65_536


def loaded(maps: Path = MAPS, imports: Sequence[str] | None = None) -> Loaded:
    """Return the files of machine code that are mapped, less those of the interpreter and of the system's folders.

    Args:
        maps: As ``/proc/<pid>/maps``.
        imports: Folders that Python imports from; ``None`` for this process's.
    """
    try:
        lines = maps.read_text(errors="surrogateescape").splitlines()
    except OSError as error:
        return Loaded(reason=f"not available: {maps}: {error.strerror}")
    folders = [os.path.realpath(folder) for folder in (sys.path if imports is None else imports) if folder]
    found = (_object(path, folders) for path in sorted(set(_executable(lines))))
    return Loaded(tuple(sorted((item for item in found if item is not None), key=lambda item: item.path)))


def _executable(lines: Sequence[str]) -> Iterator[str]:
    """Yield the paths of mappings that hold code; memory without a file has none."""
    for line in lines:
        fields = line.split(maxsplit=5)
        if len(fields) == 6 and "x" in fields[1] and fields[5].startswith("/") and not fields[5].startswith("/memfd:"):
            yield fields[5]


def _object(mapped: str, folders: Sequence[str]) -> SharedObject | None:
    path = mapped.removesuffix(" (deleted)")
    shown = _shown(path, folders)
    if shown is None:
        return None
    if path != mapped:
        return SharedObject(shown, None, None, "its file was deleted or replaced after it was loaded")
    try:
        with Path(path).open("rb") as file:
            return _read(file, shown)
    except OSError as error:
        return SharedObject(shown, None, None, f"its file cannot be read: {error.strerror}")


def _read(file: BinaryIO, shown: str) -> SharedObject | None:
    if file.read(4) != b"\x7fELF":
        return None
    size = os.fstat(file.fileno()).st_size
    try:
        build_id = _build_id(file)
    except (struct.error, ValueError):
        return SharedObject(shown, size, None, "its ELF header is cut short, or of a kind that is not known")
    return SharedObject(shown, size, build_id, "" if build_id else NO_BUILD_ID)


def _shown(path: str, folders: Sequence[str]) -> str | None:
    """Return how a file is named without its place on this machine; ``None`` for the interpreter's and the system's."""
    if path == os.path.realpath(sys.executable) or _in_library(path):
        return None
    above = [folder for folder in folders if path.startswith(f"{folder}/")]
    if above:
        return os.path.relpath(path, max(above, key=len))
    return None if path.startswith(tuple(f"{folder}/" for folder in SYSTEM)) else Path(path).name


def _in_library(path: str) -> bool:
    """Tell whether a file is the interpreter's own: in the standard library, not in a folder of packages inside it."""
    own = {os.path.realpath(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib")}
    rest = [path[len(folder) :] for folder in own if path.startswith(f"{folder}/")]
    return bool(rest) and not any(part.startswith(("/site-packages/", "/dist-packages/")) for part in rest)


def _build_id(file: BinaryIO) -> str | None:
    """Return the build-id of an ELF file in hexadecimal, from its notes; ``None`` where it has none.

    Raises:
        struct.error: The file ends before its headers do.
        ValueError: The class or byte order is none that ELF has.
    """
    file.seek(0)
    head = file.read(64)
    wide, order = {1: False, 2: True}.get(head[4]), {1: "<", 2: ">"}.get(head[5])
    if wide is None or order is None:
        raise ValueError("no class or byte order of ELF")
    (table,) = struct.unpack_from(f"{order}{'Q' if wide else 'I'}", head, 32 if wide else 28)
    size, count = struct.unpack_from(f"{order}HH", head, 54 if wide else 42)
    for number in range(count):
        file.seek(table + number * size)
        entry = file.read(size)
        if struct.unpack_from(f"{order}I", entry)[0] != _PT_NOTE:
            continue
        form, places = ("Q", (8, 32, 48)) if wide else ("I", (4, 16, 28))
        begin, length, align = (struct.unpack_from(f"{order}{form}", entry, place)[0] for place in places)
        file.seek(begin)
        found = _note(file.read(min(length, _MOST_NOTE_BYTES)), order, 8 if align == 8 else 4)
        if found is not None:
            return found
    return None


def _note(notes: bytes, order: str, align: int) -> str | None:
    """Return the build-id among notes: name size, text size, type, name, text, each padded."""
    at = 0
    while at + 12 <= len(notes):
        name_bytes, text_bytes, kind = struct.unpack_from(f"{order}III", notes, at)
        begin = at + -(-(12 + name_bytes) // align) * align
        if kind == _NT_GNU_BUILD_ID and notes[at + 12 : at + 12 + name_bytes] == b"GNU\0":
            return notes[begin : begin + text_bytes].hex()
        at = begin + -(-text_bytes // align) * align
    return None
