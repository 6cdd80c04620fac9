"""Modules as files: classes that can be imported go by reference, those of a function or of ``__main__`` by value."""

from __future__ import annotations

import hashlib
import io
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from harness.api import MissingDependency

if TYPE_CHECKING:
    from torch import nn


def write(module: nn.Module, path: Path) -> None:
    """Write a module; equal ones give equal bytes."""
    import torch

    _name_classes(module)
    torch.save(module, path, pickle_module=SimpleNamespace(__name__="cloudpickle", Pickler=_cloudpickle().Pickler))


def read(path: Path) -> nn.Module:
    """Return the module of a file, on the CPU."""
    import torch

    # the whole module is pickled; such files come from the cache alone, never from a user
    module: nn.Module = torch.load(path, map_location="cpu", weights_only=False)
    return module


def copied(module: nn.Module) -> nn.Module:
    """Return a copy by way of a file in memory: ``copy.deepcopy`` refuses what cloudpickle takes."""
    import torch

    stream = io.BytesIO()
    torch.save(module, stream, pickle_module=SimpleNamespace(__name__="cloudpickle", Pickler=_cloudpickle().Pickler))
    stream.seek(0)
    copy: nn.Module = torch.load(stream, weights_only=False)
    return copy


def obstacle(module: nn.Module) -> str | None:
    """Return why a module cannot be written, or ``None`` where it can; no tensor is copied."""
    try:
        _skeleton(module, {})
    except Exception as error:  # noqa: BLE001  what a user's object raises when it is pickled
        return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}".rstrip(
            ": "
        )
    return None


def _cloudpickle() -> Any:
    try:
        import cloudpickle
    except ImportError as error:
        hint = "pip install 'compression-harness[torch]'"
        raise MissingDependency("writing a module needs cloudpickle, which is not installed", hint=hint) from error
    return cloudpickle


def _skeleton(module: nn.Module, local: dict[type, None]) -> bytes:
    """Return a module's pickle without its tensors, and note the classes in it that go by value."""
    import torch

    pickler: Any = _cloudpickle().Pickler

    class Skeleton(pickler):
        def persistent_id(self, value: object) -> object:
            return "tensor" if isinstance(value, torch.Tensor) else None

        def reducer_override(self, value: Any) -> Any:
            if isinstance(value, type) and not _importable(value):
                local.setdefault(value)
                _tracked(value, f"{len(local):032x}")
            return super().reducer_override(value)

    stream = io.BytesIO()
    Skeleton(stream, protocol=2).dump(module)
    return stream.getvalue()


def _name_classes(module: nn.Module) -> None:
    """Give classes that go by value names after their content, where cloudpickle would draw random ones."""
    local: dict[type, None] = {}
    digest = hashlib.sha256(_skeleton(module, local)).hexdigest()
    for number, kind in enumerate(local):
        _tracked(kind, hashlib.sha256(f"{digest} {number}".encode()).hexdigest()[:32], anew=True)


def _tracked(kind: type, name: str, *, anew: bool = False) -> None:
    from cloudpickle import cloudpickle

    with cloudpickle._DYNAMIC_CLASS_TRACKER_LOCK:
        if anew or kind not in cloudpickle._DYNAMIC_CLASS_TRACKER_BY_CLASS:
            cloudpickle._DYNAMIC_CLASS_TRACKER_BY_CLASS[kind] = name
            cloudpickle._DYNAMIC_CLASS_TRACKER_BY_ID[name] = kind


def _importable(kind: type) -> bool:
    """Tell whether another process finds this very class by its name."""
    if kind.__module__ == "__main__" or kind.__module__ in _cloudpickle().list_registry_pickle_by_value():
        return False
    found: Any = sys.modules.get(kind.__module__)
    for part in kind.__qualname__.split("."):
        found = getattr(found, part, None)
    return found is kind
