"""DVRL itself: Algorithm 1 of the paper, with every choice where paper and code differ as a named switch."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from reprise.checks import NonNegativeFloat, PositiveFloat, PositiveInt, checked
from reprise.data.base import DataSpec
from reprise.papers.dvrl import policy
from reprise.papers.dvrl.datamodule import ValuationTask
from reprise.papers.dvrl.estimator import Activation, DataValueEstimator
from reprise.papers.dvrl.evaluation import fit_many, outputs_of
from reprise.papers.dvrl.predictors import Predictor
from reprise.papers.dvrl.scores import REWARDS
from reprise.papers.dvrl.valuation import Valuator

ABOUT_STEPS_PER_EPOCH = 25  # an epoch is what a kill can cost


class DVRL(Valuator):
    """A policy over training rows, rewarded by the validation score of the predictor fitted on what it selects.

    Args:
        spec: the prepared data.
        seed: of the estimator's start, the selections and the fits.
        predictor: f_theta; its ``steps`` are the inner steps N_I.
        outer_steps: updates of the estimator.
        selections: G, selections drawn, fitted and scored per update.
        outer_batch: B_s, rows offered to the policy per update; ``None`` = all.
        learning_rate: Adam's step size for the estimator.
        reward: validation score (``scores.REWARDS``); regression always uses ``neg_rmse``.
        baseline: what a reward is compared with: ``leave_one_out`` the other selections of the same step,
            ``moving_average`` delta of Algorithm 1, ``fixed`` the score of the predictor fitted on all rows (official).
        baseline_window: T of the moving average.
        normalise_advantages: divide by the standard deviation over the G selections.
        predictor_init: ``reset`` every inner fit to the same start (official) or ``continue`` from the last (paper).
        penalty_weight: weight of the exploration penalty.
        penalty_on: ``probability`` (official) or ``logit`` (keeps its gradient when p saturates).
        marginal: give the estimator m = |y - f_v(x)|.
        standardise: standardise the estimator's inputs x and m over the training rows.
        activation, hidden, combined, layers: see ``DataValueEstimator``.

    Raises:
        UserError: a reward that does not fit the data.
    """

    title = "DVRL"
    progress_metrics = ("train/reward", "train/mean_probability")

    @checked
    def __init__(
        self,
        spec: DataSpec,
        seed: int,
        predictor: Predictor,
        outer_steps: PositiveInt,
        selections: PositiveInt,
        outer_batch: PositiveInt | None,
        learning_rate: PositiveFloat,
        reward: str,
        baseline: Literal["leave_one_out", "moving_average", "fixed"],
        baseline_window: PositiveInt,
        normalise_advantages: bool,
        predictor_init: Literal["reset", "continue"],
        penalty_weight: NonNegativeFloat,
        penalty_on: Literal["probability", "logit"],
        marginal: bool,
        standardise: bool,
        activation: Activation,
        hidden: PositiveInt,
        combined: PositiveInt,
        layers: PositiveInt,
    ) -> None:
        super().__init__(spec, seed, predictor)
        self.outer_steps, self.selections, self.outer_batch = outer_steps, selections, outer_batch
        self.learning_rate = learning_rate
        self.reward = REWARDS[reward_for(spec, reward)]
        self.baseline, self.baseline_window = baseline, baseline_window
        self.normalise_advantages, self.predictor_init = normalise_advantages, predictor_init
        self.penalty_weight, self.penalty_on = penalty_weight, penalty_on
        self.standardise = standardise
        self.steps_per_epoch = divisor(outer_steps, ABOUT_STEPS_PER_EPOCH)
        self.epochs = outer_steps // self.steps_per_epoch
        width = spec.num_classes or 1
        self.estimator = DataValueEstimator(
            spec.shape[0], width, hidden, combined, layers, activation, marginal
        )
        self.register_buffer("delta", torch.zeros(()))
        start = predictor.initial(spec.shape[0], width, selections, self.generator(Purpose.PREDICTOR))
        for number, tensor in enumerate(start):
            self.register_buffer(f"theta{number}", tensor)
        self.theta_size = len(start)

    def prepare(self, task: ValuationTask) -> None:
        """Also set up what the estimator sees, m among it."""
        super().prepare(task)
        m = (self.target - self.validation_predictions).abs()
        whiten = standardised if self.standardise else torch.Tensor.contiguous
        self.inputs = (whiten(self.task.x_train), self.target, whiten(m))
