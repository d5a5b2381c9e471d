"""ProGAN's synthesis network, whose layers are exactly linear maps from key to value.

Karras et al., *Progressive growing of GANs for improved quality, stability, and variation*, ICLR 2018, as it is when
grown. A layer takes what the one before it gave, after bias and leaky ReLU, normalises it at every place, doubles it
where the resolution changes, and convolves. Key and value are what the convolution is given and what it gives, as in
the code of Bau et al. for this architecture: no bias, demodulation, noise or activation lies between them.

The original is fed one latent, at its beginning. Here layer 1 makes features of the first style just so, and biases
are affine functions of styles instead of constants: that is how later layers learn what the whole scene has in common.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reprise.papers.rewriting.network import Layer, Network
from reprise.papers.rewriting.stylegan2 import GAIN, SLOPE, SMALL, Affine


class LinearLayer(Layer):
    """A convolution without bias, and what makes its key.

    Args:
        inputs, outputs: channels.
        upsample: whether the key is twice as large as the features it is made of.
    """

    linear, ratio, noise = True, 1, None

    def __init__(self, inputs: int, outputs: int, upsample: bool) -> None:
        super().__init__()
        self.upsample, self.scale = upsample, GAIN / math.sqrt(inputs * 9)
        self.weight = nn.Parameter(torch.randn(outputs, inputs, 3, 3))

    def key_of(self, x: Tensor) -> Tensor:
        """Features ``[n, inputs, h, h]`` as the convolution sees them."""
        x = normalised(x)
        return F.interpolate(x, scale_factor=2.0) if self.upsample else x

    def value_of(
        self, key: Tensor, scales: Tensor, weight: Tensor | None = None, noise: Tensor | None = None
    ) -> Tensor:
        """W k ``[n, outputs, h, h]``; there are no scales and no noise."""
        return self.convolved(key, (self.weight if weight is None else weight) * self.scale)

    def convolved(self, key: Tensor, weight: Tensor) -> Tensor:
        """The convolution with a weight that is scaled already."""
        return F.conv2d(key, weight, padding=1)

    def gains(self, scales: Tensor, directions: Tensor) -> Callable[[Tensor], Tensor]:
        """1, whatever Lambda is."""
        ones = scales.new_ones(len(scales), len(self.weight))
        return lambda lam: ones

    def finish(self, x: Tensor, noise: Tensor | None = None) -> Tensor:
        """Nothing."""
        return x

    def undone(self, value: Tensor, noise: Tensor | None = None) -> Tensor:
        """Nothing."""
        return value


class Colours(nn.Module):
    """Features to colours: normalised, then a 1x1 convolution."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.scale = 1 / math.sqrt(inputs)
        self.weight = nn.Parameter(torch.randn(3, inputs, 1, 1))
        self.bias = nn.Parameter(torch.zeros(3))

    def forward(self, x: Tensor) -> Tensor:
        """``[n, inputs, h, h]`` -> ``[n, 3, h, h]``."""
        return F.conv2d(normalised(x), self.weight * self.scale, self.bias)


class ProGAN(Network):
    """Styles to images; the last resolution alone gives colours.

    Args:
        channels: of each resolution, from 4x4 on; as many as there are resolutions.
        style: numbers of w.
    """

    modulated = False

    def __init__(self, channels: Sequence[int], style: int) -> None:
        super().__init__()
        self.channels, self.style = tuple(channels), style
        self.size = 4 * 2 ** (len(channels) - 1)
        self.first = nn.Parameter(torch.randn(channels[0] * 16, style))
        self.layers = nn.ModuleDict({"2": LinearLayer(channels[0], channels[0], upsample=False)})
        for level, (before, after) in enumerate(pairwise(channels), start=1):
            self.layers[str(2 * level + 1)] = LinearLayer(before, after, upsample=True)
            self.layers[str(2 * level + 2)] = LinearLayer(after, after, upsample=False)
        outputs = {"1": channels[0]} | {number: len(layer.weight) for number, layer in self.layers.items()}
        self.biases = nn.ModuleDict({number: Affine(style, count, 0.0) for number, count in outputs.items()})
        self.rgbs = nn.ModuleDict({str(self.numbers[-1]): Colours(channels[-1])})

    @property
    def slots(self) -> int:
        """How many styles an image takes: one per layer that can be edited; layer 1 shares that of layer 2."""
        return len(self.layers)

    def begin(self, ws: Tensor) -> Tensor:
        """A linear map of the first style ``[n, C, 4, 4]``."""
        return F.linear(ws[:, 0], self.first / math.sqrt(self.style)).unflatten(1, (-1, 4, 4))

    def active(self, number: int, x: Tensor, ws: Tensor) -> Tensor:
        """What follows a layer's value: bias and leaky ReLU."""
        bias = self.biases[str(number)](ws[:, max(number - 2, 0)])
        return F.leaky_relu(x + bias[:, :, None, None], SLOPE)

    def apply_layer(self, number: int, x: Tensor, ws: Tensor, weight: Tensor | None = None) -> Tensor:
        """One layer's value from that of the layer before it."""
        key, scales = self._key_of(number, x, ws)
        return self.layers[str(number)].value_of(key, scales, weight)

    def coloured(self, number: int, x: Tensor, colours: Tensor | None, ws: Tensor) -> Tensor | None:
        """The colours, after the last layer."""
        return self.rgbs[str(number)](self.active(number, x, ws)) if str(number) in self.rgbs else colours

    def key(self, number: int, ws: Tensor) -> tuple[Tensor, Tensor]:
        """A layer's keys ``[n, I, h, h]`` and the scales ``[n, I]`` in them, which are 1."""
        return self._key_of(number, self.start(ws, number)[0], ws)

    def _key_of(self, number: int, x: Tensor, ws: Tensor) -> tuple[Tensor, Tensor]:
        key = self.layers[str(number)].key_of(self.active(number - 1, x, ws))
        return key, key.new_ones(key.shape[:2])


def normalised(x: Tensor) -> Tensor:
    """Features ``[n, C, h, w]`` of mean square 1 at every place."""
    return x * (x.square().mean(1, keepdim=True) + SMALL).rsqrt()
