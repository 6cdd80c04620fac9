"""Models in parts that run one after another: each part is exported and lowered like a model of its own."""

from __future__ import annotations

import dataclasses
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from harness.codec import content_sha256
from harness.errors import PluginError, Unsupported
from harness.specs import Job, Split
from harness.types import Artifact, Model

if TYPE_CHECKING:
    from pathlib import Path

    from harness.types import SplitName

FOLDER = "parts"


def export(one: Callable[[Model, Job], Any], model: Model, job: Job) -> Any:
    """Export a model, or each of its parts into a folder of its own.

    Args:
        one: Exports one model.
        model: In parts or not.
        job: Of the step.

    Raises:
        PluginError: A part became no model.
    """
    if not model.parts:
        return one(model, job)
    made = tuple(_each(one, model, job, Model))
    return dataclasses.replace(model, format=made[0].format, path=job.out / FOLDER, parts=made)


def lower(one: Callable[[Model, Job], Any], model: Model, job: Job) -> Any:
    """Lower a model, or each of its parts; their sizes add up.

    Args:
        one: Lowers one model.
        model: In parts or not.
        job: Of the step.

    Raises:
        PluginError: A part became no artifact.
    """
    if not model.parts:
        return one(model, job)
    asked = tuple(dataclasses.replace(part, precision=model.precision, flags=model.flags) for part in model.parts)
    lowered = _each(one, dataclasses.replace(model, parts=asked), job, Artifact)
    made = tuple(_inside(part, job.out / FOLDER / str(at)) for at, part in enumerate(lowered))
    said = {key: list(dict.fromkeys(getattr(part, key) for part in made)) for key in ("realised", "how", "stored_as")}
    return Artifact(
        path=job.out / FOLDER,
        format=made[0].format,
        sha256=content_sha256(job.out / FOLDER),
        realised=" + ".join(said["realised"]),
        how=f"{len(made)} parts, each: {'; '.join(said['how'])}",
        artifact_bytes=sum(part.artifact_bytes for part in made),
        stored_bytes=sum(part.stored_bytes for part in made),
        stored_as=", ".join(filter(None, said["stored_as"])),
        flags=tuple(dict.fromkeys(flag for part in made for flag in part.flags)),
        weight_bytes=_summed(part.weight_bytes for part in made),
        parts=made,
    )


def _each(one: Callable[[Model, Job], Any], model: Model, job: Job, kind: type[Any]) -> list[Any]:
    found = []
    for at, part in enumerate(model.parts):
        out = job.out / FOLDER / str(at)
        out.mkdir(parents=True)
        own = dataclasses.replace(job, out=out, data=Feeds(part.feeds))
        made = one(part, own)
        if not isinstance(made, kind):
            raise PluginError(f"part {at + 1} of the model became {type(made).__name__} where {kind.__name__} is due")
        found.append(made)
    return found


def _summed(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    found: Counter[str] = Counter()
    for each in counts:
        found.update(each)
    return dict(found)


def _inside(artifact: Artifact, folder: Path) -> Artifact:
    """Copy an artifact that is its model's own file, so that the folder of the parts is the whole."""
    if artifact.path.resolve().is_relative_to(folder.resolve()):
        return artifact
    copied = folder / artifact.path.name
    shutil.copy2(artifact.path, copied)
    return dataclasses.replace(artifact, path=copied)


class Feeds:
    """The data of a part: what reaches it of the calibration split."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def split(self, name: SplitName) -> Split:
        """Return the calibration items, memory-mapped and read-only.

        Raises:
            Unsupported: Another split is asked for.
        """
        import numpy as np

        if name != "calibration":
            raise Unsupported(f"a part of a split network has no {name} split")
        files = sorted(self._folder.glob("*.npy")) if self._folder else []
        return Split({unquote(file.stem): np.load(file, mmap_mode="r", allow_pickle=False) for file in files}, None)
