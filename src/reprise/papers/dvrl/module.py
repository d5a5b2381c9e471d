"""DVRL itself: Algorithm 1 of the paper, with every choice where paper and code differ as a named switch."""

from __future__ import annotations

import logging
from enum import IntEnum
from pathlib import Path
from typing import Annotated, Any, Literal

import lightning.pytorch as pl
import torch
from pydantic import Field
from torch import Tensor

from reprise.checks import NonNegativeFloat, PositiveFloat, PositiveInt, checked
from reprise.data.base import DataSpec
from reprise.errors import UserError
from reprise.papers.dvrl import policy
from reprise.papers.dvrl.datamodule import ValuationTask
from reprise.papers.dvrl.estimator import Activation, DataValueEstimator
from reprise.papers.dvrl.predictors import Predictor
from reprise.papers.dvrl.scores import reward_function
from reprise.papers.dvrl.valuation import Valuator, steps_in_epoch
from reprise.papers.dvrl.valuer import Valuer, View

log = logging.getLogger("reprise")

COLLAPSED_SPREAD = 0.02  # a policy whose probabilities differ less than this no longer tells rows apart


class Purpose(IntEnum):
    """What randomness is for; keeps the streams of one seed apart."""

    ESTIMATOR = 1
    PREDICTOR = 2
    SELECTION = 3


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
        schedule: of that step size: ``constant``, or ``cosine`` down to a hundredth.
        weight_decay: decoupled, as in AdamW.
        reward: validation score (``scores.REWARDS``); on numbers a reward for classes stands for ``neg_rmse``.
        baseline: what a reward is compared with: ``leave_one_out`` the other selections of the same step,
            ``moving_average`` delta of Algorithm 1 (from 0), ``fixed`` the predictor fitted on all rows (official).
        baseline_window: T of the moving average.
        advantage_scale: ``none``, or divide by a running mean of the rewards' standard deviation (``running``), which
            lets Adam's steps shrink when all selections score alike, where dividing by each step's own would not.
        predictor_init: ``reset`` every inner fit to the same start (official) or ``continue`` from the last (paper).
        penalty_weight: weight of the exploration penalty.
        penalty_on: ``probability`` (official) or ``logit`` (keeps its gradient when p saturates).
        entropy_weight: weight of the policy's entropy, summed over the rows; keeps undecided rows near one half.
        marginal: give the estimator m = |y - f_v(x)|.
        standardise: standardise the estimator's inputs x and m over the training rows. Raw m is nearly constant, and
            a policy that has to find it under REINFORCE's noise is the lottery that seeds lose.
        activation: of the estimator.
        hidden: units of its hidden layers.
        combined: units where m joins.
        layers: its number of layers.
        shortcut: give its output a direct linear path from (y, m).
        label_branch: weight of its direct bilinear term y'Bx, 0 = none.

    Raises:
        UserError: a combination of arguments that cannot work.
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
        schedule: Literal["constant", "cosine"],
        weight_decay: NonNegativeFloat,
        reward: str,
        baseline: Literal["leave_one_out", "moving_average", "fixed"],
        baseline_window: PositiveInt,
        advantage_scale: Literal["none", "running"],
        predictor_init: Literal["reset", "continue"],
        penalty_weight: NonNegativeFloat,
        penalty_on: Literal["probability", "logit"],
        entropy_weight: NonNegativeFloat,
        marginal: bool,
        standardise: bool,
        activation: Activation,
        hidden: PositiveInt,
        combined: PositiveInt,
        layers: Annotated[int, Field(ge=3)],
        shortcut: bool,
        label_branch: NonNegativeFloat,
    ) -> None:
        super().__init__(spec, seed, predictor)
        if baseline == "leave_one_out" and selections < 2:
            raise UserError(
                "method.module.baseline=leave_one_out compares selections: set method.module.selections >= 2."
            )
        if advantage_scale == "running" and selections < 2:
            raise UserError(
                "method.module.advantage_scale=running divides by the spread of a step's rewards: set "
                "method.module.selections >= 2, or method.module.advantage_scale=none."
            )
        if predictor_init == "continue" and not predictor.tensors:
            raise UserError(
                f"method.module.predictor_init=continue keeps training one predictor, and {predictor.name} is fitted "
                "afresh each time: set method.module.predictor_init=reset."
            )
        self.outer_steps, self.selections, self.outer_batch = outer_steps, selections, outer_batch
        self.learning_rate, self.schedule, self.weight_decay = learning_rate, schedule, weight_decay
        self.reward = reward_function(reward, spec)
        self.baseline, self.baseline_window, self.advantage_scale = baseline, baseline_window, advantage_scale
        self.predictor_init = predictor_init
        self.penalty_weight, self.penalty_on, self.entropy_weight = penalty_weight, penalty_on, entropy_weight
        self.standardise = standardise
        self.steps_per_epoch = steps_in_epoch(outer_steps)
        self.epochs = outer_steps // self.steps_per_epoch
        width = spec.num_classes or 1
        self.architecture = {
            "features": spec.shape[0],
            "outputs": width,
            "hidden": hidden,
            "combined": combined,
            "layers": layers,
            "activation": activation,
            "marginal": marginal,
            "shortcut": shortcut,
            "label_branch": label_branch,
        }
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.generator(Purpose.ESTIMATOR).initial_seed())
            self.estimator = DataValueEstimator(**self.architecture)
        self.register_buffer("delta", torch.zeros(()))
        self.register_buffer("reward_variance", torch.zeros(()))
        start = predictor.initial(spec.shape[0], width, selections, self.generator(Purpose.PREDICTOR))
        self.theta_names = [f"theta{number}" for number in range(len(start))]
        for name, tensor in zip(self.theta_names, start, strict=True):
            self.register_buffer(name, tensor)

    def prepare(self, task: ValuationTask) -> None:
        """Also set up what the estimator sees, m among it."""
        super().prepare(task)
        seen = (self.task.x_train, self.target, self.validation_predictions)
        self.view = View.fit(*seen, self.standardise)
        self.inputs = self.view(*seen)

    def configure_optimizers(self) -> Any:
        """Adam for the estimator alone; the predictors have their own."""
        optimizer = torch.optim.AdamW(
            self.estimator.parameters(), lr=self.learning_rate, weight_decay=self.weight_decay
        )
        if self.schedule == "constant":
            return optimizer
        cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.outer_steps, self.learning_rate / 100)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": cosine, "interval": "step"}}

    def training_step(self, batch: int) -> Tensor:
        """One outer step: select, fit, score, and raise the probability of what scored better than expected."""
        generator = self.generator(Purpose.SELECTION, self.global_step)
        rows = self._outer_batch(generator)
        logits = self.estimator(*(part[rows] for part in self.inputs))
        with torch.no_grad():
            probabilities = logits.sigmoid()
            selections = policy.select(probabilities, self.selections, generator)
            # an empty selection is refitted on a coin's choice, but the policy answers for what it drew (official)
            rewards = self._rewards(policy.fill_empty(selections, generator), rows, generator)
            advantages = self._advantages(rewards)
        penalty, entropy = policy.exploration_penalty(logits, self.penalty_on), policy.entropy(logits)
        loss = policy.reinforce(logits, selections, advantages) + self.penalty_weight * penalty
        loss = loss - self.entropy_weight * len(logits) * entropy
        diagnostics = {
            "train/reward": rewards.mean(),
            "train/reward_std": rewards.std(correction=0),
            "train/mean_probability": probabilities.mean(),
            "train/entropy": entropy,
            "train/penalty": penalty,
            "train/logit_std": logits.std(),
        }
        self.log_dict({name: value.detach() for name, value in diagnostics.items()}, batch_size=1)
        return loss

    def _outer_batch(self, generator: torch.Generator) -> Tensor | slice:
        total = len(self.target)
        if self.outer_batch is None or self.outer_batch >= total:
            return slice(None)
        return torch.randperm(total, generator=generator, device=self.device)[: self.outer_batch]

    def _rewards(self, weights: Tensor, rows: Tensor | slice, generator: torch.Generator) -> Tensor:
        """Validation score ``[G]`` of predictors fitted with ``weights [G, B]`` on these rows."""
        x, target = self.task.x_train[rows], self.target[rows]
        theta = [getattr(self, name) for name in self.theta_names]
        fitted = self.predictor.fit(x, target, weights, theta, self.predictor.steps, generator)
        self.fits += len(weights)
        self.updates += len(weights) * self.predictor.steps
        if self.predictor_init == "continue":
            for stored, new in zip(theta, fitted, strict=True):
                stored.copy_(new)
        return self.reward(self.predictor.outputs(fitted, self.task.x_valid), self.task.y_valid)

    def _advantages(self, rewards: Tensor) -> Tensor:
        """Rewards ``[G]`` less the baseline, scaled."""
        if self.baseline == "leave_one_out":
            advantages = policy.leave_one_out(rewards)
        else:
            if self.baseline == "fixed" and self.global_step == 0:
                self.delta.copy_(self._score_of_all_rows())
            advantages = rewards - self.delta
            if self.baseline == "moving_average":
                self.delta.copy_(policy.moving_average(self.delta, rewards, self.baseline_window))
        if self.advantage_scale == "none":
            return advantages
        variance = rewards.var()
        self.reward_variance.copy_(variance if self.global_step == 0 else self.reward_variance.lerp(variance, 0.05))
        return advantages / (self.reward_variance.sqrt() + 1e-8)

    def _score_of_all_rows(self) -> Tensor:
        everything = torch.ones(1, len(self.target), device=self.device)
        outputs = self.outputs_on_valid(everything, self.predictor.steps)
        return self.reward(outputs, self.task.y_valid)[0]

    @torch.no_grad()
    def ranking(self) -> Tensor:
        """Logits: probabilities saturate to ties, logits do not."""
        return self.estimator(*self.inputs)

    def weights(self) -> Tensor:
        """Selection probabilities p, as in the paper's weighted fit."""
        return self.ranking().sigmoid()

    def health(self) -> dict[str, float]:
        """Collapse and inversion, told without knowing which labels are damaged.

        ``collapsed``: the probabilities no longer tell rows apart, or select everything or nothing. ``inverted``: the
        values rank against the validation model's opinion.
        """
        from scipy.stats import spearmanr

        p, ranking = self.weights().double(), self.ranking().double().cpu().numpy()
        agreement = float(spearmanr(ranking, self.validation_score().cpu().numpy()).statistic) if ranking.std() else 0.0
        collapsed = bool(p.std() < COLLAPSED_SPREAD or not 0.02 < p.mean() < 0.98)
        return {
            "health/collapsed": int(collapsed),
            "health/inverted": int(agreement < 0),
            "health/agreement_with_validation_model": agreement,
            "health/mean_probability": p.mean().item(),
            "health/probability_std": p.std().item(),
            "health/dead_units": self.estimator.dead_fraction(*self.inputs[:2]).item(),
        }

    @property
    def valuer(self) -> Valuer:
        """The learned function, with all that goes before it, as it stands."""
        parts = (self.validation_model, self.view, self.estimator, self.architecture)
        return Valuer(self.spec, self.task.scaler, self.predictor, *parts)

    def final_metrics(self, datamodule: pl.LightningDataModule) -> dict[str, float]:
        """Also how well the values tell damaged rows apart among rows that were never trained on (claim C9)."""
        return super().final_metrics(datamodule) | self._on_unseen_rows()

    def _on_unseen_rows(self) -> dict[str, float]:
        from sklearn.metrics import roc_auc_score

        damaged = self.task.corrupted_unseen.cpu().numpy()
        if not damaged.any() or damaged.all():
            return {}
        logits = self.valuer.logits(self.task.x_unseen, self.task.y_unseen).cpu().numpy()
        return {"unseen/auroc": float(roc_auc_score(damaged, -logits)), "unseen/rows": len(damaged)}

    def artifacts(self, run_dir: Path) -> list[Path]:
        """Also save the valuer, which can value rows it has not seen."""
        if obstacle := self.valuer.obstacle():
            log.info("No valuer is kept, so this run cannot value rows it has not seen: %s.", obstacle)
        else:
            self.valuer.save(run_dir)
        return super().artifacts(run_dir)
