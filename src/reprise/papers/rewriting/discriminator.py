"""A small residual discriminator, and the augmentation of what it sees.

The network is StyleGAN2's (Karras et al., CVPR 2020): residual blocks that halve the resolution, then the deviation
within the batch as one more channel. Augmentation is that of Karras et al., *Training generative adversarial networks
with limited data*, NeurIPS 2020: reals and fakes alike are transformed with a probability that follows how sure the
discriminator is of the reals. Every transformation is a product with a matrix or a sum, so that it can be
differentiated as often as the gradient penalty needs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reprise.papers.rewriting.stylegan2 import GAIN, SLOPE, SMALL

GROUP = 4  # images whose deviation is taken together
SHIFT = 0.125  # of the side: the largest whole-pixel shift, and the deviation of the fractional one
BRIGHTNESS, CONTRAST = 0.2, 0.5  # deviations of what is added, and of the logarithm to base 2 of what is multiplied
MOST = 0.8  # probability beyond which generators start to draw what is augmented


class Equalised(nn.Module):
    """A convolution whose weights are divided by the root of their number per output at run time."""

    def __init__(self, inputs: int, outputs: int, side: int, active: bool = True) -> None:
        super().__init__()
        self.scale, self.active = 1 / math.sqrt(inputs * side * side), active
        self.weight = nn.Parameter(torch.randn(outputs, inputs, side, side))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """``[n, inputs, h, w]`` -> ``[n, outputs, h, w]`` (1x1 where the kernel is as large as the input, 4x4)."""
        padding = 1 if self.weight.shape[-1] == 3 else 0
        x = F.conv2d(x, self.weight * self.scale, self.bias, padding=padding)
        return F.leaky_relu(x, SLOPE) * GAIN if self.active else x


class Block(nn.Module):
    """Two convolutions and a shortcut to half the resolution, their sum of the variance of either."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first, self.second = Equalised(inputs, inputs, 3), Equalised(inputs, outputs, 3)
        self.shortcut = Equalised(inputs, outputs, 1, active=False)

    def forward(self, x: Tensor) -> Tensor:
        """``[n, inputs, h, w]`` -> ``[n, outputs, h / 2, w / 2]``."""
        along = F.avg_pool2d(self.second(self.first(x)), 2)
        return (along + self.shortcut(F.avg_pool2d(x, 2))) / math.sqrt(2)


class Discriminator(nn.Module):
    """Images to how real they look, as logits.

    Args:
        channels: of each resolution, from 4x4 on; as many as there are resolutions.
    """

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        last = channels[0]
        self.colours = Equalised(3, channels[-1], 1)
        self.blocks = nn.Sequential(*(Block(channels[i], channels[i - 1]) for i in range(len(channels) - 1, 0, -1)))
        self.mixed, self.whole = Equalised(last + 1, last, 3), Equalised(last, last, 4)
        self.score = Equalised(last, 1, 1, active=False)

    def forward(self, images: Tensor) -> Tensor:
        """``[n, 3, s, s]`` in -1..1 -> ``[n]``."""
        x = self.blocks(self.colours(images))
        return self.score(self.whole(self.mixed(with_deviation(x)))).flatten()


def with_deviation(x: Tensor) -> Tensor:
    """Features ``[n, C, h, w]`` with one more channel: how much images of the same group differ, on average.

    Groups are of four images, or of the largest number that divides both four and n.
    """
    n, _, height, width = x.shape
    group = math.gcd(n, GROUP)
    apart = x.unflatten(0, (group, -1))  # [group, n / group, C, h, w]
    deviation = (apart.var(0, correction=0) + SMALL).sqrt().mean((1, 2, 3))  # [n / group]
    return torch.cat([x, deviation.repeat(group).view(-1, 1, 1, 1).expand(-1, 1, height, width)], 1)


class Augmentation(nn.Module):
    """Flips, shifts, brightness and contrast, each with probability p for each image.

    Args:
        target: of the mean sign of the discriminator's logits on reals, above which it is taken to know them by heart.
        images: over how many reals p can go from 0 to 1.
    """

    def __init__(self, target: float, images: int) -> None:
        super().__init__()
        self.target, self.images = target, images
        self.register_buffer("p", torch.zeros(()))
        self.register_buffer("seen", torch.zeros(2))  # sum of signs and number of logits since p was last set

    @torch.no_grad()
    def observe(self, scores: Tensor) -> None:
        """Take note of logits ``[n]`` on reals."""
        self.seen += torch.stack([scores.sign().sum(), scores.new_tensor(len(scores))])

    @torch.no_grad()
    def adapt(self) -> None:
        """Raise p where reals are recognised more often than wanted, lower it where less, and forget them."""
        signs, count = self.seen
        step = (signs / count - self.target).sign() * count / self.images
        self.p.add_(step).clamp_(0, MOST)
        self.seen.zero_()

    def forward(self, x: Tensor, draw: torch.Generator) -> Tensor:
        """Images like ``[n, 3, s, s]``."""
        n, side = len(x), x.shape[-1]

        def chosen(*shape: int) -> Tensor:
            return torch.rand(n, *shape, generator=draw, device=x.device) < self.p

        def normal(*shape: int) -> Tensor:
            return torch.randn(n, *shape, generator=draw, device=x.device)

        flip = chosen() & (torch.rand(n, generator=draw, device=x.device) < 0.5)
        whole = ((2 * torch.rand(n, 2, generator=draw, device=x.device) - 1) * SHIFT * side).round()
        shift = whole * chosen(1) + SHIFT * side * normal(2) * chosen(1)  # right and down, in pixels
        x = moved(x, shift, flip)
        x = x + (BRIGHTNESS * normal() * chosen()).view(-1, 1, 1, 1)
        return x * (CONTRAST * normal() * chosen()).exp2().view(-1, 1, 1, 1)


def moved(x: Tensor, shift: Tensor, flip: Tensor) -> Tensor:
    """Images ``[n, C, s, s]`` flipped left to right where ``flip`` ``[n]`` says so, then shifted.

    What comes from outside is the image mirrored at its outermost pixels, what falls between pixels a mix of both.

    Args:
        shift: ``[n, 2]``, pixels to the right and down.
    """
    side = x.shape[-1]
    right, down = (shifting(side, along) for along in shift.unbind(1))
    right = torch.where(flip.view(-1, 1, 1), right.flip(2), right)
    return torch.einsum("nij,ncjk,nlk->ncil", down, x, right)


def shifting(side: int, shift: Tensor) -> Tensor:
    """Matrices ``[n, side, side]`` that shift a row of pixels by ``[n]`` of them, mirrored at its ends."""
    places = torch.arange(side, device=shift.device, dtype=shift.dtype)
    last = side - 1
    origin = last - ((places - shift.unsqueeze(1)) % (2 * last) - last).abs()  # where each pixel comes from, [n, side]
    return (1 - (origin.unsqueeze(2) - places).abs()).clamp_min(0)
