"""What can be read from the posterior means: classifiers on frozen features, judged on inputs they never saw."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from reprise.checks import NonNegativeInt, PositiveFloat, PositiveInt, checked
from reprise.randomness import derived_seed

STEPS = 2000  # of the perceptron at least, where ten passes over few inputs would be fewer
CLASSES = 2  # fewer have nothing to tell apart


class Probes:
    """Multinomial logistic regression and a two-layer perceptron on standardised features.

    Args:
        train: labelled training inputs at most, drawn at random; ``None`` = all.
        per_class: labelled inputs of each class for the probe that has few.
        draws: how often the few are drawn; the mean is reported.
        strength: C, inverse weight of the L2 penalty of the logistic regression (scikit-learn's default is 1).
        hidden: units of the perceptron; 0 = no perceptron.
        seed: of all that is drawn.
    """

    @checked
    def __init__(
        self,
        train: PositiveInt | None = None,
        per_class: PositiveInt = 10,
        draws: PositiveInt = 5,
        strength: PositiveFloat = 1.0,
        hidden: NonNegativeInt = 128,
        seed: NonNegativeInt = 0,
    ) -> None:
        self.train, self.per_class, self.draws, self.strength = train, per_class, draws, strength
        self.hidden, self.seed = hidden, seed

    def __call__(
        self, train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], transformed: Tensor
    ) -> dict[str, float]:
        """Accuracies; empty where there are fewer than two classes.

        Args:
            train, test: features ``[n, d]`` and labels ``[n]``.
            transformed: features ``[n, d]`` of the test inputs' transformations.

        Returns:
            ``probe/linear``, ``probe/transformed`` (the same classifier on transformed inputs), ``probe/ten_labels``,
            ``probe/ten_labels_transformed``, ``probe/two_layer``.
        """
        (x, y), (x_test, y_test) = (_arrays(part) for part in (train, test))
        if len(np.unique(y)) < CLASSES or not np.issubdtype(y.dtype, np.integer):
            return {}
        if self.train is not None and self.train < len(y):
            rows = np.random.default_rng((self.seed, 0)).permutation(len(y))[: self.train]
            x, y = x[rows], y[rows]
        judged = (x_test, transformed.double().cpu().numpy()), y_test
        linear, moved = self._linear(x, y, *judged)
        few = np.mean([self._few(x, y, draw, judged) for draw in range(self.draws)], axis=0)
        found = {
            "probe/linear": linear,
            "probe/transformed": moved,
            "probe/ten_labels": few[0],
            "probe/ten_labels_transformed": few[1],
        }
        if self.hidden:
            found["probe/two_layer"] = self._two_layer(x, y, x_test, y_test)
        return {name: float(value) for name, value in found.items()}

    def _few(
        self, x: np.ndarray, y: np.ndarray, draw: int, judged: tuple[Sequence[np.ndarray], np.ndarray]
    ) -> list[float]:
        """A probe on a few labels of each class, or on all of a class that has fewer."""
        rng = np.random.default_rng((self.seed, 1, draw))
        rows = np.concatenate([rng.permutation(np.flatnonzero(y == c))[: self.per_class] for c in np.unique(y)])
        return self._linear(x[rows], y[rows], *judged)

    def _linear(self, x: np.ndarray, y: np.ndarray, tests: Sequence[np.ndarray], y_test: np.ndarray) -> list[float]:
        from sklearn.linear_model import LogisticRegression

        return self._scores(LogisticRegression(C=self.strength, max_iter=300), x, y, tests, y_test)

    def _two_layer(self, x: np.ndarray, y: np.ndarray, x_test: np.ndarray, y_test: np.ndarray) -> float:
        from sklearn.neural_network import MLPClassifier

        state = derived_seed(self.seed, 2) % 2**32
        batch = min(200, len(y))
        passes = max(10, STEPS // math.ceil(len(y) / batch))
        network = MLPClassifier((self.hidden,), batch_size=batch, max_iter=passes, random_state=state)
        return self._scores(network, x.astype(np.float32), y, [x_test.astype(np.float32)], y_test)[0]

    @staticmethod
    def _scores(
        classifier: object, x: np.ndarray, y: np.ndarray, tests: Sequence[np.ndarray], y_test: np.ndarray
    ) -> list[float]:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
        from threadpoolctl import threadpool_limits

        model = make_pipeline(StandardScaler(), classifier)
        # NumPy's threads know nothing of torch's: without a limit, runs side by side wait for each other
        with warnings.catch_warnings(), threadpool_limits(torch.get_num_threads()):
            warnings.simplefilter("ignore", ConvergenceWarning)  # the number of iterations is part of the protocol
            model.fit(x, y)
        return [model.score(test, y_test) for test in tests]


def _arrays(part: tuple[Tensor, Tensor]) -> tuple[np.ndarray, np.ndarray]:
    return part[0].double().cpu().numpy(), part[1].cpu().numpy()
