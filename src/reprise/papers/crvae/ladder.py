"""A hierarchical auto-encoder of perceptrons: several levels of latents, each given those before it.

The encoder climbs from the input to one vector of features per level. From the top down, a state gathers what the
levels so far have said; it gives the prior of the next one, and with that level's features its posterior, which is
written as a change of the prior (Sonderby et al., 2016; Vahdat and Kautz, 2020, section 3.2).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from reprise.checks import checked
from reprise.papers.crvae.model import Autoencoder, Gaussian, Level
from reprise.papers.crvae.networks import Widths, gaussian, perceptron, relative, start_at_prior


class LadderMLP:
    """A ladder of perceptrons.

    Args:
        hidden: units of the layers of each perceptron; the last is also the size H of the state.
        levels: L, each with as many latents as ``latent`` says.
    """

    @checked
    def __init__(self, hidden: Widths = (400,), levels: Annotated[int, Field(ge=2)] = 2) -> None:
        self.hidden, self.count = hidden, levels
        self.title = f"ladder MLP {'-'.join(map(str, hidden))}, {levels} levels"

    def build(self, shape: tuple[int, ...], latent: int, parameters: int) -> Autoencoder:
        """The network for inputs of any shape."""
        return Ladder(shape, latent, parameters, self.hidden, self.count)


class Ladder(Autoencoder):
    """See the module's head.

    Args:
        shape: of one input.
        latent: d, numbers per level.
        parameters: P.
        hidden: units of the layers of each perceptron, H the last.
        levels: L.
    """

    def __init__(
        self, shape: tuple[int, ...], latent: int, parameters: int, hidden: Sequence[int], levels: int
    ) -> None:
        super().__init__()
        numbers, size = math.prod(shape), hidden[-1]
        self.shape, self.parameters_per_pixel, self.sizes = shape, parameters, (latent,) * levels
        self.up = nn.ModuleList(perceptron((numbers if i == 0 else size, *hidden, size), "relu") for i in range(levels))
        self.start = nn.Parameter(torch.zeros(size))
        self.priors = nn.ModuleList(perceptron((size, *hidden, 2 * latent), "relu") for _ in range(levels - 1))
        self.changes = nn.ModuleList(perceptron((2 * size, *hidden, 2 * latent), "relu") for _ in range(levels))
        self.says = nn.ModuleList(perceptron((latent, *hidden, size), "relu") for _ in range(levels))
        self.out = perceptron((size, *hidden, parameters * numbers), "relu")
        start_at_prior(network[-1] for network in (*self.priors, *self.changes))

    def levels(self, x: Tensor, noise: Sequence[Tensor]) -> list[Level]:
        """All levels, from the top down; below the first, one posterior per sample."""
        features = self._climb(x)
        state, found = self.start.expand(1, len(x), -1), []
        for number, epsilon in enumerate(noise):
            prior = self._prior(number, state)
            posterior = self._posterior(number, state, features[number], prior)
            z = posterior.at(epsilon)
            found.append(Level(posterior, prior, z))
            state = state + self.says[number](z)
        return found

    def _climb(self, x: Tensor) -> list[Tensor]:
        """Features of each level ``[n, H]``, the top level's first."""
        features, climbing = [], x.flatten(1)
        for step in self.up:
            climbing = step(climbing).relu()
            features.append(climbing)
        return features[::-1]

    def _prior(self, number: int, state: Tensor) -> Gaussian | None:
        return None if number == 0 else gaussian(self.priors[number - 1](state))

    def _posterior(self, number: int, state: Tensor, features: Tensor, prior: Gaussian | None) -> Gaussian:
        features = features.expand(*state.shape[:-1], -1)
        change = gaussian(self.changes[number](torch.cat([state, features], -1)))
        return change if prior is None else relative(prior, change)

    def decode(self, z: Sequence[Tensor]) -> Tensor:
        """From the state that all levels leave."""
        state = self.start + sum(says(part) for says, part in zip(self.says, z, strict=True))
        theta = self.out(state.relu())
        return theta.view(*theta.shape[:2], self.parameters_per_pixel, *self.shape)

    def prior(self, noise: Sequence[Tensor]) -> list[Tensor]:
        """Samples from the top down."""
        state, samples = self.start.expand(*noise[0].shape[:2], -1), []
        for number, epsilon in enumerate(noise):
            prior = self._prior(number, state)
            samples.append(epsilon if prior is None else prior.at(epsilon))
            state = state + self.says[number](samples[-1])
        return samples
