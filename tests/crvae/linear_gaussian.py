"""A variational auto-encoder all of whose numbers are known: x = W z + noise, and the exact posterior to encode."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from reprise.papers.crvae.likelihoods import GaussianPixels
from reprise.papers.crvae.model import Autoencoder, Gaussian, Level

SIGMA = 0.5


class LinearGaussian(Autoencoder):
    """z ~ N(0, I_d), x ~ N(W z, sigma^2 I_D), with orthogonal columns of W, so that the posterior is diagonal.

    ``wider`` multiplies the encoder's variance: 1 is the exact posterior.
    """

    def __init__(self, lengths: Sequence[float], dimensions: int, wider: float = 1.0) -> None:
        super().__init__()
        d = len(lengths)
        draw = torch.Generator().manual_seed(1)
        basis = torch.linalg.qr(torch.randn(dimensions, dimensions, generator=draw, dtype=torch.float64)).Q[:, :d]
        self.w = basis * torch.tensor(lengths, dtype=torch.float64)
        self.sizes, self.wider = (d,), wider
        self.variance = 1 / (1 + torch.tensor(lengths, dtype=torch.float64) ** 2 / SIGMA**2)

    likelihood = GaussianPixels(sigma=SIGMA)

    def levels(self, x: Tensor, noise: Sequence[Tensor]) -> list[Level]:
        mean = (x @ self.w * self.variance / SIGMA**2).unsqueeze(0)
        posterior = Gaussian(mean, (self.wider * self.variance).log().expand_as(mean))
        return [Level(posterior, None, posterior.at(noise[0].double()))]

    def decode(self, z: Sequence[Tensor]) -> Tensor:
        return (z[0].double() @ self.w.T - 0.5).unsqueeze(2)  # the likelihood counts from one half

    def draw(self, count: int, seed: int = 0) -> Tensor:
        """Data ``[count, D]`` of the model itself."""
        g = torch.Generator().manual_seed(seed)
        z = torch.randn(count, *self.sizes, generator=g, dtype=torch.float64)
        return z @ self.w.T + SIGMA * torch.randn(count, len(self.w), generator=g, dtype=torch.float64)

    def log_px(self, x: Tensor) -> Tensor:
        """log p(x) ``[N]``: normal with covariance W W' + sigma^2 I."""
        covariance = self.w @ self.w.T + SIGMA**2 * torch.eye(len(self.w), dtype=torch.float64)
        zero = torch.zeros(len(self.w), dtype=torch.float64)
        return torch.distributions.MultivariateNormal(zero, covariance).log_prob(x)

    def information(self) -> float:
        """I(x; z) in nats of the joint p(x, z): -1/2 sum of the log posterior variances."""
        return float(-0.5 * self.variance.log().sum())

    def mean_kl(self) -> float:
        """E_x KL(p(z | x) || p(z)), which for the exact posterior is the mutual information."""
        return self.information()


def generator(seed: int = 0) -> torch.Generator:
    """A seeded generator."""
    return torch.Generator().manual_seed(seed)


LOG_2PI = math.log(2 * math.pi)
