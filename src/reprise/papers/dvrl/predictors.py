"""Predictors f_theta fitted on G weighted selections at once.

Parameters carry a selection axis G; one matrix product per layer serves all of them, and the sum of the G losses has
the G separate gradients. Every fit takes a fixed number of optimiser steps: with epochs, a larger
selection would mean more steps, and size would be rewarded for itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.nn import functional as F

from reprise.checks import NonNegativeFloat, PositiveFloat, PositiveInt, checked
from reprise.data.base import DataSpec

Parameters = list[Any]  # tensors with a selection axis, or fitted estimators


@runtime_checkable
class Predictor(Protocol):
    """What the valuation methods need from a predictor.

    ``name`` tells predictors apart in tables. ``tensors`` says that its parameters are tensors and its outputs
    differentiable by them, which some methods need.
    """

    name: str
    steps: int
    final_steps: int
    tensors: bool

    def bind(self, spec: DataSpec) -> None:
        """Get to know the data before anything else; ``UserError`` where the two do not fit."""

    def initial(self, features: int, outputs: int, copies: int, generator: torch.Generator) -> Parameters:
        """The same initial parameters, ``copies`` times over."""

    def fit(
        self, x: Tensor, target: Tensor, weights: Tensor, theta: Parameters, steps: int, generator: torch.Generator
    ) -> Parameters:
        """Weighted fits from ``theta``: ``x [N, d]``, ``target [N, C]``, ``weights [G, N]``; returns new parameters."""

    def outputs(self, theta: Parameters, x: Tensor) -> Tensor:
        """Logits or predictions ``[M, G, C]`` for ``x [M, d]``."""


@dataclass
class Adam:
    """Adam (Kingma and Ba 2015) over a list of tensors, without an optimiser object per fit."""

    learning_rate: float
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8

    def start(self, theta: Parameters) -> None:
        """Forget all moments."""
        self.t = 0
        self.mean = [torch.zeros_like(p) for p in theta]
        self.square = [torch.zeros_like(p) for p in theta]

    def step(self, theta: Parameters, gradients: Parameters) -> None:
        """One update in place."""
        self.t += 1
        b1, b2 = self.betas
        size = self.learning_rate * math.sqrt(1 - b2**self.t) / (1 - b1**self.t)
        for p, g, m, v in zip(theta, gradients, self.mean, self.square, strict=True):
            m.lerp_(g, 1 - b1)
            v.mul_(b2).addcmul_(g, g, value=1 - b2)
            p.addcdiv_(m, v.sqrt().add_(self.epsilon), value=-size)


def shares(weights: Tensor) -> Tensor:
    """Each row's part of its selection's mean loss, shape unchanged; ``weights [G, N]``.

    The mean is over the selected weight, so that a loss does not depend on how many rows it averages.
    """
    return weights / weights.sum(1, keepdim=True).clamp_min(1.0)


def residual(outputs: Tensor, target: Tensor, share: Tensor, classify: bool) -> Tensor:
    """Derivative of each selection's weighted mean loss by its outputs.

    Classes come first and rows last: a softmax over a short last axis is several times slower than over a first one.

    Args:
        outputs: ``[C, G, N]``.
        target: one-hot classes or targets ``[C, N]``.
        share: ``[G, N]``, from ``shares``.
        classify: cross entropy of a softmax, else half the squared error.

    Returns:
        ``[C, G, N]``.
    """
    target = target.unsqueeze(1)
    return (outputs.softmax(0).sub_(target) if classify else outputs - target).mul_(share)


class Unbound:
    """A predictor with tensors for parameters that suits any rows."""

    tensors = True

    def bind(self, spec: DataSpec) -> None:
        """See ``Predictor.bind``; nothing to learn from the data."""


class Linear(Unbound):
    """Softmax regression for classes, linear regression for numbers; zero start, full-batch Adam, closed-form gradient.

    Args:
        steps: optimiser steps of a fit inside the valuation loop.
        final_steps: steps of the fits that are reported.
        learning_rate: Adam's step size times the mean absolute sum of an input row. Adam moves every coefficient
            alike, so a step moves an output by that sum; relative to it one value suits 30 inputs and 784.
        l2: weight of half the squared norm of the coefficients (not of the intercepts).
        batch_size: rows per optimiser step, drawn afresh and alike for all selections; ``None`` = all rows.
    """

    name = "linear"

    @checked
    def __init__(
        self,
        steps: PositiveInt,
        final_steps: PositiveInt,
        learning_rate: PositiveFloat,
        l2: NonNegativeFloat,
        batch_size: PositiveInt | None = None,
    ) -> None:
        self.steps, self.final_steps, self.learning_rate, self.l2 = steps, final_steps, learning_rate, l2
        self.batch_size = batch_size

    def initial(self, features: int, outputs: int, copies: int, generator: torch.Generator) -> Parameters:
        """Zeros: one tensor ``[C, G, d + 1]``, the intercepts last."""
        return [torch.zeros(outputs, copies, features + 1, device=generator.device)]

    @torch.no_grad()
    def fit(
        self, x: Tensor, target: Tensor, weights: Tensor, theta: Parameters, steps: int, generator: torch.Generator
    ) -> Parameters:
        """See ``Predictor.fit``."""
        classify = target.shape[1] > 1
        fitted = theta[0].clone()
        adam = Adam(self.learning_rate / row_size(x))
        adam.start([fitted])
        inputs, target = torch.cat([x, x.new_ones(len(x), 1)], 1), target.T.contiguous()
        xb, tb, share = inputs, target, shares(weights)
        for rows in batches(len(x), self.batch_size, steps, generator):
            if rows is not None:
                xb, tb, share = inputs[rows], target[:, rows], shares(weights[:, rows])
            outputs = (fitted.flatten(0, 1) @ xb.T).view(*fitted.shape[:2], -1)
            delta = residual(outputs, tb, share, classify)
            gradient = (delta.flatten(0, 1) @ xb).view_as(fitted)
            gradient[..., :-1].add_(fitted[..., :-1], alpha=self.l2)
            adam.step([fitted], [gradient])
        return [fitted]

    def outputs(self, theta: Parameters, x: Tensor) -> Tensor:
        """See ``Predictor.outputs``."""
        slope, intercept = theta[0][..., :-1].flatten(0, 1), theta[0][..., -1].flatten()
        return torch.addmm(intercept, x, slope.T).view(len(x), *theta[0].shape[:2]).transpose(1, 2)


class MLP(Unbound):
    """A perceptron with ReLU layers (the official release's is 100-100); all selections start from the same weights.

    Arguments as for ``Linear``, but ``learning_rate`` is Adam's own; ``hidden`` are the layer widths.
    """

    @checked
    def __init__(
        self,
        steps: PositiveInt,
        final_steps: PositiveInt,
        learning_rate: PositiveFloat,
        l2: NonNegativeFloat,
        hidden: list[PositiveInt],
        batch_size: PositiveInt | None = None,
    ) -> None:
        self.steps, self.final_steps, self.learning_rate, self.l2 = steps, final_steps, learning_rate, l2
        self.hidden, self.batch_size = hidden, batch_size
        self.name = "mlp " + "-".join(map(str, hidden))

    def initial(self, features: int, outputs: int, copies: int, generator: torch.Generator) -> Parameters:
        """Glorot-uniform weights ``[G, in, out]`` and zero biases ``[G, 1, out]``, alternating."""
        theta: Parameters = []
        sizes = [features, *self.hidden, outputs]
        for fan_in, fan_out in pairwise(sizes):
            bound = math.sqrt(6 / (fan_in + fan_out))
            weight = torch.rand(fan_in, fan_out, generator=generator, device=generator.device) * 2 * bound - bound
            theta += [weight.repeat(copies, 1, 1), torch.zeros(copies, 1, fan_out, device=generator.device)]
        return theta

    def fit(
        self, x: Tensor, target: Tensor, weights: Tensor, theta: Parameters, steps: int, generator: torch.Generator
    ) -> Parameters:
        """See ``Predictor.fit``."""
        classify = target.shape[1] > 1
        theta = [p.clone().requires_grad_() for p in theta]
        adam = Adam(self.learning_rate)
        adam.start(theta)
        for rows in batches(len(x), self.batch_size, steps, generator):
            xb, tb, wb = (x, target, weights) if rows is None else (x[rows], target[rows], weights[:, rows])
            with torch.enable_grad():
                outputs = self.outputs(theta, xb).transpose(0, 1)
                decay = sum(p.square().sum() for p in theta[::2]) * (self.l2 / 2)
                # the outputs' derivative is known in closed form, so autograd only has to carry it through the layers
                delta = residual(outputs.detach().permute(2, 0, 1), tb.T, shares(wb), classify)
                gradients = torch.autograd.grad((outputs * delta.permute(1, 2, 0).contiguous()).sum() + decay, theta)
            with torch.no_grad():
                adam.step(theta, list(gradients))
        return [p.detach() for p in theta]

    def outputs(self, theta: Parameters, x: Tensor) -> Tensor:
        """See ``Predictor.outputs``."""
        hidden = x.expand(len(theta[0]), -1, -1)
        for layer in range(0, len(theta), 2):
            hidden = torch.baddbmm(theta[layer + 1], hidden, theta[layer])
            if layer + 2 < len(theta):
                hidden = F.relu(hidden)
        return hidden.transpose(0, 1)


def row_size(x: Tensor) -> float:
    """Mean absolute sum of a row of ``x [N, d]``, the intercept's 1 included."""
    return x.abs().sum(1).mean().item() + 1


def batches(rows: int, batch_size: int | None, steps: int, generator: torch.Generator) -> list[Tensor | None]:
    """Row numbers for every optimiser step; ``None`` stands for all rows."""
    if batch_size is None or batch_size >= rows:
        return [None] * steps
    draw: Callable[[], Tensor] = lambda: torch.randint(  # noqa: E731
        rows, (batch_size,), generator=generator, device=generator.device
    )
    return [draw() for _ in range(steps)]


def one_hot(y: Tensor, num_classes: int) -> Tensor:
    """Targets as the predictors take them: one-hot ``[N, C]`` for classes, ``[N, 1]`` for regression."""
    return F.one_hot(y, num_classes).float() if num_classes else y.float().unsqueeze(1)


def predictions(outputs: Tensor, num_classes: int) -> Tensor:
    """Class probabilities, or the outputs themselves for regression; shape unchanged."""
    return outputs.softmax(-1) if num_classes else outputs
