"""Run the cells of a block on corrupted copies of its test images, one shard of copies at a time."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.bench.blocks import Block
from harness.bench.oracle import load_outputs
from harness.bench.quality import evaluation_batch, load_labels, refuse_infinite
from harness.bench.records import Context
from harness.build import Built
from harness.build.job import Workload
from harness.explain import first_line
from harness.faults import called
from harness.measure import Member, run_untimed
from harness.plan import PlannedCell, Request
from harness.plugins import Registry
from harness.stats.robustness import robustness
from harness.store import RunStore
from harness.store.layout import extra_scores
from harness.types import Failure, Robustness

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from harness.bench.corruptions import Scale

    Array = NDArray[Any]

FEW = ("gaussian-noise", "defocus-blur", "brightness", "jpeg")
SHARD_BYTES = 256 * 2**20  # of corrupted copies that lie on disk at once
CORRUPTED = "corrupted"  # name of the per-item statistics in the store


@dataclass(frozen=True)
class Extent:
    """How much of it a profile runs; ``names`` empty means every corruption."""

    names: tuple[str, ...]
    severities: tuple[int, ...]
    items: int


EXTENTS = {
    "quick": Extent(FEW, (3,), 500),
    "standard": Extent(FEW, (3,), 2000),
    "publish": Extent((), (1, 2, 3, 4, 5), 2000),
}


@dataclass(frozen=True)
class RobustnessPart:
    """The finished robustness of a cell."""

    robustness: Robustness
    seconds: float = 0.0


@dataclass
class Spoiler:
    """Corrupts the test images of a block's workload, and judges what its cells make of them."""

    registry: Registry
    store: RunStore
    context: Context
    request: Request
    scratch: Path
    member: Callable[[PlannedCell], Member]

    def block(
        self, block: Block, cells: Sequence[PlannedCell], built: Mapping[str, Built]
    ) -> dict[str, RobustnessPart]:
        """Return the part of each cell; a cell that fails here keeps the rest of its record, and says why.

        Args:
            block: Whose anchor the cells are compared with.
            cells: Those that are due, the anchor first if it is.
            built: What was built of each.
        """
        first = built[cells[0].cell.cell_id]
        why = self._why_not(cells[0], first)
        if why:
            return {planned.cell.cell_id: RobustnessPart(Robustness(reason=why)) for planned in cells}
        begin = time.monotonic()
        names, scores, wrong = self._scores(cells, built, first)
        share = (time.monotonic() - begin) / len(cells)
        found = {}
        for planned in cells:
            cell_id = planned.cell.cell_id
            failed = Robustness(reason=wrong.get(cell_id, ""))
            judged = failed if failed.reason else self._judge(planned, block, names, scores[cell_id], first)
            found[cell_id] = RobustnessPart(judged, share)
        return found

    def _why_not(self, planned: PlannedCell, built: Built) -> str:
        spec = self.registry.workloads[planned.workload.name].spec
        if not self.registry.targets[planned.target.name].spec.ranked:
            return "the target runs no model"
        if not built.evaluation.labelled or spec.score is None or spec.aggregate is None:
            return "the test items have no labels"
        try:
            self._scale(built)
        except ValueError as error:
            return str(error)
        return ""

    def _scale(self, built: Built) -> tuple[Path, Array, Scale]:
        """Return the file of the one input that is an image, its items, and what turns them into images."""
        import numpy as np  # only where something is corrupted

        from harness.bench.corruptions import Scale

        files = [file for file in sorted(built.evaluation.folder.glob("*.npy")) if file.name != "labels.npy"]
        if len(files) != 1:
            raise ValueError(f"the model takes {len(files)} inputs; one image is corrupted")
        items = np.load(files[0], mmap_mode="r", allow_pickle=False)
        return files[0], items, Scale(items[: EXTENTS["publish"].items])

    def _picked(self, built: Built) -> Array:
        return picked_items(built.evaluation.items, self.context.profile, self.request.seed)

    def _shards(self, built: Built) -> Iterator[tuple[tuple[str, ...], Path]]:
        """Yield corruptions and a folder of their copies, one after another; it is gone when the next is asked for."""
        import numpy as np  # as above

        from harness.bench.corruptions import corrupt

        file, items, scale = self._scale(built)
        clean = np.asarray(items[self._picked(built)])
        images, every = scale.images(clean), corruptions_of(EXTENTS[self.context.profile])
        at_once = per_shard(clean.nbytes)
        for start in range(0, len(every), at_once):
            part = every[start : start + at_once]
            folder = self.scratch / "corrupted"
            folder.mkdir(parents=True)
            copies = [scale.items(corrupt(images, name, level, self.request.seed)) for name, level in part]
            np.save(folder / file.name, np.concatenate(copies), allow_pickle=False)
            yield tuple(f"{name}:{level}" for name, level in part), folder
            shutil.rmtree(folder)

    def _scores(
        self, cells: Sequence[PlannedCell], built: Mapping[str, Built], first: Built
    ) -> tuple[tuple[str, ...], dict[str, Array], dict[str, str]]:
        """Return corruptions, scores [corruptions, n, k] by cell, and why a cell has none."""
        import numpy as np  # as above

        labels = load_labels(first)[self._picked(first)]
        names: tuple[str, ...] = ()
        parts: dict[str, list[Array]] = {planned.cell.cell_id: [] for planned in cells}
        wrong: dict[str, str] = {}
        for part, folder in self._shards(first):
            names += part
            for planned in cells:
                cell_id = planned.cell.cell_id
                if cell_id in wrong:
                    continue
                found = self._run(planned, built[cell_id], folder, labels, len(part))
                if isinstance(found, str):
                    wrong[cell_id] = found
                else:
                    parts[cell_id].append(found)
        return names, {key: np.concatenate(found) for key, found in parts.items() if key not in wrong}, wrong

    def _run(self, planned: PlannedCell, built: Built, folder: Path, labels: Array, copies: int) -> Array | str:
        """Return scores [copies, n, k] of one shard, or what went wrong."""
        outputs_to = self.scratch / "corrupted-outputs"
        result = run_untimed(
            replace(self.member(planned), evaluation=folder),
            purposes=frozenset({"accuracy"}),
            batch=evaluation_batch(planned, built, self.context.state(planned)),
            items=None,
            outputs_to=outputs_to,
            timeout_s=self.request.timeout_s,
            memory_limit_bytes=self.request.memory_limit_bytes,
        )
        if isinstance(result, Failure):
            return f"{result.status}: {result.reason}"
        try:
            outputs = load_outputs(result.outputs)
            refuse_infinite(outputs)
            with called():
                return self._score(planned, outputs, labels, copies)
        except Exception as error:  # noqa: BLE001  score is a plugin's; what breaks costs this cell's robustness
            return f"{type(error).__name__}: {first_line(str(error))}"
        finally:
            shutil.rmtree(outputs_to, ignore_errors=True)

    def _score(self, planned: PlannedCell, outputs: Mapping[str, Array], labels: Array, copies: int) -> Array:
        import numpy as np  # as above

        spec = self.registry.workloads[planned.workload.name].spec
        score = Workload.of(spec, planned.workload.params).score
        items = len(labels)
        rows = (slice(copy * items, (copy + 1) * items) for copy in range(copies))
        found = [np.asarray(score({name: array[part] for name, array in outputs.items()}, labels)) for part in rows]
        return np.stack([scores.reshape(items, -1) for scores in found])

    def _judge(
        self, planned: PlannedCell, block: Block, names: Sequence[str], scores: Array, first: Built
    ) -> Robustness:
        """Keep the statistics, and compare them with the anchor's of the same copies."""
        spec = self.registry.workloads[planned.workload.name].spec
        cell_id = planned.cell.cell_id
        self.store.write_scores(extra_scores(cell_id, CORRUPTED), scores.reshape(-1, scores.shape[2]))
        clean = None
        theirs = None
        if block.anchor is not None and not planned.is_anchor:
            flat = self.store.scores(extra_scores(block.anchor, CORRUPTED))
            theirs = None if flat is None or flat.size != scores.size else flat.reshape(scores.shape)
            picked = self._picked(first)
            pair = [self.store.scores(name) for name in (cell_id, block.anchor)]
            known = [found[picked].reshape(len(picked), -1) for found in pair if found is not None]
            clean = (known[0], known[1]) if len(known) == len(pair) else None
        try:
            with called():
                return robustness(
                    names, scores, theirs, clean,
                    aggregate=spec.aggregate or _none, interval=spec.interval, seed=self.request.seed,
                )  # fmt: skip
        except Exception as error:  # noqa: BLE001  aggregate is a plugin's
            return Robustness(reason=f"aggregate raised {type(error).__name__}: {first_line(str(error))}")


def per_shard(clean_bytes: int) -> int:
    """Return how many copies of so many bytes of test images lie on disk at once."""
    return max(1, SHARD_BYTES // max(1, clean_bytes))


def corruptions_of(extent: Extent) -> list[tuple[str, int]]:
    """Return corruptions and severities in the order of their names, in which records keep them too."""
    from harness.bench.corruptions import CORRUPTIONS  # as above

    every = [(name, level) for name in extent.names or CORRUPTIONS for level in extent.severities]
    return sorted(every, key=lambda pair: f"{pair[0]}:{pair[1]}")


def picked_items(count: int, profile: str, seed: int) -> Array:
    """Return which of ``count`` test items are corrupted: a seeded choice, in their order."""
    import numpy as np  # as above

    chance = np.random.default_rng(seed)
    picked: Array = np.sort(chance.choice(count, min(count, EXTENTS[profile].items), replace=False))
    return picked


def _none(_scores: Array) -> float:
    raise ValueError("the workload has no aggregate")


def due(block: Block, alive: Iterable[str]) -> list[PlannedCell]:
    """Return the living cells of a block, the anchor first."""
    wanted = set(alive)
    return [planned for planned in block.cells if planned.cell.cell_id in wanted]
