"""Data-OOB: a row is as good as its label is plausible to models that were fitted without it."""

from __future__ import annotations

import torch
from torch import Tensor

from reprise.checks import PositiveInt, checked
from reprise.data.base import DataSpec
from reprise.papers.dvrl.evaluation import fit_many, outputs_of
from reprise.papers.dvrl.predictors import Predictor
from reprise.papers.dvrl.valuation import Valuator

BAG = 1  # purpose of randomness


class DataOOB(Valuator):
    """Out-of-bag values (Kwon and Zou 2023, equation 4): no validation rows are needed.

    B predictors are fitted on bootstrap samples of the training rows, a row drawn k times having weight k; v_i is the
    mean over the bags without row i of 1[prediction = y_i], or for numbers of -(prediction - y_i)^2 (of standardised
    targets). A row that no bag left out gets the mean of the others.

    Args:
        bags: B.
        together: bags fitted at once, an epoch.
    """

    title = "Data-OOB"

    @checked
    def __init__(
        self, spec: DataSpec, seed: int, predictor: Predictor, bags: PositiveInt, together: PositiveInt
    ) -> None:
        super().__init__(spec, seed, predictor)
        self.bags, self.together = bags, together
        self.epochs = -(-bags // together)
        self.register_buffer("total", torch.zeros(spec.rows, dtype=torch.float64))
        self.register_buffer("count", torch.zeros(spec.rows, dtype=torch.float64))

    @torch.no_grad()
    def training_step(self, batch: int) -> None:
        """Fit the next bags and ask them about the rows they lack."""
        first, steps = self.current_epoch * self.together, self.predictor.final_steps
        weights = torch.stack([self.bag(number) for number in range(first, min(first + self.together, self.bags))])
        fitted = fit_many(self.predictor, self.task.x_train, self.target, weights, steps, self.seed)
        self.fits += len(weights)
        self.updates += len(weights) * steps
        right = self.agreement(outputs_of(self.predictor, fitted, self.task.x_train))
        outside = (weights == 0).double()
        self.total += (right.T * outside).sum(0)
        self.count += outside.sum(0)

    def bag(self, number: int) -> Tensor:
        """How often each row is in the bag, ``[N]``: N draws with replacement."""
        rows, generator = len(self.total), self.generator(BAG, number)
        drawn = torch.randint(rows, (rows,), generator=generator, device=self.device)
        return torch.bincount(drawn, minlength=rows).float()

    def agreement(self, outputs: Tensor) -> Tensor:
        """How well ``outputs [N, G, C]`` agree with each row's given target, float64 ``[N, G]``, larger = better."""
        given = self.task.y_train.unsqueeze(1)
        if self.task.num_classes:
            return (outputs.argmax(-1) == given).double()
        return -(outputs.squeeze(-1) - given).double().square()

    def ranking(self) -> Tensor:
        """See ``Valuator``."""
        value = self.total / self.count
        return torch.where(self.count > 0, value, value.nanmean())
