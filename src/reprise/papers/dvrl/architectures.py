"""Image networks that hold G independent copies of themselves side by side.

A copy is a block of channels: activations are ``[N, G*C, H, W]`` and convolutions have G groups, so that copies never
mix, and batch normalisation over G*C channels is exactly G separate ones. The first convolution reads the one image
that all copies share. The first axis of every parameter and buffer is G times its size in a single network, copy by
copy.

Every network takes ``copies`` = G, ``image`` = (C, H, W) and ``outputs``, maps ``[N, C, H, W]`` to ``[N, G, outputs]``,
and has a ``name``.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reprise.checks import PositiveInt, checked
from reprise.errors import UserError

Image = tuple[int, ...]


class GroupedLinear(nn.Module):
    """G linear layers: ``[N, G*in]`` to ``[N, G, out]``; ``weight [G*out, in]``, ``bias [G*out]``."""

    def __init__(self, copies: int, fan_in: int, fan_out: int) -> None:
        super().__init__()
        self.copies = copies
        self.weight = nn.Parameter(torch.empty(copies * fan_out, fan_in))
        self.bias = nn.Parameter(torch.empty(copies * fan_out))

    def forward(self, x: Tensor) -> Tensor:
        """All copies in one batched product."""
        inputs = x.unflatten(1, (self.copies, -1)).transpose(0, 1)
        weight = self.weight.unflatten(0, (self.copies, -1)).transpose(1, 2)
        bias = self.bias.view(self.copies, 1, -1)
        return torch.baddbmm(bias, inputs, weight).transpose(0, 1)


def conv(
    copies: int, fan_in: int, fan_out: int, size: int = 3, stride: int = 1, first: bool = False, bias: bool = False
) -> nn.Conv2d:
    """A padded convolution in every copy; the ``first`` one of a network reads the shared image."""
    inputs, groups = (fan_in, 1) if first else (copies * fan_in, copies)
    return nn.Conv2d(inputs, copies * fan_out, size, stride, size // 2, groups=groups, bias=bias)


def norm(copies: int, channels: int) -> nn.BatchNorm2d:
    """Batch normalisation in every copy."""
    layer = nn.BatchNorm2d(copies * channels)
    layer.num_batches_tracked = None  # only counts, and only matters for a cumulative average
    return layer


def initialise(network: nn.Module, generator: torch.Generator) -> None:
    """Start a network of one copy.

    Convolutions: normal, variance 2 / fan-out (He et al. 2015, equation 14). Batch normalisation: scale 1, shift 0.
    Last layer: uniform within 1 / sqrt(fan-in). Biases 0.
    """
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu", generator=generator)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.BatchNorm2d):
            nn.init.ones_(layer.weight)
            nn.init.zeros_(layer.bias)
            layer.running_mean.zero_()
            layer.running_var.fill_(1)
        elif isinstance(layer, GroupedLinear):
            bound = 1 / math.sqrt(layer.weight.shape[1])
            nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
            nn.init.zeros_(layer.bias)


class SmallCNN(nn.Module):
    """Two 3x3 convolutions with stride 2 and ReLU, then one linear layer.

    Made for processors and short fits: about 0.3 million multiplications for an image of 28x28, and no batch
    normalisation, whose running statistics lag behind in the first steps. So a row of weight 0 is as good as absent.

    Args:
        copies: see the module.
        image: see the module.
        outputs: see the module.
        channels: of the first convolution; the second has twice as many.
    """

    @checked
    def __init__(self, copies: PositiveInt, image: Image, outputs: PositiveInt, channels: PositiveInt = 16) -> None:
        super().__init__()
        self.name = "cnn"
        height, width = (-(-side // 4) for side in image[1:])
        self.features = nn.Sequential(
            conv(copies, image[0], channels, stride=2, first=True, bias=True),
            nn.ReLU(),
            conv(copies, channels, 2 * channels, stride=2, bias=True),
            nn.ReLU(),
        )
        self.head = GroupedLinear(copies, 2 * channels * height * width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C, H, W]`` to ``[N, G, outputs]``."""
        return self.head(self.features(x).flatten(1))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with a shortcut around them (He et al. 2016, figure 2).

    The shortcut has no parameters (option A): where the size changes it takes every second pixel and pads the new
    channels with zeros.
    """

    def __init__(self, copies: int, fan_in: int, fan_out: int, stride: int) -> None:
        super().__init__()
        self.copies, self.added, self.stride = copies, fan_out - fan_in, stride
        self.conv1, self.norm1 = conv(copies, fan_in, fan_out, stride=stride), norm(copies, fan_out)
        self.conv2, self.norm2 = conv(copies, fan_out, fan_out), norm(copies, fan_out)

    def forward(self, x: Tensor) -> Tensor:
        """Shapes as in the class."""
        hidden = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(hidden)) + self._shortcut(x))

    def _shortcut(self, x: Tensor) -> Tensor:
        if not self.added:
            return x
        by_copy = x[:, :, :: self.stride, :: self.stride].unflatten(1, (self.copies, -1))
        return F.pad(by_copy, (0, 0, 0, 0, 0, self.added)).flatten(1, 2)


class ResNet(nn.Module):
    """The residual network for CIFAR of He et al. 2016, section 4.2; 464,154 parameters at depth 32 with 10 classes.

    Args:
        copies: see the module.
        image: see the module.
        outputs: see the module.
        depth: layers with weights, 6n + 2: three stages of n blocks with 16, 32 and 64 channels.

    Raises:
        UserError: another depth.
    """

    @checked
    def __init__(self, copies: PositiveInt, image: Image, outputs: PositiveInt, depth: PositiveInt = 32) -> None:
        super().__init__()
        self.name = f"resnet{depth}"
        blocks = blocks_of(depth, 2)
        self.first, self.norm = conv(copies, image[0], 16, first=True), norm(copies, 16)
        self.blocks = nn.Sequential(
            *(
                BasicBlock(copies, fan_in if block == 0 else fan_out, fan_out, stride if block == 0 else 1)
                for fan_in, fan_out, stride in ((16, 16, 1), (16, 32, 2), (32, 64, 2))
                for block in range(blocks)
            )
        )
        self.head = GroupedLinear(copies, 64, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C, H, W]`` to ``[N, G, outputs]``."""
        hidden = self.blocks(F.relu(self.norm(self.first(x))))
        return self.head(hidden.mean((2, 3)))


class WideBlock(nn.Module):
    """Normalise, ReLU, convolve, twice (Zagoruyko and Komodakis 2016, figure 1c, without dropout).

    Where the number of channels changes, the shortcut is a 1x1 convolution of the activated input, as released.
    """

    def __init__(self, copies: int, fan_in: int, fan_out: int, stride: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = norm(copies, fan_in), conv(copies, fan_in, fan_out, stride=stride)
        self.norm2, self.conv2 = norm(copies, fan_out), conv(copies, fan_out, fan_out)
        self.shortcut = conv(copies, fan_in, fan_out, 1, stride) if fan_in != fan_out or stride > 1 else None

    def forward(self, x: Tensor) -> Tensor:
        """Shapes as in the class."""
        active = F.relu(self.norm1(x))
        hidden = self.conv2(F.relu(self.norm2(self.conv1(active))))
        return hidden + (x if self.shortcut is None else self.shortcut(active))


class WideResNet(nn.Module):
    """Wide residual network of Zagoruyko and Komodakis 2016, table 1, dropout 0.

    WRN-28-10 has 36,479,194 parameters with 10 classes.

    Args:
        copies: see the module.
        image: see the module.
        outputs: see the module.
        depth: convolutions, 6n + 4: three stages of n blocks.
        width: k; the stages have 16k, 32k and 64k channels.

    Raises:
        UserError: another depth.
    """

    @checked
    def __init__(
        self,
        copies: PositiveInt,
        image: Image,
        outputs: PositiveInt,
        depth: PositiveInt = 28,
        width: PositiveInt = 10,
    ) -> None:
        super().__init__()
        self.name = f"wrn{depth}_{width}"
        blocks = blocks_of(depth, 4)
        sizes = [16, 16 * width, 32 * width, 64 * width]
        self.first = conv(copies, image[0], 16, first=True)
        self.blocks = nn.Sequential(
            *(
                WideBlock(copies, sizes[stage if block == 0 else stage + 1], sizes[stage + 1], stride)
                for stage in range(3)
                for block in range(blocks)
                for stride in (2 if stage and block == 0 else 1,)
            )
        )
        self.norm, self.head = norm(copies, sizes[-1]), GroupedLinear(copies, sizes[-1], outputs)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C, H, W]`` to ``[N, G, outputs]``."""
        hidden = F.relu(self.norm(self.blocks(self.first(x))))
        return self.head(hidden.mean((2, 3)))


def blocks_of(depth: int, outside: int) -> int:
    """n of a depth 6n + ``outside``."""
    blocks, rest = divmod(depth - outside, 6)
    if rest or blocks < 1:
        known = ", ".join(str(6 * n + outside) for n in (1, 2, 3, 4, 5, 6))
        raise UserError(
            f"method.module.predictor.architecture.depth={depth} cannot be used: this network has 6n + {outside} "
            f"layers; choose one of {known}, ..."
        )
    return blocks
