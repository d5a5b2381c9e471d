"""Damage, for training rows only. Every kind damages exactly ``floor(rate * N)`` rows, chosen by permutation.

Sources: the official release's ``corrupt_label`` for ``flip_other``, Ren et al. 2018 for ``uniform_all`` and
``background``, Han et al. 2018 for ``pairflip``; the kinds for numbers and for inputs are ours.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np

from reprise.errors import UserError

Kind = Literal["flip_other", "uniform_all", "background", "pairflip", "shuffle", "gauss", "feature_gauss"]
# given targets of the damaged rows, from all true targets [N], the damaged rows' numbers, C and randomness
Damage = Callable[[np.ndarray, np.ndarray, int, np.random.Generator], np.ndarray]


def flip_other(y: np.ndarray, rows: np.ndarray, num_classes: int, rng: np.random.Generator) -> np.ndarray:
    """Another label, uniform over the other C-1 classes: the damaged fraction is the true flip rate."""
    return (y[rows] + rng.integers(1, num_classes, size=len(rows))) % num_classes


def uniform_all(y: np.ndarray, rows: np.ndarray, num_classes: int, rng: np.random.Generator) -> np.ndarray:
    """A label uniform over all C classes, by chance the right one too: a nominal 40 % is 36 % wrong when C = 10."""
    return rng.integers(0, num_classes, size=len(rows))


def background(y: np.ndarray, rows: np.ndarray, num_classes: int, rng: np.random.Generator) -> np.ndarray:
    """One fixed class, the first."""
    return np.zeros_like(y[rows])


def pairflip(y: np.ndarray, rows: np.ndarray, num_classes: int, rng: np.random.Generator) -> np.ndarray:
    """The next class, and the first for the last: confusions that always go the same way."""
    return (y[rows] + 1) % num_classes


def shuffle(y: np.ndarray, rows: np.ndarray, num_classes: int, rng: np.random.Generator) -> np.ndarray:
    """The damaged rows exchange their targets."""
    return y[rows][rng.permutation(len(rows))]


def gauss(y: np.ndarray, rows: np.ndarray, num_classes: int, rng: np.random.Generator) -> np.ndarray:
    """Normal noise on top, as wide as the target itself: one standard deviation of all N true targets."""
    return y[rows] + (y.std() * rng.normal(size=len(rows))).astype(y.dtype)


KINDS: dict[str, Damage] = {
    "flip_other": flip_other,
    "uniform_all": uniform_all,
    "background": background,
    "pairflip": pairflip,
    "shuffle": shuffle,
    "gauss": gauss,
}
FEATURE_GAUSS = "feature_gauss"  # damages inputs, not targets
SUITABLE = {
    "classification": ("flip_other", "uniform_all", "background", "pairflip", "shuffle", FEATURE_GAUSS),
    "regression": ("shuffle", "gauss", FEATURE_GAUSS),
}


def kind_for(kind: str | None, task: str, dataset: str) -> str:
    """The kind asked for; without one ``flip_other`` for classes and ``shuffle`` for numbers.

    Raises:
        UserError: a kind that does not suit the task.
    """
    if kind is None:
        return SUITABLE[task][0]
    if kind not in SUITABLE[task]:
        raise UserError(
            f"method.datamodule.noise_kind={kind} cannot damage the {task} target of dataset={dataset}; choose one of "
            f"{', '.join(SUITABLE[task])}, or null."
        )
    return kind


def corrupt(
    y: np.ndarray, rate: float, kind: str, num_classes: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Damage a fraction of the targets.

    Args:
        y: true targets ``[N]``; left untouched (the official release edited its caller's array).
        rate: fraction of rows to damage.
        kind: a name in ``KINDS``.
        num_classes: C; 0 for regression.
        rng: source of randomness.

    Returns:
        Given targets ``[N]`` and a mask ``[N]`` of the rows whose target is now wrong.
    """
    rows = _rows(len(y), rate, rng)
    given = y.copy()
    given[rows] = KINDS[kind](y, rows, num_classes, rng)
    return given, given != y


def corrupt_inputs(x: np.ndarray, rate: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """``feature_gauss``: add normal noise of one standard deviation of each feature (over all N rows) to some rows.

    Args:
        x: true inputs ``[N, d]``, left untouched; a missing cell (NaN) stays missing.
        rate: fraction of rows to damage.
        rng: source of randomness.

    Returns:
        Given inputs ``[N, d]`` and a mask ``[N]`` of the damaged rows.
    """
    rows = _rows(len(x), rate, rng)
    known = np.ma.masked_invalid(x)
    given, damaged = x.copy(), np.zeros(len(x), dtype=bool)
    given[rows] += (known.std(axis=0).filled(0) * rng.normal(size=(len(rows), x.shape[1]))).astype(x.dtype)
    damaged[rows] = True
    return given, damaged


def _rows(total: int, rate: float, rng: np.random.Generator) -> np.ndarray:
    return rng.permutation(total)[: int(np.floor(rate * total))]
