"""StyleGAN2's synthesis network in plain torch, with every layer's key and value within reach.

Karras et al., *Analyzing and improving the image quality of StyleGAN*, CVPR 2020. No custom kernels. Noise is a fixed
buffer, so that an image follows from its styles alone. Layer 1 is a constant.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reprise.papers.rewriting.network import Layer, Network

SLOPE, GAIN = 0.2, math.sqrt(2)
TAPS = (1.0, 3.0, 3.0, 1.0)  # of the filter that smooths what is upsampled
SMALL = 1e-8


class Affine(nn.Module):
    """Style to one number per channel: s = A w + b, weights divided by sqrt(inputs) at run time.

    Args:
        style: numbers of w.
        channels: numbers of s.
        start: what b is at first: 1 where s scales the channels.
    """

    def __init__(self, style: int, channels: int, start: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(channels, style))
        self.bias = nn.Parameter(torch.full((channels,), start))

    def forward(self, w: Tensor) -> Tensor:
        """``[n, style]`` -> ``[n, channels]``."""
        return F.linear(w, self.weight / math.sqrt(self.weight.shape[1]), self.bias)


class StyledLayer(Layer):
    """A modulated convolution, noise, bias and leaky ReLU.

    The *key* is the input after modulation, the *value* the output after the activation. Demodulation, noise and bias
    lie between them and belong to `value_of`, so that a change of the weight acts as it will in the image.

    Args:
        inputs, outputs: channels.
        style: numbers of w.
        size: of the output.
        upsample: whether the output is twice as large as the input.
        clamp: what values are bounded by in the end; ``None`` = nothing.
    """

    linear = False

    def __init__(
        self, inputs: int, outputs: int, style: int, size: int, upsample: bool, clamp: float | None = None
    ) -> None:
        super().__init__()
        self.ratio, self.scale, self.clamp = 2 if upsample else 1, 1 / math.sqrt(inputs * 9), clamp
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
        if self.ratio == 2:
            return smooth(F.conv_transpose2d(key, weight.transpose(0, 1), stride=2), 1, 1, 4.0)
        return F.conv2d(key, weight, padding=1)

    def finish(self, x: Tensor, noise: Tensor | None = None) -> Tensor:
        """Noise, bias and activation."""
        x = x + self.noise_strength * (self.noise if noise is None else noise)
        return bounded(F.leaky_relu(x + self.bias.view(1, -1, 1, 1), SLOPE) * GAIN, self.clamp)

    def undone(self, value: Tensor, noise: Tensor | None = None) -> Tensor:
        """What the demodulated convolution must have given for a value: activation, bias and noise taken off."""
        x = value / GAIN
        x = torch.where(x < 0, x / SLOPE, x)
        return x - self.bias.view(1, -1, 1, 1) - self.noise_strength * (self.noise if noise is None else noise)

    @torch.no_grad()
    def gains(self, scales: Tensor, directions: Tensor) -> Callable[[Tensor], Tensor]:
        """The demodulation's factors ``[n, O]`` at W + Lambda D: their energy is a quadratic form of Lambda."""
        d, w, squares = directions, self.weight * self.scale, scales.square()
        energy = torch.einsum("oiyx,si->so", w.square(), squares)
        cross = 2 * self.scale * torch.einsum("oiyx,si,ri->soryx", w, squares, d)
        gram = self.scale**2 * torch.einsum("si,ri,qi->srq", squares, d, d)

        def gain(lam: Tensor) -> Tensor:
            linear = torch.einsum("soryx,oryx->so", cross, lam)
            square = torch.einsum("oryx,oqyx,srq->so", lam, lam, gram)
            return (energy + linear + square + SMALL).rsqrt()

        return gain


class ToRGB(nn.Module):
    """Features to colours: a modulated 1x1 convolution without demodulation."""

    def __init__(self, inputs: int, style: int, clamp: float | None = None) -> None:
        super().__init__()
        self.scale, self.clamp = 1 / math.sqrt(inputs), clamp
        self.affine = Affine(style, inputs)
        self.weight = nn.Parameter(torch.randn(3, inputs, 1, 1))
        self.bias = nn.Parameter(torch.zeros(3))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """``[n, inputs, h, h]`` -> ``[n, 3, h, h]``."""
        x = F.conv2d(x * self.affine(w)[:, :, None, None], self.weight * self.scale) + self.bias.view(1, 3, 1, 1)
        return bounded(x, self.clamp)


def bounded(x: Tensor, by: float | None) -> Tensor:
    """Values between -by and by; ``None`` = as they are."""
    return x if by is None else x.clamp(-by, by)


class Synthesis(Network):
    """Styles to images.

    Args:
        channels: of each resolution, from 4x4 on; as many as there are resolutions.
        style: numbers of w.
        clamp: what values and colours are bounded by, in networks that were trained in half precision.
    """

    modulated = True

    def __init__(self, channels: Sequence[int], style: int, clamp: float | None = None) -> None:
        super().__init__()
        self.channels, self.style = tuple(channels), style
        self.size = 4 * 2 ** (len(channels) - 1)
        self.constant = nn.Parameter(torch.randn(1, channels[0], 4, 4))
        self.layers = nn.ModuleDict({"2": StyledLayer(channels[0], channels[0], style, 4, False, clamp)})
        self.rgbs = nn.ModuleDict({"2": ToRGB(channels[0], style, clamp)})
        for level, (before, after) in enumerate(pairwise(channels), start=1):
            size, number = 4 * 2**level, 2 * level + 1
            self.layers[str(number)] = StyledLayer(before, after, style, size, True, clamp)
            self.layers[str(number + 1)] = StyledLayer(after, after, style, size, False, clamp)
            self.rgbs[str(number + 1)] = ToRGB(after, style, clamp)

    @property
    def slots(self) -> int:
        """How many styles an image takes: one per layer, and one for the last step to colours."""
        return len(self.layers) + 1

    def begin(self, ws: Tensor) -> Tensor:
        """The constant ``[n, C, 4, 4]``."""
        return self.constant.expand(len(ws), -1, -1, -1)

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
