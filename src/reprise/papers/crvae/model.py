"""What every base model is to the rest: levels of Gaussian latents and a decoder.

A flat VAE has one level, whose prior is standard normal. A hierarchical one has several, z = (z_1, ..., z_L); prior and
posterior of each depend on the samples of those before it. All of it is told what noise to use, so that two views, two
processes or two lambdas can be given the same.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

LOG_VARIANCE = (-10.0, 10.0)  # beyond it exp() leads nowhere but to overflow; networks clamp to it


@dataclass(frozen=True)
class Gaussian:
    """A normal distribution with diagonal covariance: mean and log sigma^2, both ``[..., d]``."""

    mean: Tensor
    log_variance: Tensor

    def at(self, noise: Tensor) -> Tensor:
        """mu + sigma * epsilon, for epsilon ``[..., d]``."""
        return self.mean + (0.5 * self.log_variance).exp() * noise

    def log_density(self, z: Tensor) -> Tensor:
        """log N(z; mu, sigma^2) ``[...]`` in nats, of z ``[..., d]``."""
        squared = (z - self.mean).square() * (-self.log_variance).exp()
        return -0.5 * (squared + self.log_variance + math.log(2 * math.pi)).sum(-1)

    def kl(self, other: Gaussian | None = None) -> Tensor:
        """KL(self || other) ``[...]`` in nats; ``None`` is the standard normal."""
        if other is None:
            return 0.5 * (self.log_variance.exp() + self.mean.square() - 1 - self.log_variance).sum(-1)
        gap = self.log_variance - other.log_variance
        squared = (self.mean - other.mean).square() * (-other.log_variance).exp()
        return 0.5 * (gap.exp() - gap + squared - 1).sum(-1)

    def rows(self, part: slice) -> Gaussian:
        """Some images' distributions; images are the axis before the last."""
        return Gaussian(self.mean[..., part, :], self.log_variance[..., part, :])


@dataclass(frozen=True)
class Level:
    """One level of latents: q(z_l | z_<l, x), p(z_l | z_<l) and a sample of the former.

    Attributes:
        posterior: parameters ``[K, n, d]``, or ``[1, n, d]`` where they do not depend on the sample.
        prior: the same; ``None`` for the standard normal.
        z: the sample ``[K, n, d]``.
    """

    posterior: Gaussian
    prior: Gaussian | None
    z: Tensor

    def kl(self) -> Tensor:
        """KL(q(z_l | z_<l, x) || p(z_l | z_<l)) ``[K or 1, n]`` in nats."""
        return self.posterior.kl(self.prior)

    def log_ratio(self) -> Tensor:
        """log p(z_l | z_<l) - log q(z_l | z_<l, x) ``[K, n]`` in nats, at the sample."""
        standard = Gaussian(torch.zeros_like(self.z), torch.zeros_like(self.z))
        return (self.prior or standard).log_density(self.z) - self.posterior.log_density(self.z)

    def rows(self, part: slice) -> Level:
        """Some images."""
        prior = None if self.prior is None else self.prior.rows(part)
        return Level(self.posterior.rows(part), prior, self.z[..., part, :])


class Autoencoder(nn.Module):
    """Encoder, decoder and, where there are several levels, what ties them.

    Attributes:
        sizes: numbers per level, ``(d_1, ..., d_L)``.
    """

    sizes: tuple[int, ...]

    def levels(self, x: Tensor, noise: Sequence[Tensor]) -> list[Level]:
        """Posteriors and samples of all levels.

        Args:
            x: what the likelihood sees ``[n, *shape]`` (binarised where it is Bernoulli).
            noise: standard normal, one ``[K, n, d_l]`` per level; zeros make every sample the posterior's mean.
        """
        raise NotImplementedError

    def decode(self, z: Sequence[Tensor]) -> Tensor:
        """Parameters ``[K, n, P, *shape]`` of p(x | z) from samples ``[K, n, d_l]``, one per level."""
        raise NotImplementedError

    def prior(self, noise: Sequence[Tensor]) -> list[Tensor]:
        """Samples of all levels from the prior, one ``[K, n, d_l]`` per level. For one level: the noise itself."""
        if len(self.sizes) > 1:
            raise NotImplementedError
        return list(noise)

    def noise(self, samples: int, images: int, generator: torch.Generator) -> list[Tensor]:
        """What `levels` needs, drawn on the generator's device."""
        return [torch.randn(samples, images, d, generator=generator, device=generator.device) for d in self.sizes]

    def no_noise(self, x: Tensor) -> list[Tensor]:
        """Zeros in the place of noise, for one sample of each image."""
        return [x.new_zeros(1, len(x), d) for d in self.sizes]


class Architecture(Protocol):
    """What ``network=`` chooses: sizes of layers, from which an autoencoder is built.

    Attributes:
        title: the layers in a few characters, for tables.
    """

    title: str

    def build(self, shape: tuple[int, ...], latent: int, parameters: int) -> Autoencoder:
        """The network for inputs ``[n, *shape]``, ``latent`` numbers per level, ``parameters`` P per pixel.

        Weights are drawn from torch's global generator, which the caller seeds.

        Raises:
            UserError: the inputs do not fit the layers.
        """
        ...


class Likelihood(Protocol):
    """What ``likelihood=`` chooses: the density p(x | z), in nats per image.

    Attributes:
        parameters: P, numbers that the decoder gives per pixel (or per coordinate).
        kinds: kinds of data that it is a density of (``image``, ``cloud``).
        binary: images are binarised before anything sees them.
        static: training images are binarised once.
        density: the density in a few words, for tables and READMEs.
    """

    parameters: int
    kinds: tuple[str, ...]
    binary: bool
    static: bool
    density: str

    def log_prob(self, x: Tensor, theta: Tensor) -> Tensor:
        """log p(x | z) ``[K, n]``, summed over the image, of x ``[n, *shape]`` and parameters ``[K, n, P, *shape]``."""
        ...

    def mean(self, theta: Tensor) -> Tensor:
        """The expected image ``[K, n, *shape]``, for pictures."""
        ...

    def check(self, x: Tensor) -> None:
        """Refuse data that the density does not cover.

        Raises:
            UserError: values out of range.
        """
        ...


class Transformation(Protocol):
    """What ``transformation=`` chooses: t(x~ | x), drawn anew for every input of a batch.

    Attributes:
        kinds: kinds of data that it understands (``image``, ``cloud``).
        title: what it does, in a few words.
    """

    kinds: tuple[str, ...]
    title: str

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """x~ ``[n, *shape]`` of x ``[n, *shape]``, each with parameters of its own from the generator (x's device)."""
        ...
