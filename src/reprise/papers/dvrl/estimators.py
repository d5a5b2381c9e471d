"""Any scikit-learn-style estimator as a predictor: trees, support vectors, pipelines of a user's own."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from reprise.checks import PositiveInt, checked
from reprise.data.base import DataSpec
from reprise.errors import UserError

SMALLEST_PROBABILITY = 1e-7  # a tree's certain error would cost an infinite log loss


class Estimator:
    """Selections are fitted one after the other: a scikit-learn estimator has no selection axis.

    A fit goes to convergence, so it counts as one update. Rows without weight are left out, which is the same as
    weight 0 and faster.

    Args:
        classifier: for classes, an unfitted estimator with ``fit(x, y, sample_weight)`` and ``predict_proba``; each fit
            works on a clone.
        regressor: for numbers, the same with ``predict``. One of the two may be ``None``.
        steps: not used, nor is
        final_steps: both are there because methods set them for the predictors that take steps.
        batch_size: must be ``None``.

    Raises:
        UserError: a batch size.
    """

    steps = final_steps = 1
    tensors = False

    @checked
    def __init__(
        self,
        classifier: Any = None,
        regressor: Any = None,
        steps: PositiveInt | None = None,
        final_steps: PositiveInt | None = None,
        batch_size: PositiveInt | None = None,
    ) -> None:
        if batch_size is not None:
            raise UserError(
                f"method.module.predictor.batch_size={batch_size} cannot be used: an estimator is fitted on all rows "
                "at once and cannot go on from an earlier fit; set method.module.predictor.batch_size=null and "
                "method.module.predictor_init=reset, or choose a predictor that is trained in steps."
            )
        self.classifier, self.regressor = classifier, regressor
        self.name = type(regressor if classifier is None else classifier).__name__

    def bind(self, spec: DataSpec) -> None:
        """See ``Predictor.bind``.

        Raises:
            UserError: there is no estimator for this target, or it cannot weight rows or predict what is asked for.
        """
        from sklearn.utils.validation import has_fit_parameter

        key, needed = ("classifier", "predict_proba") if spec.num_classes else ("regressor", "predict")
        chosen = getattr(self, key)
        if chosen is None:
            raise UserError(
                f"dataset={spec.name} has a {spec.task} target and the predictor's {key} is null: give it an estimator "
                "with its _target_, as conf/predictor/boosted_trees.yaml does."
            )
        self.name = type(chosen).__name__
        if not hasattr(chosen, "fit") or not has_fit_parameter(chosen, "sample_weight"):
            raise UserError(
                f"the predictor's {key}: {self.name} takes no sample_weight, so no values can weight it; "
                "choose another estimator."
            )
        if not hasattr(chosen, needed):
            raise UserError(
                f"the predictor's {key}: {self.name} has no {needed}, which a {spec.task} target needs; "
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
        chosen = self.classifier if self.width > 1 else self.regressor
        fitted = []
        for row in weights.cpu().numpy():
            kept = row > 0
            if self.width > 1 and len(np.unique(y[kept])) == 1:
                fitted.append(int(y[kept][0]))  # many classifiers refuse a single class
            else:
                fitted.append(clone(chosen).fit(rows[kept], y[kept], sample_weight=row[kept]))
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
