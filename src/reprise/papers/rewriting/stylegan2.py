"""StyleGAN2's synthesis network in plain torch, with every layer's key and value within reach.

Karras et al., *Analyzing and improving the image quality of StyleGAN*, CVPR 2020. No custom kernels. Noise is a fixed
buffer, so that an image follows from its styles alone. Layers are numbered as in the paper's code: 1 is the constant,
2 the convolution at 4x4, then two per resolution, odd ones upsampling.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SLOPE, GAIN = 0.2, math.sqrt(2)
TAPS = (1.0, 3.0, 3.0, 1.0)  # of the filter that smooths what is upsampled
SMALL = 1e-8


class Affine(nn.Module):
    """Style to scales of the input channels: s = A w + b with b near 1, weights divided by sqrt(inputs) at run time."""

    def __init__(self, style: int, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(channels, style))
        self.bias = nn.Parameter(torch.ones(channels))

    def forward(self, w: Tensor) -> Tensor:
        """``[n, style]`` -> ``[n, channels]``."""
        return F.linear(w, self.weight / math.sqrt(self.weight.shape[1]), self.bias)


class StyledLayer(nn.Module):
    """A modulated convolution, noise, bias and leaky ReLU.

    The *key* is the input after modulation, the *value* the output after the activation. Demodulation, noise and bias
    lie between them and belong to `value_of`, so that a change of the weight acts as it will in the image.

    Args:
        inputs, outputs: channels.
        style: numbers of w.
        size: of the output.
        upsample: whether the output is twice as large as the input.
    """

    def __init__(self, inputs: int, outputs: int, style: int, size: int, upsample: bool) -> None:
        super().__init__()
        self.upsample, self.scale = upsample, 1 / math.sqrt(inputs * 9)
        self.affine = Affine(style, inputs)
        self.weight = nn.Parameter(torch.randn(outputs, inputs, 3, 3))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.noise_strength = nn.Parameter(torch.zeros(()))
        self.register_buffer("noise", torch.randn(1, 1, size, size))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """``[n, inputs, h, h]`` and styles ``[n, style]`` -> ``[n, outputs, size, size]``."""
        scales = self.affine(w)
        return self.value_of(self.key_of(x, scales), scales)

    @staticmethod
    def key_of(x: Tensor, scales: Tensor) -> Tensor:
        """The input as the convolution sees it ``[n, inputs, h, h]``."""
        return x * scales[:, :, None, None]

    def value_of(
        self, key: Tensor, scales: Tensor, weight: Tensor | None = None, noise: Tensor | None = None
    ) -> Tensor:
        """f(k; W) ``[n, outputs, size, size]`` of a key ``[n, inputs, h, h]``, perhaps with another weight or noise."""
        return self.finish(self.convolve(key, scales, weight), noise)

    def convolve(self, key: Tensor, scales: Tensor, weight: Tensor | None = None) -> Tensor:
        """Convolution, smoothing and demodulation, before noise, bias and activation."""
        weight = (self.weight if weight is None else weight) * self.scale
        energy = scales.square() @ weight.square().sum((2, 3)).T  # [n, outputs]
        return self.convolved(key, weight) * (energy + SMALL).rsqrt()[:, :, None, None]

    def convolved(self, key: Tensor, weight: Tensor) -> Tensor:
        """The convolution with a weight that is scaled already, smoothed where it upsamples; not demodulated."""
        if self.upsample:
            return smooth(F.conv_transpose2d(key, weight.transpose(0, 1), stride=2), 1, 1, 4.0)
        return F.conv2d(key, weight, padding=1)

    def finish(self, x: Tensor, noise: Tensor | None = None) -> Tensor:
        """Noise, bias and activation."""
        x = x + self.noise_strength * (self.noise if noise is None else noise)
        return F.leaky_relu(x + self.bias.view(1, -1, 1, 1), SLOPE) * GAIN


class ToRGB(nn.Module):
    """Features to colours: a modulated 1x1 convolution without demodulation."""

    def __init__(self, inputs: int, style: int) -> None:
        super().__init__()
        self.scale = 1 / math.sqrt(inputs)
        self.affine = Affine(style, inputs)
        self.weight = nn.Parameter(torch.randn(3, inputs, 1, 1))
        self.bias = nn.Parameter(torch.zeros(3))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """``[n, inputs, h, h]`` -> ``[n, 3, h, h]``."""
        return F.conv2d(x * self.affine(w)[:, :, None, None], self.weight * self.scale) + self.bias.view(1, 3, 1, 1)


class Synthesis(nn.Module):
    """Styles to images.

    Args:
        channels: of each resolution, from 4x4 on; as many as there are resolutions.
        style: numbers of w.
    """

    def __init__(self, channels: Sequence[int], style: int) -> None:
        super().__init__()
        self.channels, self.style = tuple(channels), style
        self.size = 4 * 2 ** (len(channels) - 1)
        self.constant = nn.Parameter(torch.randn(1, channels[0], 4, 4))
        self.layers = nn.ModuleDict({"2": StyledLayer(channels[0], channels[0], style, 4, upsample=False)})
        self.rgbs = nn.ModuleDict({"2": ToRGB(channels[0], style)})
        for level, (before, after) in enumerate(pairwise(channels), start=1):
            size, number = 4 * 2**level, 2 * level + 1
            self.layers[str(number)] = StyledLayer(before, after, style, size, upsample=True)
            self.layers[str(number + 1)] = StyledLayer(after, after, style, size, upsample=False)
            self.rgbs[str(number + 1)] = ToRGB(after, style)

    @property
    def numbers(self) -> range:
        """Numbers of the layers that can be edited."""
        return range(2, len(self.layers) + 2)

    @property
    def slots(self) -> int:
        """How many styles an image takes: one per layer, and one for the last step to colours."""
        return len(self.layers) + 1

    def forward(self, ws: Tensor) -> Tensor:
        """Images ``[n, 3, size, size]``, about -1..1, of styles ``[n, slots, style]``."""
        return self.finish(self.start(ws), ws)

    def start(self, ws: Tensor, layer: int | None = None) -> tuple[Tensor, Tensor | None, int]:
        """Features and colours before a layer, ``None`` for the first one; what `finish` goes on from.

        An edit changes nothing before its layer: that part is shared by images before and after it.
        """
        state: tuple[Tensor, Tensor | None, int] = (self.constant.expand(len(ws), -1, -1, -1), None, 2)
        return state if layer is None else self._through(state, ws, layer)

    def finish(
        self, state: tuple[Tensor, Tensor | None, int], ws: Tensor, weights: Mapping[int, Tensor] = {}
    ) -> Tensor:
        """Images from a state on; ``weights`` stand in the place of some layers' own."""
        _, colours, _ = self._through(state, ws, len(self.layers) + 2, weights)
        return colours

    def _through(
        self,
        state: tuple[Tensor, Tensor | None, int],
        ws: Tensor,
        end: int,
        weights: Mapping[int, Tensor] = {},
    ) -> tuple[Tensor, Tensor | None, int]:
        x, colours, first = state
        for number in range(first, end):
            x = self.apply_layer(number, x, ws, weights.get(number))
            colours = self.coloured(number, x, colours, ws)
        return x, colours, end

    def apply_layer(self, number: int, x: Tensor, ws: Tensor, weight: Tensor | None = None) -> Tensor:
        """One layer's value from the features before it."""
        layer = self.layers[str(number)]
        scales = layer.affine(ws[:, number - 2])
        return layer.value_of(layer.key_of(x, scales), scales, weight)

    def coloured(self, number: int, x: Tensor, colours: Tensor | None, ws: Tensor) -> Tensor | None:
        """The colours so far, with what a layer adds to them, if it is the last one of its resolution."""
        if str(number) not in self.rgbs:
            return colours
        added = self.rgbs[str(number)](x, ws[:, number - 1])
        return added if colours is None else added + twice(colours)

    def key(self, number: int, ws: Tensor) -> tuple[Tensor, Tensor]:
        """A layer's keys ``[n, I, h, h]`` and the scales ``[n, I]`` in them."""
        x, _, _ = self.start(ws, number)
        layer = self.layers[str(number)]
        scales = layer.affine(ws[:, number - 2])
        return layer.key_of(x, scales), scales


class Mapping8(nn.Module):
    """z to w: normalised, then perceptrons whose weights learn a hundredth as fast (``lr_mul``).

    Args:
        latent: numbers of z.
        style: numbers of w.
        layers: perceptrons.
    """

    def __init__(self, latent: int, style: int, layers: int = 8, lr_mul: float = 0.01) -> None:
        super().__init__()
        self.lr_mul = lr_mul
        sizes = [latent, *[style] * layers]
        self.weights = nn.ParameterList(torch.randn(o, i) / lr_mul for i, o in pairwise(sizes))
        self.biases = nn.ParameterList(torch.zeros(style) for _ in range(layers))
        self.register_buffer("mean", torch.zeros(style))

    def forward(self, z: Tensor, psi: float = 1.0) -> Tensor:
        """Styles ``[n, style]`` of latents ``[n, latent]``, drawn towards their mean by ``psi`` (truncation)."""
        w = z * (z.square().mean(1, keepdim=True) + SMALL).rsqrt()
        for weight, bias in zip(self.weights, self.biases, strict=True):
            w = F.linear(w, weight * (self.lr_mul / math.sqrt(weight.shape[1])), bias * self.lr_mul)
            w = F.leaky_relu(w, SLOPE) * GAIN
        return self.mean + psi * (w - self.mean)


def smooth(x: Tensor, before: int, after: int, gain: float) -> Tensor:
    """Filter ``[n, C, h, w]`` with [1, 3, 3, 1] in both directions, padded by so many zeros at each end."""
    taps = torch.tensor(TAPS, dtype=x.dtype, device=x.device)
    taps = taps / taps.sum() * math.sqrt(gain)
    channels = x.shape[1]
    x = F.pad(x, (before, after, before, after))
    x = F.conv2d(x, taps.view(1, 1, 1, -1).expand(channels, 1, 1, -1), groups=channels)
    return F.conv2d(x, taps.view(1, 1, -1, 1).expand(channels, 1, -1, 1), groups=channels)


def twice(colours: Tensor) -> Tensor:
    """Images of twice the size: zeros in between, then smoothed."""
    n, channels, height, width = colours.shape
    wide = colours.new_zeros(n, channels, 2 * height, 2 * width)
    wide[:, :, ::2, ::2] = colours
    return smooth(wide, 2, 1, 4.0)
