"""The Pareto front of a search, and which of its pipelines to measure again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from harness.tune.values import Trial


def front(trials: Sequence[Trial], higher_is_better: Mapping[str, bool]) -> tuple[Trial, ...]:
    """Return the ok trials that no other one beats: not worse in any objective and better in one.

    Of trials with equal values and one pipeline the first stands.

    Args:
        trials: With a value for each objective.
        higher_is_better: Objective -> direction.
    """
    okay = list({trial.pipeline: trial for trial in reversed(trials) if trial.status == "ok"}.values())[::-1]
    losses = {trial.pipeline: _loss(trial, higher_is_better) for trial in okay}
    kept = [trial for trial in okay if not any(_beats(losses[o.pipeline], losses[trial.pipeline]) for o in okay)]
    return tuple(sorted(kept, key=lambda trial: losses[trial.pipeline]))


def _loss(trial: Trial, higher_is_better: Mapping[str, bool]) -> tuple[float, ...]:
    return tuple(-trial.values[name] if up else trial.values[name] for name, up in higher_is_better.items())


def _beats(first: Sequence[float], second: Sequence[float]) -> bool:
    return all(a <= b for a, b in zip(first, second, strict=True)) and tuple(first) != tuple(second)


def spread(found: Sequence[Trial], higher_is_better: Mapping[str, bool], most: int) -> tuple[Trial, ...]:
    """Choose at most ``most`` trials of a front that lie far apart: the largest crowding distances.

    The ends of each objective have an infinite distance (Deb et al., 2002, section III-B).
    """
    if len(found) <= most:
        return tuple(found)
    distance = dict.fromkeys((trial.pipeline for trial in found), 0.0)
    for name in higher_is_better:
        ordered = sorted(found, key=lambda trial: trial.values[name])
        width = ordered[-1].values[name] - ordered[0].values[name]
        for end in (ordered[0], ordered[-1]):
            distance[end.pipeline] = float("inf")
        for before, own, after in zip(ordered, ordered[1:], ordered[2:], strict=False):
            if width > 0:
                distance[own.pipeline] += (after.values[name] - before.values[name]) / width
    best = sorted(found, key=lambda trial: -distance[trial.pipeline])[:most]
    return tuple(trial for trial in found if trial in best)
