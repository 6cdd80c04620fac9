"""The artifacts that are measured: each cell opens its own copy, so that no session reaches what others run."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Generator, Mapping
from typing import TYPE_CHECKING

from harness.build.given import Given
from harness.errors import PluginError
from harness.types import Failure

if TYPE_CHECKING:
    from harness.build.cache import Cache
    from harness.build.plane import Built

log = logging.getLogger("harness")


@contextlib.contextmanager
def own_artifacts(
    results: Mapping[str, Built | Failure], cache: Cache
) -> Generator[Mapping[str, Built | Failure], None, None]:
    """Give each built cell an artifact that no other cell is measured on, while the context lasts.

    A session may write beside its file, or into it; a file that cannot be copied for want of room is shared.
    """
    with cache.staging() as folder:
        yield {
            cell_id: item if isinstance(item, Failure) else _with_own(item, Given(cache, folder / cell_id, cell_id))
            for cell_id, item in results.items()
        }


def _with_own(built: Built, given: Given) -> Built | Failure:
    try:
        artifact = given.own(built.artifact)
    except PluginError as error:
        return Failure("failed", "lower", "harness", error.message)
    except OSError as error:
        log.warning("%s is measured where it lies, as it cannot be copied: %s", built.artifact.path, error)
        return built
    return dataclasses.replace(built, artifact=artifact)
