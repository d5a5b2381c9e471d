"""U(S), what a set of training rows is worth: the validation score of the predictor fitted on it."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from reprise.papers.dvrl.evaluation import fit_many, outputs_of
from reprise.papers.dvrl.predictors import MLP, Linear, Predictor, row_size
from reprise.papers.dvrl.scores import reward_function
from reprise.papers.dvrl.valuation import Valuator

SMALLEST_SHARE = 1e-12  # of a class that the validation rows lack, so that its logarithm is finite


class Utility:
    """U(S) for many sets S at once, on behalf of a valuation method, which is charged for the fits.

    U of the empty set is the score of the best constant guess on the validation rows: the share of the largest class
    (as in the code of Ghorbani and Zou 2019), minus the entropy of the classes, one half for the area under the curve,
    minus the targets' standard deviation for numbers.

    Args:
        owner: the method.
        reward: name of the score (``scores.REWARDS``).
        steps: optimiser steps of each fit.
        together: fits per batch.

    Raises:
        UserError: the reward does not suit the data.
    """

    def __init__(self, owner: Valuator, reward: str, steps: int, together: int) -> None:
        self.owner, self.steps, self.together = owner, steps, together
        self.reward = reward_function(reward, owner.spec)

    @torch.no_grad()
    def __call__(self, weights: Tensor) -> Tensor:
        """``[M]``, float64, for sets given as 0/1 ``weights [M, N]``."""
        scores = self.empty().repeat(len(weights))
        (filled,) = weights.any(1).nonzero(as_tuple=True)
        for rows in filled.split(self.together):
            outputs = self._outputs(weights[rows])
            scores[rows] = self.reward(outputs, self.owner.task.y_valid).double()
        return scores

    def whole(self) -> Tensor:
        """U(D), float64, of all training rows."""
        return self(torch.ones(1, len(self.owner.task.y_train), device=self.owner.device))[0]

    def empty(self) -> Tensor:
        """U of no rows, float64."""
        task = self.owner.task
        if task.num_classes:
            shares = torch.bincount(task.y_valid, minlength=task.num_classes) / len(task.y_valid)
            guess = shares.clamp_min(SMALLEST_SHARE).log()
        else:
            guess = task.y_valid.mean().unsqueeze(0)
        return self.reward(guess.expand(len(task.y_valid), 1, -1), task.y_valid)[0].double()

    def _outputs(self, weights: Tensor) -> Tensor:
        """Validation outputs ``[L, G, C]``; rows that no set has are left out where that at least halves the work."""
        owner, used = self.owner, weights.any(0)
        narrow = None
        if 2 * int(used.sum()) <= len(used):
            narrow = for_some_rows(owner.predictor, owner.task.x_train, used)
        if narrow is None:
            return owner.outputs_on_valid(weights, self.steps)
        owner.fits += len(weights)
        owner.updates += len(weights) * self.steps
        x, target = owner.task.x_train[used], owner.target[used]
        fitted = fit_many(narrow, x, target, weights[:, used], self.steps, owner.seed)
        return outputs_of(narrow, fitted, owner.task.x_valid)


def for_some_rows(predictor: Predictor, x: Tensor, used: Tensor) -> Predictor | None:
    """The predictor whose fit on ``x[used]`` is the given one's fit on ``x`` with no weight on the other rows.

    ``None`` where none is known: one that draws batches would draw others.
    """
    if type(predictor) not in (Linear, MLP) or predictor.batch_size is not None:
        return None
    narrow = copy.copy(predictor)
    if isinstance(narrow, Linear):  # its step is relative to the size of the rows it is given
        narrow.learning_rate *= row_size(x[used]) / row_size(x)
    return narrow
