"""What is maximised for one view: the evidence lower bound, with beta, and the importance weighted bound."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from reprise.checks import NonNegativeFloat, PositiveInt, checked
from reprise.papers.crvae.model import Level


@dataclass(frozen=True)
class Bound:
    """Per input ``[B]``, in nats.

    Attributes:
        value: what is maximised.
        elbo: the evidence lower bound with beta 1, for the record.
        reconstruction: mean over samples of log p(x | z).
        kl: KL(q(z | x) || p(z)), analytic at each level and summed over levels.
    """

    value: Tensor
    elbo: Tensor
    reconstruction: Tensor
    kl: Tensor


class ELBO:
    """E_q[log p(x | z)] - beta KL(q(z | x) || p(z)).

    Args:
        samples: K, over which the expectation is taken.
        beta: weight of the KL; 1 is the VAE.
    """

    @checked
    def __init__(self, samples: PositiveInt = 1, beta: NonNegativeFloat = 1.0) -> None:
        self.samples, self.beta = samples, beta

    def __call__(self, log_px: Tensor, levels: Sequence[Level]) -> Bound:
        """The bound of log p(x | z) ``[K, B]`` and levels of K samples."""
        reconstruction, kl = log_px.mean(0), _kl(levels)
        return Bound(reconstruction - self.beta * kl, reconstruction - kl, reconstruction, kl)


class IWAE:
    """log (1/K) sum_k p(x, z_k) / q(z_k | x) (Burda et al., 2016, equation 8), by the reparameterised gradient.

    Args:
        samples: K; 1 has the expectation of the evidence lower bound.
    """

    @checked
    def __init__(self, samples: PositiveInt = 50) -> None:
        self.samples = samples

    def __call__(self, log_px: Tensor, levels: Sequence[Level]) -> Bound:
        """The bound of log p(x | z) ``[K, B]`` and levels of K samples."""
        weights = log_weights(log_px, levels)
        reconstruction, kl = log_px.mean(0), _kl(levels)
        return Bound(log_mean_exp(weights), reconstruction - kl, reconstruction, kl)


def log_weights(log_px: Tensor, levels: Sequence[Level]) -> Tensor:
    """log p(x, z) - log q(z | x) ``[K, B]`` of log p(x | z) ``[K, B]``."""
    return log_px + sum(level.log_ratio() for level in levels)


def log_mean_exp(values: Tensor) -> Tensor:
    """log of the mean of exp over the first axis."""
    return torch.logsumexp(values, 0) - math.log(len(values))


def _kl(levels: Sequence[Level]) -> Tensor:
    return sum(level.kl().mean(0) for level in levels)
