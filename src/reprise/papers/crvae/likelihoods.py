"""Densities p(x | z), each stated, in nats per input."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from reprise.checks import PositiveFloat, checked
from reprise.errors import UserError

SCALE = (-7.0, 3.0)  # of log-scales and log-variances of pixels: narrower than a grey level, wider than the range
LEVELS = 256


class Bernoulli:
    """Independent binary pixels; a grey value is the probability that its pixel is on.

    Args:
        binarise: ``dynamic`` draws training pixels anew at every use, ``static`` once for all (a transformed view is
            always drawn anew). Validation and test inputs are drawn once, the same for all runs.
    """

    parameters = 1
    kinds = ("image",)
    binary = True

    @checked
    def __init__(self, binarise: Literal["dynamic", "static"] = "dynamic") -> None:
        self.static = binarise == "static"
        self.density = f"binary pixels, {binarise} binarisation"

    def log_prob(self, x: Tensor, theta: Tensor) -> Tensor:
        """log p(x | z) ``[K, n]`` of binary pixels ``[n, *shape]`` and logits ``[K, n, 1, *shape]``."""
        return _BernoulliLogProb.apply(theta.squeeze(2).flatten(2), x.flatten(1))

    def mean(self, theta: Tensor) -> Tensor:
        """Probability that a pixel is on ``[K, n, *shape]``."""
        return theta.squeeze(2).sigmoid()

    def check(self, x: Tensor) -> None:
        """Refuse values that are no probabilities."""
        check_range(x, "likelihood=bernoulli takes grey values for probabilities", "likelihood=gaussian")


class _BernoulliLogProb(torch.autograd.Function):
    """sum of x l - log(1 + e^l) over pixels ``[K, n]``, of logits l ``[K, n, D]`` and pixels x ``[n, D]``.

    On processors torch's own forms (`binary_cross_entropy_with_logits`, `softplus`) are four times as slow, because of
    log1p. The plain logarithm is off by at most the last digit of 1, in nats per pixel. Derivative: x - sigmoid(l).
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, x: Tensor) -> Tensor:
        ctx.save_for_backward(logits, x)
        softplus = logits.abs().neg_().exp_().add_(1).log_().add_(logits.clamp_min(0))
        return (x * logits).sub_(softplus).sum(2)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        logits, x = ctx.saved_tensors
        return logits.sigmoid().neg_().add_(x).mul_(gradient.unsqueeze(2)), None


class DiscretisedLogistic:
    """A logistic density integrated over each of 256 grey levels (Kingma et al., 2016), per pixel and channel."""

    parameters = 2
    kinds = ("image",)
    binary = False
    static = False
    density = "256 grey levels, discretised logistic"

    def log_prob(self, x: Tensor, theta: Tensor) -> Tensor:
        """log p(x | z) ``[K, n]`` of grey values in 0..1 ``[n, *shape]`` and ``[K, n, 2, *shape]``: mean, log-scale.

        The first and the last level take what lies beyond them.
        """
        mean, log_scale = theta[:, :, 0] + 0.5, theta[:, :, 1].clamp(*SCALE)
        level = (x * (LEVELS - 1)).round()
        lower, upper = (level - 0.5) / (LEVELS - 1), (level + 0.5) / (LEVELS - 1)
        inverse = (-log_scale).exp()
        above, below = (upper - mean) * inverse, (lower - mean) * inverse
        # log(sigmoid(a) - sigmoid(b)) = logsigmoid(a) + logsigmoid(-b) + log(1 - exp(b - a)), for a > b
        inside = F.logsigmoid(above) + F.logsigmoid(-below) + torch.log(-torch.expm1(below - above))
        log_p = torch.where(level == 0, F.logsigmoid(above), inside)
        log_p = torch.where(level == LEVELS - 1, F.logsigmoid(-below), log_p)
        return log_p.flatten(2).sum(2)

    def mean(self, theta: Tensor) -> Tensor:
        """Means of the logistics ``[K, n, *shape]``, cut to 0..1."""
        return (theta[:, :, 0] + 0.5).clamp(0, 1)

    def check(self, x: Tensor) -> None:
        """Refuse values that are no grey levels."""
        check_range(x, "likelihood=discretised_logistic counts 256 grey levels from 0 to 1", "likelihood=gaussian")


class GaussianPixels:
    """Independent normal pixels, a density over continuous values: its nats compare with no discrete likelihood's.

    Args:
        sigma: standard deviation of every pixel; ``learned`` = one per pixel, from the decoder.
    """

    kinds = ("image",)
    binary = False
    static = False

    @checked
    def __init__(self, sigma: PositiveFloat | Literal["learned"] = "learned") -> None:
        self.sigma = sigma
        self.parameters = 2 if sigma == "learned" else 1
        self.density = f"continuous values, normal with {'learned sigma' if sigma == 'learned' else f'sigma {sigma:g}'}"

    def log_prob(self, x: Tensor, theta: Tensor) -> Tensor:
        """log p(x | z) ``[K, n]`` of values ``[n, *shape]``, parameters ``[K, n, P, *shape]``: mean, log sigma^2."""
        squared = (x - self._mean(theta)).square()
        if self.sigma == "learned":
            log_variance = theta[:, :, 1].clamp(*SCALE)
            log_p = -0.5 * (squared * (-log_variance).exp() + log_variance + math.log(2 * math.pi))
        else:
            log_p = -0.5 * squared / self.sigma**2 - math.log(self.sigma) - 0.5 * math.log(2 * math.pi)
        return log_p.flatten(2).sum(2)

    def _mean(self, theta: Tensor) -> Tensor:
        return theta[:, :, 0] + 0.5  # so that an untrained decoder starts in the middle of 0..1

    def mean(self, theta: Tensor) -> Tensor:
        """Means ``[K, n, *shape]``."""
        return self._mean(theta)

    def check(self, x: Tensor) -> None:
        """Refuse what is not finite."""
        if not bool(x.isfinite().all()):
            raise UserError("the data set has values that are not numbers: remove or repair those inputs.")


def binarise(x: Tensor, generator: torch.Generator) -> Tensor:
    """Pixels 0 or 1, on with probability ``x``."""
    return (torch.rand(x.shape, generator=generator, device=x.device, dtype=x.dtype) < x).to(x.dtype)


def check_range(x: Tensor, what: str, instead: str) -> None:
    """Raise `UserError` unless all values lie in 0..1."""
    low, high = float(x.min()), float(x.max())
    if not (low >= 0 and high <= 1):  # also false for NaN
        raise UserError(
            f"{what}, and this data set has values from {low:g} to {high:g}: scale it to 0..1, or use {instead}."
        )
