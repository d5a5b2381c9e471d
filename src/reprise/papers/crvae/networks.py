"""Flat auto-encoders: perceptrons and the released convolutional network."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from reprise.checks import PositiveInt, checked
from reprise.errors import UserError
from reprise.papers.crvae.model import LOG_VARIANCE, Autoencoder, Gaussian, Level

Widths = Annotated[tuple[PositiveInt, ...], Field(min_length=1)]
ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh, "silu": nn.SiLU}
DEPTH = 4  # halvings of the released convolutional network


def gaussian(numbers: Tensor) -> Gaussian:
    """What a network's ``[..., 2d]`` says: means, and log sigma^2 kept where exp() works."""
    mean, log_variance = numbers.chunk(2, dim=-1)
    return Gaussian(mean, log_variance.clamp(*LOG_VARIANCE))


def relative(prior: Gaussian, change: Gaussian) -> Gaussian:
    """A posterior as a change of its prior: mean in units of the prior's spread, variance as a factor of its own."""
    mean = prior.mean + (0.5 * prior.log_variance).exp() * change.mean
    return Gaussian(mean, (prior.log_variance + change.log_variance).clamp(*LOG_VARIANCE))


@torch.no_grad()
def start_at_prior(layers: Iterable[nn.Module]) -> None:
    """Shrink the layers that give priors and changes: at first every posterior is near its prior, and that standard."""
    for layer in layers:
        layer.weight.mul_(0.1)


def perceptron(sizes: Sequence[int], activation: str) -> nn.Sequential:
    """Linear layers from ``sizes[0]`` numbers to ``sizes[-1]``, the activation between them."""
    layers: list[nn.Module] = []
    for before, after in pairwise(sizes):
        layers += [nn.Linear(before, after), ACTIVATIONS[activation]()]
    return nn.Sequential(*layers[:-1])


class FlatAutoencoder(Autoencoder):
    """One level of latents between an encoder to ``[n, 2d]`` and a decoder from ``[n, d]``.

    Args:
        encoder: ``[n, *shape]`` -> ``[n, 2d]``.
        decoder: ``[m, d]`` -> ``[m, P * numbers of the shape]``, or of shape ``[m, P * C, H, W]``.
        shape: of one input.
        latent: d.
        parameters: P.
    """

    def __init__(
        self, encoder: nn.Module, decoder: nn.Module, shape: tuple[int, ...], latent: int, parameters: int
    ) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder
        self.sizes, self.shape, self.parameters_per_pixel = (latent,), shape, parameters

    def levels(self, x: Tensor, noise: Sequence[Tensor]) -> list[Level]:
        """The one level."""
        posterior = gaussian(self.encoder(x).unsqueeze(0))
        return [Level(posterior, None, posterior.at(noise[0]))]

    def decode(self, z: Sequence[Tensor]) -> Tensor:
        """All samples of all inputs in one pass."""
        samples, images = z[0].shape[:2]
        theta = self.decoder(z[0].flatten(0, 1))
        return theta.view(samples, images, self.parameters_per_pixel, *self.shape)


class MLP:
    """Perceptrons with mirrored layers (the released one has three of 1,000 units).

    Args:
        hidden: units of the encoder's layers; the decoder has them in reverse.
        activation: between layers.
    """

    @checked
    def __init__(self, hidden: Widths, activation: Literal["relu", "tanh", "silu"] = "relu") -> None:
        self.hidden, self.activation = hidden, activation
        self.title = "MLP " + "-".join(map(str, hidden))

    def build(self, shape: tuple[int, ...], latent: int, parameters: int) -> Autoencoder:
        """The network for inputs of any shape."""
        numbers = math.prod(shape)
        encoder = nn.Sequential(nn.Flatten(), *perceptron((numbers, *self.hidden, 2 * latent), self.activation))
        decoder = perceptron((latent, *reversed(self.hidden), parameters * numbers), self.activation)
        return FlatAutoencoder(encoder, decoder, shape, latent, parameters)


class Conv:
    """The released convolutional network for square images (CRVAE/models.py): four halvings, BatchNorm, ReLU.

    Images whose side is no multiple of 16 get a black frame on the way in, which is cut off on the way out.

    Args:
        width: channels after the first layer; 128 in the released file. Each further layer has twice as many.
    """

    @checked
    def __init__(self, width: PositiveInt = 128) -> None:
        self.width = width
        self.title = f"conv {width}-{width * 2 ** (DEPTH - 1)}"

    def build(self, shape: tuple[int, ...], latent: int, parameters: int) -> Autoencoder:
        """The network for images ``(C, H, W)``.

        Raises:
            UserError: no image, or one so small that nothing is left after four halvings.
        """
        if len(shape) != 3:
            raise UserError("network=vae_conv reads images: use network=vae_cloud for clouds of points.")
        channels, height, width = shape
        if min(height, width) < 12:
            raise UserError(
                f"network=vae_conv halves an image {DEPTH} times, which {height}x{width} pixels do not allow: set "
                "method.datamodule.size=32, or use network=vae_mlp."
            )
        sides = tuple(-(-side // 2**DEPTH) for side in (height, width))
        encoder = nn.Sequential(Frame(height, width), *_halvings(channels, self.width), nn.Flatten())
        top = self.width * 2 ** (DEPTH - 1)
        encoder.append(nn.Linear(top * math.prod(sides), 2 * latent))
        decoder = nn.Sequential(
            nn.Linear(latent, top * math.prod(sides)),
            nn.Unflatten(1, (top, *sides)),
            *_doublings(top, self.width, parameters * channels),
            Cut(height, width),
        )
        for module in (encoder, decoder):
            module.apply(_released_start)
        return ImageAutoencoder(encoder, decoder, shape, latent, parameters)


class ImageAutoencoder(FlatAutoencoder):
    """Its decoder gives images; evaluated in channels-last order, which processors prefer."""

    def levels(self, x: Tensor, noise: Sequence[Tensor]) -> list[Level]:
        """The one level."""
        return super().levels(x.contiguous(memory_format=torch.channels_last), noise)

    def decode(self, z: Sequence[Tensor]) -> Tensor:
        """All samples of all inputs in one pass."""
        samples, images = z[0].shape[:2]
        theta = self.decoder(z[0].flatten(0, 1))
        return theta.reshape(samples, images, self.parameters_per_pixel, *self.shape)


class Frame(nn.Module):
    """Pads images with 0 to sides that can be halved."""

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        self.pads = [pad for side in (width, height) for pad in _pads(side)]

    def forward(self, x: Tensor) -> Tensor:
        """``[n, C, H, W]`` with its frame."""
        return F.pad(x, self.pads) if any(self.pads) else x


class Cut(nn.Module):
    """Takes the frame away."""

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        self.rows = slice(_pads(height)[0], _pads(height)[0] + height)
        self.columns = slice(_pads(width)[0], _pads(width)[0] + width)

    def forward(self, x: Tensor) -> Tensor:
        """``[n, C, H, W]`` without it."""
        return x[..., self.rows, self.columns]


def _pads(side: int) -> tuple[int, int]:
    missing = -side % 2**DEPTH
    return missing // 2, missing - missing // 2


def _halvings(channels: int, width: int) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for i in range(DEPTH):
        before, after = (channels if i == 0 else width * 2 ** (i - 1)), width * 2**i
        layers += [nn.Conv2d(before, after, 4, 2, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
    return layers


def _doublings(top: int, width: int, outputs: int) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for i in range(DEPTH - 1):
        before, after = top // 2**i, top // 2 ** (i + 1)
        layers += [nn.ConvTranspose2d(before, after, 4, 2, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
    return [*layers, nn.ConvTranspose2d(width, outputs, 4, 2, 1, bias=False)]


def _released_start(module: nn.Module) -> None:
    """Kaiming-normal convolutions and linear layers; transposed convolutions stay as torch starts them."""
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.kaiming_normal_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
