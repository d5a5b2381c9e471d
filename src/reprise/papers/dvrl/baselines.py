"""What DVRL is compared with, on the same data and with the same predictor."""

from __future__ import annotations

import torch
from torch import Tensor

from reprise.checks import PositiveInt, checked
from reprise.data.base import DataSpec
from reprise.papers.dvrl.predictors import Predictor
from reprise.papers.dvrl.utilities import Utility
from reprise.papers.dvrl.valuation import Valuator


class RandomValues(Valuator):
    """Independent uniform values: what chance gives."""

    title = "random values"

    @checked
    def __init__(self, spec: DataSpec, seed: int, predictor: Predictor) -> None:
        super().__init__(spec, seed, predictor)

    def training_step(self, batch: int) -> None:
        """Nothing to learn."""

    def ranking(self) -> Tensor:
        """See ``Valuator``."""
        return torch.rand(len(self.task.y_train), generator=self.generator(1), device=self.device)


class ValidationModel(Valuator):
    """The model fitted on the validation rows alone: v_i = probability that it gives the given label.

    This is the information that DVRL receives as its input m, so a table without this row credits DVRL with it.
    For regression v_i = -|y_i - f_v(x_i)|.
    """

    title = "validation model"

    @checked
    def __init__(self, spec: DataSpec, seed: int, predictor: Predictor) -> None:
        super().__init__(spec, seed, predictor)

    def training_step(self, batch: int) -> None:
        """The one fit is done in ``prepare``."""
        self.fits += 1
        self.updates += self.predictor.final_steps

    def ranking(self) -> Tensor:
        """See ``Valuator``."""
        return self.validation_score()

    def weights(self) -> Tensor:
        """The probability itself for classes; ranks for regression."""
        return self.validation_score() if self.task.num_classes else super().weights()


class KNNShapley(Valuator):
    """Exact Shapley values of a K-nearest-neighbour classifier (Jia et al. 2019, Theorem 1); no training.

    Args:
        neighbours: K.
    """

    tasks = ("classification",)
    title = "KNN-Shapley"

    @checked
    def __init__(self, spec: DataSpec, seed: int, predictor: Predictor, neighbours: PositiveInt) -> None:
        super().__init__(spec, seed, predictor)
        self.neighbours = neighbours

    def training_step(self, batch: int) -> None:
        """Values follow in closed form."""

    def ranking(self) -> Tensor:
        """See ``Valuator``."""
        task = self.task
        return knn_shapley(task.x_train, task.y_train, task.x_valid, task.y_valid, self.neighbours)


def knn_shapley(x: Tensor, y: Tensor, x_valid: Tensor, y_valid: Tensor, neighbours: int) -> Tensor:
    """Shapley values ``[N]`` of the training points, averaged over the validation points.

    For one validation point and training points sorted from near to far, with a_j = 1[y_j = y_v] and j counted from 1:
    s_N = a_N min(K, N) / (K N), and s_j = s_{j+1} + (a_j - a_{j+1}) / K * min(K, j) / j. They add up to the utility of
    the whole training set, the share of right votes among the K nearest.
    """
    n, k = len(y), neighbours
    order = torch.cdist(x_valid, x).argsort(dim=1, stable=True)
    agree = (y[order] == y_valid.unsqueeze(1)).double()
    j = torch.arange(1, n, device=x.device)
    gain = (agree[:, :-1] - agree[:, 1:]) / k * j.clamp(max=k) / j
    last = agree[:, -1:] * min(k, n) / (k * n)
    by_place = torch.cat([gain.flip(1).cumsum(1).flip(1) + last, last], 1)
    return torch.zeros_like(by_place).scatter_(1, order, by_place).mean(0)


class LeaveOneOut(Valuator):
    """v_i = U(D) - U(D without i): what the validation score loses when the row is left out; N refits, many at once.

    Args:
        reward: the utility U (``scores.REWARDS``).
        together: refits per step.
    """

    title = "leave-one-out"

    @checked
    def __init__(self, spec: DataSpec, seed: int, predictor: Predictor, reward: str, together: PositiveInt) -> None:
        super().__init__(spec, seed, predictor)
        self.utility = Utility(self, reward, predictor.final_steps, together)
        self.together = together
        self.epochs = -(-spec.rows // together)
        self.register_buffer("values", torch.zeros(spec.rows, dtype=torch.float64))
        self.register_buffer("full", torch.zeros((), dtype=torch.float64))

    @torch.no_grad()
    def training_step(self, batch: int) -> None:
        """Refit without each of the next rows."""
        if self.current_epoch == 0:
            self.full.copy_(self.utility.whole())
        first = self.current_epoch * self.together
        rows = torch.arange(first, min(first + self.together, len(self.values)), device=self.device)
        without = torch.ones(len(rows), len(self.values), device=self.device)
        without[torch.arange(len(rows), device=self.device), rows] = 0
        self.values[rows] = self.full - self.utility(without)

    def ranking(self) -> Tensor:
        """See ``Valuator``."""
        return self.values
