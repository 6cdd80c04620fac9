"""An artifact counts as built when its target opened it and ran one item."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from harness.build.data import DataInfo
    from harness.specs import TargetSpec
    from harness.types import Artifact, Options, TensorSpec


class Unopened(Exception):
    """What was built cannot be opened or run; its cause says why."""


def run_once(
    spec: TargetSpec[Any],
    artifact: Artifact,
    params: Any,
    options: Options,
    items: Path | None,
    inputs: Mapping[str, TensorSpec],
    *,
    memory_limit_bytes: int | None = None,
) -> None:
    """Open an artifact as for its outputs, and run one call.

    Args:
        spec: The target that made it.
        artifact: What ``lower`` gave.
        params: Of the target.
        options: Of the step; a model with a fixed batch is opened with its own.
        items: Folder of evaluation items; ``None`` where the workload has none: then it is opened only.
        inputs: Of the model.
        memory_limit_bytes: What it may take beside what this process has; ``None`` for no limit.

    Raises:
        Unopened: The target raised; nothing of it is published.
    """
    from harness.feeds import with_roles
    from harness.measure import chain, isolate  # numpy, which only a builder that runs a model imports
    from harness.measure import inputs as feeds

    try:
        with isolate.more_memory(memory_limit_bytes):
            batch = feeds.batch_of(inputs, options.batch)
            session = chain.opened(spec, artifact, params, replace(options, batch=batch), "accuracy")
            try:
                if items is not None:
                    specs = with_roles(session.inputs, inputs)
                    own = feeds.batch_of(specs, batch)
                    session.run(feeds.rotation(items, specs, batch=own, distinct=1, seed=0)[0])
            finally:
                session.close()
    except BaseException as error:  # in a builder no Ctrl-C comes from the user
        raise Unopened from error


def items_of(folder: Path, info: DataInfo) -> Path | None:
    """Return the folder of a split that has items, the test split first: one of them is run, none is judged."""
    for name in ("test", "selection", "calibration", "train"):
        if name in info.splits and info.splits[name].items:
            return folder / name
    return None
