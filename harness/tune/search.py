"""Where to look next: Optuna's sampler, fed with every finished trial, also those of an earlier process."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from harness.errors import MissingDependency
from harness.tune import space
from harness.tune.values import Axis, Trial

STARTUP_SHARE = 0.4  # of the trials are drawn at random before the sampler models them
MISSES = 200  # points asked for in vain, all known, before the space counts as exhausted
Evaluate = Callable[[int, Mapping[str, Any]], Trial]


def optuna_module() -> Any:
    """Import Optuna.

    Raises:
        MissingDependency: It is not installed; the hint names the extra.
    """
    try:
        import optuna  # seconds to import, and only a search needs it
    except ImportError as error:
        raise MissingDependency(
            "a search needs optuna, which is not installed", hint="pip install 'compression-harness[tune]'"
        ) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def search(
    axes: Sequence[Axis],
    higher_is_better: Mapping[str, bool],
    done: Sequence[Trial],
    evaluate: Evaluate,
    *,
    trials: int,
    seed: int,
) -> None:
    """Evaluate points until there are as many trials as wanted, or none is left that is not known.

    Args:
        axes: What is varied.
        higher_is_better: Objective -> direction, in the order in which trials give them.
        done: Finished trials; they count, and are never evaluated again. Grows by what ``evaluate`` stores.
        evaluate: Number and point -> trial, stored before it returns.
        trials: In all.
        seed: Of the sampler.
    """
    optuna = optuna_module()
    sampler = optuna.samplers.TPESampler(
        seed=seed + len(done), n_startup_trials=max(1, int(STARTUP_SHARE * trials)), multivariate=True
    )  # fmt: skip
    directions = ["maximize" if up else "minimize" for up in higher_is_better.values()]
    study = optuna.create_study(directions=directions, sampler=sampler)
    distributions = {axis.name: _distribution(optuna, axis) for axis in axes}
    known = {_key(trial.point): trial for trial in done}
    for trial in done:
        study.add_trial(_as_optuna(optuna, trial, distributions, higher_is_better))
    first = {axis.name: axis.default for axis in axes if axis.default is not None}
    if not done and first:
        study.enqueue_trial(first)  # what the methods' authors chose is where to start
    count, misses, all_points = len(known), 0, space.points(axes)
    while count < trials and misses < MISSES and (all_points is None or count < all_points):
        asked = study.ask(distributions)
        point = {axis.name: space.rounded(axis, asked.params[axis.name]) for axis in axes}
        found = known.get(_key(point))
        misses += found is not None
        if found is None:
            found = known[_key(point)] = evaluate(count, point)
            count += 1
        _tell(optuna, study, asked, found, higher_is_better)


def _key(point: Mapping[str, Any]) -> str:
    return json.dumps(dict(point), sort_keys=True)


def _distribution(optuna: Any, axis: Axis) -> Any:
    kinds = optuna.distributions
    if axis.kind == "choice":
        return kinds.CategoricalDistribution(axis.choices)
    if axis.kind == "int":
        return kinds.IntDistribution(int(axis.low), int(axis.high), log=axis.log)
    return kinds.FloatDistribution(axis.low, axis.high, log=axis.log)


def _as_optuna(optuna: Any, trial: Trial, distributions: Mapping[str, Any], names: Mapping[str, bool]) -> Any:
    okay = trial.status == "ok"
    state = optuna.trial.TrialState.COMPLETE if okay else optuna.trial.TrialState.FAIL
    return optuna.trial.create_trial(
        state=state,
        params=dict(trial.point),
        distributions=dict(distributions),
        values=[trial.values[name] for name in names] if okay else None,
    )


def _tell(optuna: Any, study: Any, asked: Any, found: Trial, names: Mapping[str, bool]) -> None:
    if found.status == "ok":
        study.tell(asked, [found.values[name] for name in names])
    else:
        study.tell(asked, state=optuna.trial.TrialState.FAIL)
