"""Learning to Reweight Examples for Robust Deep Learning (Ren, Zeng, Yang, Urtasun; ICML 2018), Algorithm 1.

No value function and no reward: in every step of one ordinary training, a row weighs what a step on it would gain on
clean validation rows, to first order.
"""

from __future__ import annotations

from enum import IntEnum

import torch
from torch import Tensor
from torch.nn import functional as F

from reprise.checks import PositiveFloat, PositiveInt, checked
from reprise.data.base import DataSpec
from reprise.errors import UserError
from reprise.papers.dvrl.datamodule import ValuationTask
from reprise.papers.dvrl.networks import Network
from reprise.papers.dvrl.predictors import MLP, Adam, Linear, Parameters, Predictor, one_hot, row_size
from reprise.papers.dvrl.valuation import Valuator, steps_in_epoch
from reprise.schedules import cosine

Batch = tuple[Tensor, Tensor]  # inputs [B, d] and targets [B, C]
PLAIN_STEPS_PER_STEP = 3  # gradient on the validation rows, derivative along it on the batch, gradient of the real step


class Purpose(IntEnum):
    """What randomness is for; keeps the streams of one seed apart."""

    START = 1
    ROWS = 2


def row_losses(predictor: Predictor, parameters: Parameters, batch: Batch) -> Tensor:
    """l_i ``[B]``: cross entropy for one-hot targets ``[B, C]``, half the squared error for numbers ``[B, 1]``.

    As a training step sees them: batch normalisation takes the statistics of this batch.
    """
    x, target = batch
    outputs = predictor.training_outputs if isinstance(predictor, Network) else predictor.outputs
    predicted = outputs(parameters, x)[:, 0]
    if target.shape[1] > 1:
        return -(target * F.log_softmax(predicted, 1)).sum(1)
    return (predicted - target).square().sum(1) / 2


def gains(
    predictor: Predictor, parameters: Parameters, batch: Batch, validation: Batch
) -> tuple[Tensor, Tensor, Tensor]:
    """u_i / alpha = -1/alpha d/d eps_i L_val(theta - alpha grad sum_j eps_j l_j(theta)) at eps = 0.

    At eps = 0 the virtual step has not moved theta, so this is <grad l_i, grad L_val>: the derivative of the row losses
    along grad L_val, which forward differentiation gives for all rows in one pass. alpha cancels in the weights.

    Args:
        predictor: with differentiable outputs.
        parameters: what it trains, G = 1.
        batch: B training rows.
        validation: clean rows, over which L_val is the mean.

    Returns:
        u / alpha ``[B]``, the row losses ``[B]`` and L_val ``[]``.
    """
    with torch.enable_grad():
        at = [p.detach().requires_grad_() for p in parameters]
        loss = row_losses(predictor, at, validation).mean()
        slope = torch.autograd.grad(loss, at)
    start = tuple(p.detach() for p in parameters)
    losses, along = torch.func.jvp(lambda *p: row_losses(predictor, list(p), batch), start, slope)
    return along, losses, loss.detach()


def normalised(u: Tensor) -> Tensor:
    """w_i = max(u_i, 0) / sum_j max(u_j, 0) ``[B]``; all zero where no row helps."""
    kept = u.clamp_min(0)
    total = kept.sum()
    return kept / torch.where(total > 0, total, 1)


def penalty(predictor: Linear | MLP, parameters: Parameters) -> Tensor:
    """l2/2 |coefficients|^2, the intercepts left out."""
    # intercepts are the last column of a linear predictor, and every other tensor of a perceptron
    coefficients = [p[..., :-1] for p in parameters] if isinstance(predictor, Linear) else parameters[::2]
    return sum(p.square().sum() for p in coefficients) * (predictor.l2 / 2)


def weighted_gradient(predictor: Linear | MLP, parameters: Parameters, batch: Batch, weights: Tensor) -> Parameters:
    """Gradient of sum_i w_i l_i and the predictor's penalty."""
    with torch.enable_grad():
        at = [p.detach().requires_grad_() for p in parameters]
        loss = (weights * row_losses(predictor, at, batch)).sum() + penalty(predictor, at)
        return list(torch.autograd.grad(loss, at))


class LearningToReweight(Valuator):
    """One predictor, trained with weights found anew in every step; a row's value is the mean weight that it received.

    A weight is a product with the row's own residual: rows that are already fitted well weigh little, and a wrong row
    that happens to pull the right way weighs much. So the values tell damage best early in training, and for numbers,
    whose residuals have no bound, hardly, however good the trained model is.

    The judged model is the one trained here, by the optimiser of the predictor's own fits, so that it differs from the
    references in its weights: Adam for vectors, an image network's own (the paper's is SGD with momentum).

    Args:
        spec: the prepared data.
        seed: of the predictor's start and the batches.
        predictor: what is trained; gives its step size and penalty.
        steps: optimiser steps. An image network keeps its own learning-rate schedule: give it its ``final_steps``.
        batch_size: training rows per step, drawn without replacement; ``None`` = all.
        validation_batch_size: the same for validation rows.
        learning_rate: relative to the predictor's; falls to 0 along a cosine. Not for image networks.

    Raises:
        UserError: a predictor that cannot be differentiated, or an image network with smaller batches than these.
    """

    title = "learning to reweight"
    progress_metrics = ("train/loss", "train/valid_loss", "train/zero_weight_share")

    @checked
    def __init__(
        self,
        spec: DataSpec,
        seed: int,
        predictor: Predictor,
        steps: PositiveInt,
        batch_size: PositiveInt | None,
        validation_batch_size: PositiveInt | None,
        learning_rate: PositiveFloat,
    ) -> None:
        super().__init__(spec, seed, predictor)
        _check(predictor, min(batch_size or spec.rows, spec.rows))
        self.steps, self.batch_size, self.validation_batch_size = steps, batch_size, validation_batch_size
        self.learning_rate = learning_rate
        self.steps_per_epoch = steps_in_epoch(steps)
        self.epochs = steps // self.steps_per_epoch
        theta = predictor.initial(spec.shape[0], spec.num_classes or 1, 1, self.generator(Purpose.START))
        self.tensors = len(theta)
        for number, tensor in enumerate(theta):
            self.register_buffer(f"theta{number}", tensor)
            if not isinstance(predictor, Network):  # whose theta holds its optimiser's moments
                self.register_buffer(f"mean{number}", torch.zeros_like(tensor))
                self.register_buffer(f"square{number}", torch.zeros_like(tensor))
        self.register_buffer("steps_taken", torch.zeros((), dtype=torch.int64))
        self.register_buffer("received", torch.zeros(spec.rows, dtype=torch.float64))
        self.register_buffer("drawn", torch.zeros(spec.rows, dtype=torch.int64))

    def prepare(self, task: ValuationTask) -> None:
        """Also set up the validation targets and Adam's step size, by the rule of the predictor's own fits."""
        super().prepare(task)
        size = row_size(self.task.x_train) if isinstance(self.predictor, Linear) else 1.0
        self.step_size = self.learning_rate * self.predictor.learning_rate / size
        self.target_valid = one_hot(self.task.y_valid, self.task.num_classes)

    @torch.no_grad()
    def training_step(self, batch: int) -> None:
        """Weights from the virtual step, then the real step with them."""
        step = self.current_epoch * self.steps_per_epoch + int(batch)
        generator = self.generator(Purpose.ROWS, step)
        rows = drawn_rows(len(self.target), self.batch_size, generator)
        clean = drawn_rows(len(self.target_valid), self.validation_batch_size, generator)
        theta, given = self.trained(), (self.task.x_train[rows], self.target[rows])
        validation = (self.task.x_valid[clean], self.target_valid[clean])
        if isinstance(self.predictor, Network):
            weights, losses, valid_loss = self._step_of_network(theta, given, validation, generator)
        else:
            weights, losses, valid_loss = self._step(theta, given, validation, step)
        self.received[rows] += weights.double() * len(rows)
        self.drawn[rows] += 1
        self.updates += PLAIN_STEPS_PER_STEP
        self.fits.fill_(1)
        diagnostics = {
            "train/loss": (weights * losses).sum(),
            "train/valid_loss": valid_loss,
            "train/zero_weight_share": (weights == 0).float().mean(),
        }
        self.log_dict(diagnostics, batch_size=1)

    def _step(self, theta: Parameters, batch: Batch, validation: Batch, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """One step of Adam on the buffers themselves; none, nor a penalty, where all weights are zero."""
        u, losses, valid_loss = gains(self.predictor, theta, batch, validation)
        weights = normalised(u)
        if weights.any():
            gradient = weighted_gradient(self.predictor, theta, batch, weights)
            adam = Adam(self.step_size * cosine(step, self.steps))
            adam.t, adam.mean, adam.square = int(self.steps_taken), self._kept("mean"), self._kept("square")
            adam.step(theta, gradient)
            self.steps_taken += 1
        return weights, losses, valid_loss

    def _step_of_network(
        self, theta: Parameters, batch: Batch, validation: Batch, generator: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The network's own step, with its optimiser and running statistics; the weights are for the same images."""
        x, target = batch
        state = generator.get_state()
        seen = (self.predictor.augmented(x, generator), target)
        u, losses, valid_loss = gains(self.predictor, self.predictor.trainable(theta), seen, validation)
        weights = normalised(u)
        if weights.any():
            generator.set_state(state)
            moved = self.predictor.fit(x, target, weights.unsqueeze(0), theta, 1, generator)
            for stored, new in zip(theta, moved, strict=True):
                stored.copy_(new)
            self.steps_taken += 1
        return weights, losses, valid_loss

    def _kept(self, name: str) -> Parameters:
        return [getattr(self, f"{name}{number}") for number in range(self.tensors)]

    def trained(self) -> Parameters:
        """The predictor as it is after the steps so far."""
        return self._kept("theta")

    def ranking(self) -> Tensor:
        """Mean of w_i times the batch size over the steps that drew the row ``[N]``: 1 = weighted like all.

        A row that was never drawn gets the mean of the others.
        """
        mean, seen = self.received / self.drawn.clamp_min(1), self.drawn > 0
        return torch.where(seen, mean, mean[seen].mean() if seen.any() else torch.ones_like(self.received[0]))

    def weights(self) -> Tensor:
        """The ranking, at most 1: a row that was weighted like the average, or higher, counts in full."""
        return self.ranking().clamp(0, 1).float()


def drawn_rows(total: int, size: int | None, generator: torch.Generator) -> Tensor:
    """Row numbers of ``size`` of ``total`` rows without replacement; all in order where there are no more."""
    if size is None or size >= total:
        return torch.arange(total, device=generator.device)
    return torch.randperm(total, generator=generator, device=generator.device)[:size]


def _check(predictor: Predictor, batch_size: int) -> None:
    if not predictor.tensors:
        raise UserError(
            f"method=l2rw differentiates the predictor and {predictor.name} has no gradient: use predictor=linear or "
            "predictor=mlp."
        )
    if isinstance(predictor, Network) and (predictor.batch_size or batch_size) < batch_size:
        raise UserError(
            f"method.module.batch_size: the {batch_size} rows of a step are more than "
            f"method.module.predictor.batch_size={predictor.batch_size}; lower the first or raise the second."
        )
