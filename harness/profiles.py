"""How much is measured: the profiles of the protocol, as data (MEASUREMENT.md section 0)."""

from __future__ import annotations

from dataclasses import dataclass

from harness.errors import PlanError
from harness.params import suggest


@dataclass(frozen=True)
class Profile:
    """Budgets and thresholds of one profile.

    Attributes:
        sets: Launch-sets K; fewer than 6 cannot carry a 95 % interval.
        rounds: Rounds in a set; every member runs one batch a round.
        batch_iterations, batch_ns: A batch lasts for at least both, at most ``batch_max_ns``.
        measured_ns: Least measured time per cell and launch.
        warmup_iterations, warmup_ns, warmup_max_ns: Least warm-up, and its cap.
        variants: Variants beside the anchor in one set.
        memory_launches: Fresh processes for the memory reading.
        combined_untimed: Accuracy and placement share one launch.
        half_width: Target relative half-width of the median's interval.
        sets_max: Launch-sets up to which wide intervals get more, in steps of five.
        cell_seconds: Of measuring, above which a cell gets no more sets.
        calm_seconds: Longest wait for a calm window when the host is unfit.
        backoff_seconds: Longest wait for a calm window before a noisy launch-set is repeated.
        energy_window_s, energy_idle_s: Of a window in which energy is read, and of the idle stretch before and after.
    """

    name: str
    sets: int
    rounds: int
    batch_iterations: int
    batch_ns: int
    batch_max_ns: int
    measured_ns: int
    warmup_iterations: int
    warmup_ns: int
    warmup_max_ns: int
    variants: int
    retries: int
    memory_launches: int
    combined_untimed: bool
    half_width: float
    sets_max: int = 0
    cell_seconds: float = 0.0
    calm_seconds: float = 0.0
    backoff_seconds: float = 0.0
    energy_window_s: float = 2.0
    energy_idle_s: float = 3.0


_MS = 1_000_000

PROFILES = {
    profile.name: profile
    for profile in (
        Profile("quick", 6, 6, 5, 50 * _MS, 500 * _MS, 300 * _MS, 10, 300 * _MS, 1_000 * _MS, 7, 0, 1, True, 0.05),
        Profile(
            "standard",
            10,
            8,
            5,
            125 * _MS,
            500 * _MS,
            1_000 * _MS,
            10,
            500 * _MS,
            5_000 * _MS,
            3,
            2,
            3,
            False,
            0.05,
            sets_max=30,
            cell_seconds=60.0,
            calm_seconds=120.0,
            backoff_seconds=30.0,
            energy_window_s=10.0,
            energy_idle_s=10.0,
        ),
        Profile(
            "publish",
            15,
            10,
            7,
            200 * _MS,
            500 * _MS,
            2_000 * _MS,
            10,
            500 * _MS,
            5_000 * _MS,
            3,
            3,
            5,
            False,
            0.02,
            sets_max=30,
            cell_seconds=180.0,
            calm_seconds=600.0,
            backoff_seconds=30.0,
            energy_window_s=10.0,
            energy_idle_s=10.0,
        ),
    )
}


def profile_named(name: str) -> Profile:
    """Return a profile.

    Raises:
        PlanError: No profile has this name.
    """
    if name not in PROFILES:
        raise PlanError(f"no profile is called {name!r}", hint=suggest(name, PROFILES, "profile"))
    return PROFILES[name]
