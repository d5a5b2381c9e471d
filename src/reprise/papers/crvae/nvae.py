"""A hierarchical convolutional auto-encoder in NVAE's manner (Vahdat and Kautz, 2020), small enough to read.

Groups of latents lie on a grid at one or several scales, coarsest first. A state on the same grid carries what the
groups so far have said; it gives each group's prior, and with the encoder's features its posterior, as a change of that
prior. Left out: normalizing flows, spectral regularisation, depthwise cells. They refine densities and change nothing
about how consistency enters, which is a sum over groups.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from reprise.checks import PositiveInt, checked
from reprise.errors import UserError
from reprise.papers.crvae.model import Autoencoder, Gaussian, Level
from reprise.papers.crvae.networks import gaussian, relative, start_at_prior

SHRINK = 4  # of the channels in a squeeze-and-excitation


class NVAE:
    """Sizes of the network.

    Args:
        channels: of every layer.
        scales: grids, each half as fine as the one before; the finest has half the image's side.
        groups: of latents per scale.
        cells: residual cells between two groups.
    """

    @checked
    def __init__(
        self, channels: PositiveInt = 16, scales: PositiveInt = 2, groups: PositiveInt = 2, cells: PositiveInt = 1
    ) -> None:
        self.channels, self.scales, self.groups, self.cells = channels, scales, groups, cells
        self.title = f"NVAE {channels} channels, {scales} scales of {groups} groups"

    def build(self, shape: tuple[int, ...], latent: int, parameters: int) -> Autoencoder:
        """The network for images ``(C, H, W)``; ``latent`` are channels of a group at every place of its grid.

        Raises:
            UserError: no image, or sides that cannot be halved so often.
        """
        if len(shape) != 3:
            raise UserError("network=vae_nvae_small reads images: use network=vae_cloud for clouds of points.")
        step = 2**self.scales
        if shape[1] % step or shape[2] % step:
            raise UserError(
                f"network=vae_nvae_small halves an image {self.scales} times, which {shape[1]}x{shape[2]} pixels do "
                f"not allow: set method.datamodule.size to a multiple of {step}, or lower method.module.network.scales."
            )
        return Grid(shape, latent, parameters, self)


class Cell(nn.Module):
    """x + 0.1 f(x): twice BatchNorm, Swish and a convolution, then squeeze-and-excitation."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(2):
            layers += [nn.BatchNorm2d(channels), nn.SiLU(), nn.Conv2d(channels, channels, 3, 1, 1)]
        self.body = nn.Sequential(*layers)
        narrow = max(1, channels // SHRINK)
        self.excitation = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, narrow, 1),
            nn.SiLU(),
            nn.Conv2d(narrow, channels, 1),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """``[n, C, H, W]``."""
        y = self.body(x)
        return x + 0.1 * y * self.excitation(y)


class Grid(Autoencoder):
    """See the module's head; groups are numbered from the coarsest scale on."""

    def __init__(self, shape: tuple[int, ...], latent: int, parameters: int, plan: NVAE) -> None:
        super().__init__()
        channels, scales, groups = plan.channels, plan.scales, plan.groups
        self.shape, self.parameters_per_pixel, self.latent, self.groups = shape, parameters, latent, groups
        # grids from the coarsest on
        self.grids = [(shape[1] >> s, shape[2] >> s) for s in range(scales, 0, -1)]
        self.sizes = tuple(latent * h * w for h, w in self.grids for _ in range(groups))

        def cells() -> nn.Sequential:
            return nn.Sequential(*(Cell(channels) for _ in range(plan.cells)))

        def halve(inputs: int) -> nn.Conv2d:
            return nn.Conv2d(inputs, channels, 3, 2, 1)

        count = scales * groups
        self.down = nn.ModuleList(halve(shape[0] if s == 0 else channels) for s in range(scales))  # finest first
        self.up = nn.ModuleList(cells() for _ in range(count))  # of the encoder, in the order of its climb
        self.start = nn.Parameter(torch.zeros(channels, *self.grids[0]))
        self.priors = nn.ModuleList(nn.Conv2d(channels, 2 * latent, 1) for _ in range(count - 1))
        self.changes = nn.ModuleList(nn.Conv2d(2 * channels, 2 * latent, 3, 1, 1) for _ in range(count))
        self.says = nn.ModuleList(nn.Conv2d(channels + latent, channels, 1) for _ in range(count))
        self.between = nn.ModuleList(cells() for _ in range(count))
        self.refine = nn.ModuleList(nn.ConvTranspose2d(channels, channels, 4, 2, 1) for _ in range(scales))
        self.out = nn.Sequential(nn.SiLU(), nn.Conv2d(channels, parameters * shape[0], 3, 1, 1))
        start_at_prior((*self.priors, *self.changes))

    def levels(self, x: Tensor, noise: Sequence[Tensor]) -> list[Level]:
        """All groups; posteriors ``[K, n, d]`` below the first."""
        samples = noise[0].shape[0]
        features = self._climb(x)
        state, found = self.start.expand(samples * len(x), -1, -1, -1), []
        for number, epsilon in enumerate(noise):
            seen = features[number].repeat(samples, 1, 1, 1)
            prior = self._prior(number, state)
            change = self._gaussian(self.changes[number](torch.cat([state, seen], 1)), samples)
            own = None if prior is None else self._gaussian(prior, samples)
            posterior = change if own is None else relative(own, change)
            z = posterior.at(epsilon)
            found.append(Level(posterior, own, z))
            state = self._say(number, state, z)
        return found

    def _climb(self, x: Tensor) -> list[Tensor]:
        """Features for each group ``[n, channels, h, w]``, the coarsest scale's first."""
        features, climbing, number = [], x, 0
        for halve in self.down:
            climbing = halve(climbing)
            for _ in range(self.groups):
                climbing = self.up[number](climbing)
                features.append(climbing)
                number += 1
        return features[::-1]

    def _prior(self, number: int, state: Tensor) -> Tensor | None:
        return None if number == 0 else self.priors[number - 1](state)

    def _gaussian(self, maps: Tensor, samples: int) -> Gaussian:
        """Maps ``[K n, 2 latent, h, w]`` as distributions ``[K, n, latent h w]``."""
        halves = maps.unflatten(1, (2, -1)).flatten(2)  # [K n, 2, d]
        return gaussian(halves.flatten(1).unflatten(0, (samples, -1)))

    def _say(self, number: int, state: Tensor, z: Tensor) -> Tensor:
        """The next state, on the next group's grid."""
        scale = number // self.groups
        said = z.flatten(0, 1).unflatten(1, (self.latent, *self.grids[scale]))
        state = self.between[number](self.says[number](torch.cat([state, said], 1)))
        return self.refine[scale](state) if (number + 1) % self.groups == 0 else state

    def decode(self, z: Sequence[Tensor]) -> Tensor:
        """From the state that all groups leave, at the image's own size."""
        samples, images = z[0].shape[:2]
        state = self.start.expand(samples * images, -1, -1, -1)
        for number, part in enumerate(z):
            state = self._say(number, state, part)
        return self.out(state).reshape(samples, images, self.parameters_per_pixel, *self.shape)

    def prior(self, noise: Sequence[Tensor]) -> list[Tensor]:
        """Samples from the coarsest group on."""
        samples, images = noise[0].shape[:2]
        state, found = self.start.expand(samples * images, -1, -1, -1), []
        for number, epsilon in enumerate(noise):
            prior = self._prior(number, state)
            found.append(epsilon if prior is None else self._gaussian(prior, samples).at(epsilon))
            state = self._say(number, state, found[-1])
        return found
