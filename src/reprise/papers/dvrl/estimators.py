"""Any scikit-learn-style estimator as a predictor: trees, support vectors, pipelines of a user's own."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from reprise.data.base import DataSpec
from reprise.errors import UserError

SMALLEST_PROBABILITY = 1e-7  # a tree's certain error would cost an infinite log loss


class Estimator:
    """Selections are fitted one after the other: a scikit-learn estimator has no selection axis.

    A fit goes to convergence, so it counts as one update. Rows without weight are left out, which is the same as
    weight 0 and faster.

    Args:
        estimator: an unfitted estimator with ``fit(x, y, sample_weight)``, and ``predict_proba`` for classes or
            ``predict`` for numbers. Each fit works on a clone.
    """

    steps = final_steps = 1
    tensors = False

    def __init__(self, estimator: Any) -> None:
        self.estimator, self.name = estimator, type(estimator).__name__

    def bind(self, spec: DataSpec) -> None:
        """See ``Predictor.bind``.

        Raises:
            UserError: the estimator cannot weight rows, or cannot predict what the data asks for.
        """
        from sklearn.utils.validation import has_fit_parameter

        if not hasattr(self.estimator, "fit") or not has_fit_parameter(self.estimator, "sample_weight"):
            raise UserError(f"method.module.predictor: {self.name} takes no sample_weight, so no values can weight it.")
        needed = "predict_proba" if spec.num_classes else "predict"
        if not hasattr(self.estimator, needed):
            raise UserError(
                f"method.module.predictor: {self.name} has no {needed}, which a {spec.task} target needs; "
                "choose another estimator (or turn its probabilities on)."
            )

    def initial(self, features: int, outputs: int, copies: int, generator: torch.Generator) -> list[Any]:
        """Nothing: every fit starts afresh."""
        return []

    def fit(
        self, x: Tensor, target: Tensor, weights: Tensor, theta: list[Any], steps: int, generator: torch.Generator
    ) -> list[Any]:
        """Fitted estimators, one per selection; ``theta``, ``steps`` and ``generator`` are not used."""
        from sklearn.base import clone

        rows, given = x.cpu().numpy(), target.cpu().numpy()
        y = given.argmax(1) if given.shape[1] > 1 else given[:, 0]
        self.width = given.shape[1]
        fitted = []
        for row in weights.cpu().numpy():
            kept = row > 0
            if self.width > 1 and len(np.unique(y[kept])) == 1:
                fitted.append(int(y[kept][0]))  # many classifiers refuse a single class
            else:
                fitted.append(clone(self.estimator).fit(rows[kept], y[kept], sample_weight=row[kept]))
        return fitted

    def outputs(self, theta: list[Any], x: Tensor) -> Tensor:
        """Log-probabilities, whose softmax gives the probabilities back, or predictions: ``[M, G, C]``."""
        rows = x.cpu().numpy()
        columns = [self._classes(one, rows) if self.width > 1 else one.predict(rows)[:, None] for one in theta]
        return torch.as_tensor(np.stack(columns, 1), dtype=torch.float32, device=x.device)

    def _classes(self, fitted: Any, rows: np.ndarray) -> np.ndarray:
        probability = np.zeros((len(rows), self.width))
        if isinstance(fitted, int):
            probability[:, fitted] = 1
        else:
            probability[:, fitted.classes_] = fitted.predict_proba(rows)
        return np.log(probability.clip(SMALLEST_PROBABILITY))
