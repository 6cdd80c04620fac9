"""Find the object that ``FILE_OR_MODULE:NAME`` stands for, however the user's folder is laid out."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.util
import sys
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

from harness.api import BadModel

FORM = "FILE_OR_MODULE:FACTORY, such as models.py:make or package.models:make"


@dataclass(frozen=True)
class Found:
    """What a text stands for.

    Attributes:
        value: The object.
        folders: Of the user's code, the one that its package lies in first; empty for an installed module.
    """

    value: Any
    folders: tuple[Path, ...]

    def modules(self) -> dict[str, Path]:
        """Return the modules that were imported from the user's folders so far: name -> file."""
        found = {}
        for name, module in list(sys.modules.items()):
            file = Path(getattr(module, "__file__", None) or "")
            if file.suffix == ".py" and file.is_absolute() and not {"site-packages", "dist-packages"} & set(file.parts):
                resolved = file.resolve()
                if resolved.is_file() and any(resolved.is_relative_to(folder) for folder in self.folders):
                    found[name] = resolved
        return found

    def sources(self) -> list[Path]:
        """Return their files in order."""
        return sorted(set(self.modules().values()))


@contextlib.contextmanager
def imported(target: str) -> Iterator[Found]:
    """Import a module or file, give its attribute, and let its code import what lies beside it meanwhile.

    A module is looked for in the working folder first. Meanwhile the user's folders come first on ``sys.path``, as if
    the file were run; then they come last, so that a file named like a runtime does not stand in for it. Workers
    import from where this process does; what they would not find by its name there travels by value.

    Raises:
        BadModel: There is no such module, file or attribute, or importing it fails; one sentence says which.
    """
    where, _, name = target.rpartition(":")
    if not where or not name:
        raise BadModel(f"factory {target!r} is not of the form {FORM}")
    file, bases = _file(where, target)
    before = list(sys.path)
    try:
        value: Any = _installed(where, target) if file is None else _from_file(file, bases, target)
        for part in name.split("."):
            value = getattr(value, part, None)
        if value is None:
            raise BadModel(f"factory {target!r}: module {where} has no function {name!r}")
        found = Found(value, tuple(folder.resolve() for folder in bases))
        yield found
    finally:
        ours = [text for text in sys.path if text not in before]
        sys.path[:] = [*(text for text in sys.path if text not in ours), *ours]
    _by_value(found)


def _by_value(found: Found) -> None:
    """Let the classes of the user's modules travel by value where their names mean other modules to a worker."""
    import cloudpickle

    for name, file in found.modules().items():
        spec = PathFinder.find_spec(name.partition(".")[0])
        places = [spec.origin, *(spec.submodule_search_locations or ())] if spec else []
        if not any(place and file.is_relative_to(_home(Path(place))) for place in places):
            cloudpickle.register_pickle_by_value(sys.modules[name])


def _home(place: Path) -> Path:
    """Return the folder of a package by its first file; a module's own file else."""
    return (place.parent if place.name == "__init__.py" else place).resolve()


def _file(where: str, target: str) -> tuple[Path | None, list[Path]]:
    """Return the file that is meant, and the folders below which its dotted name may begin, the likeliest first.

    There is no file for a module that does not lie in the working folder.
    """
    if where.endswith(".py") or "/" in where or "\\" in where:
        path = Path(where).resolve()
        path = path / "__init__.py" if path.is_dir() else path
        if not path.is_file():
            raise BadModel(f"factory {target!r}: there is no file {path}", hint=f"give {FORM}")
        root = _root(path)
        return path, [root, root.parent]
    base = Path.cwd().joinpath(*where.split("."))
    found = next((path for path in (base.with_name(f"{base.name}.py"), base / "__init__.py") if path.is_file()), None)
    return found, [Path.cwd()] if found else []


def _root(file: Path) -> Path:
    """Return the folder that the outermost package of a file lies in, else the file's own folder."""
    folder = file.parent
    while (folder / "__init__.py").is_file() and folder.name.isidentifier():
        folder = folder.parent
    return folder


def _installed(where: str, target: str) -> ModuleType:
    try:
        return importlib.import_module(where)
    except (Exception, SystemExit) as error:
        hint = f"give {FORM}; a module is looked for in {Path.cwd()} first"
        raise BadModel(f"factory {target!r} cannot be imported: {reason(error)}", hint=hint) from error


def _from_file(file: Path, bases: list[Path], target: str) -> ModuleType:
    """Import a file; where an import in it fails, its own folder is looked in too, and then a wider package."""
    problem: BaseException | None = None
    for base, folders in ((bases[0], bases[:1]), (bases[0], [bases[0], file.parent]), (bases[-1], [*bases[::-1]])):
        for folder in reversed(folders):
            _first(folder)
        try:
            return _module(file, base)
        except ImportError as error:
            problem = problem or error
        except (Exception, SystemExit) as error:  # noqa: BLE001  the user's code may raise anything
            problem = error
            break
    raise BadModel(f"factory {target!r} cannot be imported: {reason(problem)}") from problem


def _first(folder: Path) -> None:
    text = str(folder)
    if text in sys.path:
        sys.path.remove(text)
    sys.path.insert(0, text)


def _module(file: Path, base: Path) -> ModuleType:
    """Import a file under its dotted name below a folder; where that name means another file, under one of its own."""
    parts = list(file.relative_to(base).with_suffix("").parts)
    parts = parts[:-1] if parts[-1] == "__init__" else parts
    if parts and all(part.isidentifier() for part in parts) and not (len(parts) == 1 and _taken(parts[0], base)):
        module = importlib.import_module(".".join(parts))
        if module.__file__ and Path(module.__file__).resolve() == file.resolve():
            return module
    return _alone(file)


def _taken(name: str, base: Path) -> bool:
    """Tell whether a name is that of an installed package, which a runtime may yet import in this process."""
    others = [folder for folder in sys.path if Path(folder).resolve() != base.resolve()]
    return name in sys.stdlib_module_names or PathFinder.find_spec(name, others) is not None


def _alone(file: Path) -> ModuleType:
    """Import a file under a name that nothing else has."""
    name = f"own_{hashlib.sha256(str(file.resolve()).encode()).hexdigest()[:12]}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, file)
        if spec is None or spec.loader is None:
            raise ImportError(f"{file} is no Python file")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
    return sys.modules[name]


def reason(error: BaseException | None) -> str:
    """Return what an error of the user's code says, and the line of theirs that raised it."""
    text = " ".join(str(error).split())[:300]
    told = f"{type(error).__name__}: {text}" if text else type(error).__name__
    frames = traceback.extract_tb(error.__traceback__ if error else None)
    own = [frame for frame in frames if "site-packages" not in frame.filename and not frame.filename.startswith("<")]
    own = [frame for frame in own if Path(frame.filename).parent != Path(__file__).parent]
    return f"{told} ({own[-1].filename}, line {own[-1].lineno})" if own else told
