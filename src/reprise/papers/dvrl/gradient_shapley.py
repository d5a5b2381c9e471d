"""G-Shapley: permutations walked by single-sample gradient steps in place of refits."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from reprise.checks import PositiveFloat, PositiveInt, checked
from reprise.data.base import DataSpec
from reprise.errors import UserError
from reprise.papers.dvrl.predictors import MLP, Linear, Parameters, Predictor
from reprise.papers.dvrl.scores import reward_function
from reprise.papers.dvrl.shapley import PermutationMean

# The code of Ghorbani and Zou 2019 tries these step sizes, ten epochs each.
RATES = tuple(10 ** (-half / 2) for half in range(2, 10))
TRIALS = 10
TRIAL = 2  # purpose of randomness, beside the permutations


class GShapley(PermutationMean):
    """Gradient Shapley values (Ghorbani and Zou 2019): one epoch of single-sample descent along each permutation.

    A row contributes the change of the validation score by its own update; the first row's is measured against the
    untrained predictor (the authors' code gives it nothing). The step size is the one of ``RATES`` with the largest
    mean minus standard deviation of the score after an epoch, over ten epochs in other orders. ``together``
    permutations are walked side by side, the selection axis of the predictor being their copies.

    Args:
        reward: the score (``scores.REWARDS``).
        together: permutations walked at once, an epoch.
        permutations: at most so many.
        convergence: stop when ``shapley.drift`` is below; ``None`` = never.

    Raises:
        UserError: the predictor is neither ``Linear`` nor ``MLP``, or the reward does not suit the data.
    """

    title = "G-Shapley"

    @checked
    def __init__(
        self,
        spec: DataSpec,
        seed: int,
        predictor: Predictor,
        reward: str,
        together: PositiveInt,
        permutations: PositiveInt,
        convergence: PositiveFloat | None,
    ) -> None:
        if not isinstance(predictor, (Linear, MLP)):  # a network's theta also holds its optimiser's state
            raise UserError(
                f"method.module.predictor: G-Shapley cannot take single-sample steps with {predictor.name}; use "
                "predictor=linear or predictor=mlp, or method=tmc_shapley, which refits."
            )
        super().__init__(spec, seed, predictor, permutations, convergence, together)
        self.reward = reward_function(reward, spec)
        self.register_buffer("rate", torch.zeros((), dtype=torch.float64))

    @torch.no_grad()
    def evaluated(self, numbers: range) -> Tensor:
        """See ``PermutationMean``."""
        if self.current_epoch == 0:
            self.rate.fill_(self.best_rate())
        orders = torch.stack([self.order(number) for number in numbers])
        theta = self._start(len(orders))
        scores = [self._score(theta)]
        for rows in orders.T:
            theta = self._update(theta, rows, torch.full((len(rows),), self.rate.item(), device=self.device))
            scores.append(self._score(theta))
        changes = torch.stack(scores, 1).diff(dim=1)
        return torch.zeros_like(changes).scatter_(1, orders, changes)

    def best_rate(self) -> float:
        """The step size to take: all of ``RATES`` tried at once."""
        rates = torch.tensor(RATES, device=self.device).repeat_interleave(TRIALS)
        rows, generator = len(self.task.y_train), self.generator(TRIAL)
        orders = torch.stack([torch.randperm(rows, generator=generator, device=self.device) for _ in rates])
        theta = self._start(len(rates))
        for chosen in orders.T:
            theta = self._update(theta, chosen, rates)
        scores = self._score(theta).view(len(RATES), TRIALS)
        # a rate that diverges has no score
        worth = (scores.mean(1) - scores.std(1, correction=0)).nan_to_num(float("-inf"), neginf=float("-inf"))
        return RATES[int(worth.argmax())]

    def _start(self, copies: int) -> Parameters:
        """Untrained predictors, all alike."""
        self.fits += copies
        generator = torch.Generator(self.device).manual_seed(self.seed)
        return self.predictor.initial(self.task.x_train.shape[1], self.target.shape[1], copies, generator)

    def _update(self, theta: Parameters, rows: Tensor, rates: Tensor) -> Parameters:
        """One descent step of every copy, each on a row and at a rate ``[P]`` of its own."""
        self.updates += len(rows)
        return descend(self.predictor, theta, self.task.x_train[rows], self.target[rows], rates)

    def _score(self, theta: Parameters) -> Tensor:
        return self.reward(self.predictor.outputs(theta, self.task.x_valid), self.task.y_valid).double()


def descend(predictor: Predictor, theta: Parameters, x: Tensor, target: Tensor, rates: Tensor) -> Parameters:
    """Parameters after one gradient step in which copy p sees row p alone.

    Args:
        predictor: whose parameters are tensors with a selection axis of P copies.
        theta: the parameters.
        x: ``[P, d]``.
        target: one-hot classes (cross entropy) or numbers (half the squared error), ``[P, C]``.
        rates: step sizes ``[P]``.
    """
    theta = [p.detach().requires_grad_() for p in theta]
    with torch.enable_grad():
        # every copy sees every row and keeps its own: next to scoring the validation rows that costs little
        outputs = predictor.outputs(theta, x).diagonal(dim1=0, dim2=1).T
        classify = target.shape[1] > 1
        losses = F.cross_entropy(outputs, target, reduction="none") if classify else (outputs - target)[:, 0] ** 2 / 2
        # a copy's loss times its rate has its whole step as gradient
        steps = torch.autograd.grad((losses * rates).sum(), theta)
    return [(p - step).detach() for p, step in zip(theta, steps, strict=True)]
