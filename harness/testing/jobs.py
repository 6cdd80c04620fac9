"""The jobs that the kit gives: as in a build, and remembering what was asked of them."""

from __future__ import annotations

import logging
import random
from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import codec
from harness.build.data import GuardedData, read_split
from harness.build.job import Hardware, Workload
from harness.codec import content_sha256
from harness.specs import Job
from harness.testing.observed import Material
from harness.types import Capabilities

if TYPE_CHECKING:
    from harness.build.run import Plugins
    from harness.specs import Arrays, Split
    from harness.types import SplitName


class WatchedData:
    """A job's data that remembers whether the test split was asked for."""

    def __init__(self, data: GuardedData) -> None:
        self._data = data
        self.test_asked = False

    def split(self, name: SplitName) -> Split:
        """Return a split; the test split is refused as it is in a build."""
        self.test_asked |= name == "test"
        return self._data.split(name)


class WatchedHardware(Hardware):
    """A job's hardware that remembers what was asked for."""

    def __init__(self, owner: str, fields: Mapping[str, Any]) -> None:
        super().__init__(owner, fields)
        self.asked: list[str] = []

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("_"):
            self.asked.append(name)
        return super().__getattr__(name)


def folder_state(path: Path) -> str:
    """Hash a file with its neighbours, so that a change of the incoming model is seen."""
    return content_sha256(path.parent)


def seed_all(seed: int) -> None:
    """Seed Python's and NumPy's generators."""
    import numpy as np

    random.seed(seed)
    np.random.seed(seed)  # as the build plane does before each step


def make_job(material: Material, plugins: Plugins, out: Path, seed: int, hardware: Any) -> tuple[Job, WatchedData]:
    """Return the job that a build would give, in a new folder."""
    out.mkdir(parents=True)
    workload = Workload.of(plugins.offer("workload", material.workload).spec, material.workload.params)
    data = WatchedData(GuardedData(material.data, material.info))
    reference = material.models.get(workload.produces)
    job = Job(
        out,
        seed,
        1,
        data,
        workload,
        lambda _share, _text: None,
        logging.getLogger("harness.testing"),
        hardware,
        reference,
    )
    return job, data


def items_of(material: Material) -> Arrays:
    """Return the test items, as the sample's own functions take them."""
    return read_split(material.data / "test", material.info.splits["test"], material.info.inputs).inputs


def save_arrays(folder: Path, arrays: Arrays) -> Path:
    """Write an .npy file per array."""
    import numpy as np

    folder.mkdir(parents=True, exist_ok=True)
    for index, (name, array) in enumerate(arrays.items()):
        np.save(folder / f"{index:02d}-{name.replace('/', '_')}.npy", np.asarray(array), allow_pickle=False)
    return folder


def hardware_fields(names: Iterable[str]) -> dict[str, Any]:
    """Return the declared fields of a plausible host, as JSON."""
    host = Capabilities("kit", {"float32": "kit", "int8": "kit"}, channel_multiple=4)
    known = {field.name for field in fields(Capabilities)}
    return {name: codec.to_data(getattr(host, name)) for name in names if name in known}
