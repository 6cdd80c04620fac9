"""The pack file (.hpk): a zip of stored members with a manifest of their hashes, read without trust."""

from __future__ import annotations

import hashlib
import shutil
import stat
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from harness import codec
from harness.build.data import DataInfo
from harness.build.reference import Reference
from harness.errors import BadModel, HarnessError, RecordError
from harness.plan import Request
from harness.types import Artifact, Model

if TYPE_CHECKING:
    from collections.abc import Iterator

SCHEMA = 1
T = TypeVar("T")
Info = TypeVar("Info")
MANIFEST = "manifest.json"
INFO = "pack.json"
_CHUNK = 1 << 20
_MAX_JSON = 64 << 20
_PICKLE_PROTOCOLS = range(2, 6)


@dataclass(frozen=True)
class PackedCell:
    """One cell's share of a pack: names of its elements.

    Attributes:
        seconds: Stage -> what its steps took where they were built.
        lowered: What the key of lowering was made from, to see whether this host would lower otherwise.
        reference: Element of the reference outputs; empty where there are none.
        unreferenced: Then, why.
    """

    data: str
    model: str
    artifact: str
    seconds: Mapping[str, float]
    lowered: Any
    reference: str = ""
    unreferenced: str = "the pack holds no reference outputs"


@dataclass(frozen=True)
class PackInfo:
    """What a pack holds.

    Attributes:
        request: What the packed run was asked for.
        cells: By cell_id.
        data, models, artifacts, references: Element -> its value, with paths relative to the element's folder.
    """

    schema: int
    harness: str
    request: Request
    cells: Mapping[str, PackedCell] = field(default_factory=dict)
    data: Mapping[str, DataInfo] = field(default_factory=dict)
    models: Mapping[str, Model] = field(default_factory=dict)
    artifacts: Mapping[str, Artifact] = field(default_factory=dict)
    references: Mapping[str, Reference] = field(default_factory=dict)


def is_pickle(path: Path) -> bool:
    """Tell whether reading a file as its format would run what is in it: a pickle, bare or inside a torch archive."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith(".pkl") for name in archive.namelist())
    with path.open("rb") as stream:
        start = stream.read(2)
    return len(start) == 2 and start[0] == 0x80 and start[1] in _PICKLE_PROTOCOLS


class Writer:
    """Write members and their hashes; the manifest comes last. Equal members give equal files."""

    def __init__(self, path: Path) -> None:
        self._archive = zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True)
        self._hashes: dict[str, str] = {}

    def add(self, name: str, path: Path) -> None:
        """Add a file, once."""
        if name not in self._hashes:
            self._hashes[name] = codec.file_sha256(path)
            with path.open("rb") as source, self._archive.open(_member(name, path.stat().st_size), "w") as target:
                shutil.copyfileobj(source, target, _CHUNK)

    def add_bytes(self, name: str, raw: bytes) -> None:
        """Add what is at hand."""
        self._hashes[name] = hashlib.sha256(raw).hexdigest()
        self._archive.writestr(_member(name), raw)

    def add_json(self, name: str, value: object) -> None:
        """Add a value."""
        self.add_bytes(name, codec.dumps(value, indent=1))

    def close(self) -> None:
        """Write the manifest and end the file."""
        self._archive.writestr(_member(MANIFEST), codec.dumps(self._hashes, indent=1))
        self._archive.close()


def _member(name: str, size: int = 0) -> zipfile.ZipInfo:
    """Return a member's head without this moment or this machine in it."""
    found = zipfile.ZipInfo(name)  # of 1980-01-01
    found.create_system, found.external_attr, found.file_size = 3, (stat.S_IFREG | 0o644) << 16, size
    return found


class Container(Generic[Info]):
    """A file whose list of members was checked; each member's hash is checked where it is read.

    Attributes:
        kind: What such a file is called.
        info_name: The member that says what it holds.
        error: What a refusal raises.
        info: What ``info_name`` holds.
    """

    kind: ClassVar[str]
    info_name: ClassVar[str]
    info_class: type[Info]
    schema: ClassVar[int]
    error: ClassVar[type[HarnessError]]
    info: Info

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._archive = zipfile.ZipFile(path)
        except (OSError, zipfile.BadZipFile) as error:
            raise self.error(f"{path} is not a {self.kind}: {error}") from error
        try:
            self._hashes = self._read_manifest()
            self.info = self._read_info()
        except BaseException:
            self._archive.close()
            raise

    def close(self) -> None:
        """Close the file."""
        self._archive.close()

    def _bad(self, why: str) -> HarnessError:
        return self.error(f"{self.path} is refused: {why}", hint=f"copy it again, or make the {self.kind} again")

    def _read_manifest(self) -> dict[str, str]:
        infos = {item.filename: item for item in self._archive.infolist()}
        if MANIFEST not in infos or self.info_name not in infos:
            raise self.error(f"{self.path} is not a {self.kind}: it has no {MANIFEST} or no {self.info_name}")
        if len(infos) != len(self._archive.infolist()):
            raise self._bad("two members have one name")
        for name, item in infos.items():
            self._check_member(name, item)
        if sum(item.file_size for item in infos.values()) > self.path.stat().st_size:
            raise self._bad("its members are larger than itself")
        hashes = self._json(MANIFEST, dict[str, str])
        if set(hashes) != set(infos) - {MANIFEST}:
            odd = sorted(set(hashes) ^ (set(infos) - {MANIFEST}))
            raise self._bad(f"its members are not those that its manifest lists ({odd[0]})")
        return hashes

    def _check_member(self, name: str, item: zipfile.ZipInfo) -> None:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name or str(path) != name:
            raise self._bad(f"the name {name!r} leads out of it")
        if stat.S_ISLNK(item.external_attr >> 16) or item.is_dir():
            raise self._bad(f"{name} is not a plain file")
        if item.compress_type != zipfile.ZIP_STORED:
            raise self._bad(f"{name} is compressed; members are stored")

    def _json(self, name: str, kind: type[T]) -> T:
        if self._archive.getinfo(name).file_size > _MAX_JSON:
            raise self._bad(f"{name} is too big")
        try:
            return codec.loads(kind, self._archive.read(name), where=f"{self.path}:{name}")
        except (RecordError, zipfile.BadZipFile, OSError, EOFError) as error:
            raise self._bad(str(error)) from error

    def _read_info(self) -> Info:
        schema = self._json(self.info_name, dict[str, Any]).get("schema")
        if schema != self.schema:
            raise self._bad(f"it is of schema {schema}, this harness reads {self.schema}")
        for _chunk in self._chunks(self.info_name):
            pass  # for its hash
        return self._json(self.info_name, self.info_class)

    def names(self, folder: str) -> list[str]:
        """Return the members under a folder."""
        return sorted(name for name in self._hashes if name.startswith(f"{folder}/"))

    def sha256(self, folder: str) -> str:
        """Return a hash over a folder's members."""
        return codec.sha256({name: self._hashes[name] for name in self.names(folder)})

    def _chunks(self, name: str) -> Iterator[bytes]:
        digest = hashlib.sha256()
        try:
            with self._archive.open(name) as stream:
                while chunk := stream.read(_CHUNK):
                    digest.update(chunk)
                    yield chunk
        except (zipfile.BadZipFile, OSError, EOFError) as error:
            raise self._bad(f"{name}: {error}") from error
        if digest.hexdigest() != self._hashes[name]:
            raise self._bad(f"{name} is not what was packed (its hash differs)")

    def read(self, name: str) -> bytes:
        """Return a member.

        Raises:
            HarnessError: It is not there, or its hash differs.
        """
        if name not in self._hashes:
            raise self._bad(f"it has no {name}")
        return b"".join(self._chunks(name))

    def digest(self, name: str) -> str:
        """Read a member and return its hash.

        Raises:
            HarnessError: It is not the one that the manifest lists.
        """
        for _chunk in self._chunks(name):
            pass
        return self._hashes[name]

    def verify(self, folder: str) -> None:
        """Read a folder's members and check their hashes."""
        for name in self.names(folder):
            for _chunk in self._chunks(name):
                pass

    def extract(self, folder: str, out: Path) -> None:
        """Write a folder's members under ``out``.

        Raises:
            HarnessError: A hash differs, or a member is a pickle.
        """
        for name in self.names(folder):
            path = out / PurePosixPath(name).relative_to(folder)
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as stream:
                self._copy(name, stream)
            if is_pickle(path):
                raise self._bad(f"{name} holds a pickle, which could run anything")

    def _copy(self, name: str, stream: IO[bytes]) -> None:
        for chunk in self._chunks(name):
            stream.write(chunk)


class Reader(Container[PackInfo]):
    """A pack.

    Raises:
        BadModel: Not a pack, a pack of another schema, or one with members that its manifest does not list.
    """

    kind = "pack"
    info_name = INFO
    info_class = PackInfo
    schema = SCHEMA
    error = BadModel
