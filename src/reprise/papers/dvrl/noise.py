"""Label noise, for training rows only. Every kind damages exactly ``floor(rate * N)`` rows, chosen by permutation.

Sources: the official release's ``corrupt_label`` for ``flip_other``, Ren et al. 2018 for the next two.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Damage = Callable[[np.ndarray, int, np.random.Generator], np.ndarray]


def flip_other(y: np.ndarray, num_classes: int, rng: np.random.Generator) -> np.ndarray:
    """Another label, uniform over the other C-1 classes: the damaged fraction is the true flip rate."""
    return (y + rng.integers(1, num_classes, size=len(y))) % num_classes


def uniform_all(y: np.ndarray, num_classes: int, rng: np.random.Generator) -> np.ndarray:
    """A label uniform over all C classes, by chance the right one too: a nominal 40 % is 36 % wrong when C = 10."""
    return rng.integers(0, num_classes, size=len(y))


def background(y: np.ndarray, num_classes: int, rng: np.random.Generator) -> np.ndarray:
    """One fixed class, the first."""
    return np.zeros_like(y)


def shuffle(y: np.ndarray, num_classes: int, rng: np.random.Generator) -> np.ndarray:
    """The damaged rows exchange their targets: the only kind for regression."""
    return y[rng.permutation(len(y))]


KINDS: dict[str, Damage] = {
    "flip_other": flip_other,
    "uniform_all": uniform_all,
    "background": background,
    "shuffle": shuffle,
}


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
    rows = rng.permutation(len(y))[: int(np.floor(rate * len(y)))]
    given = y.copy()
    given[rows] = KINDS[kind](y[rows], num_classes, rng)
    return given, given != y
