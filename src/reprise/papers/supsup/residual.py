"""Residual networks with a task axis: GEM's small ResNet-18 for CIFAR and ResNet-50 for ImageNet.

T networks lie side by side as blocks of channels: activations are ``[B, T*C, H, W]`` and convolutions have T groups,
so that tasks never mix. Every layer is masked, the 1x1 convolutions of the shortcuts and the classifier included.
BatchNorm has no scale and shift; its statistics belong to a task and come from outside (`Statistics`).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from reprise.checks import PositiveInt, checked
from reprise.errors import UserError
from reprise.papers.supsup.networks import Network, Shape, Statistics

MOMENTUM, EPS = 0.1, 1e-5  # of BatchNorm; torch's defaults


@dataclass(frozen=True)
class Conv:
    """A padded convolution without bias, followed by BatchNorm."""

    fan_in: int
    fan_out: int
    size: int = 3
    stride: int = 1

    @property
    def shape(self) -> Shape:
        """Of its weight."""
        return (self.fan_out, self.fan_in, self.size, self.size)


@dataclass(frozen=True)
class Block:
    """Convolutions with a shortcut around them: the identity, or a convolution where the shape changes."""

    body: tuple[Conv, ...]
    shortcut: Conv | None

    @property
    def convolutions(self) -> tuple[Conv, ...]:
        """In the order of their weights."""
        return self.body if self.shortcut is None else (*self.body, self.shortcut)


class ResidualNetwork(Network):
    """A stem, blocks, the mean over all places, and a linear classifier; subclasses say which."""

    stem: Conv
    blocks: tuple[Block, ...] = ()
    pool = False  # after the stem: maximum of 3x3 places, every second one

    @abstractmethod
    def _plan(self, colours: int) -> tuple[Conv, list[Block]]:
        """The stem for images of so many colours, and the blocks."""

    def _shapes(self) -> list[Shape]:
        if len(self.inputs) != 3 or 0 in self.inputs:
            raise UserError(
                f"network={self.name} reads images [colours, height, width], and inputs of this data set have shape "
                f"{list(self.inputs)}: choose another data set, or network=lenet or fc."
            )
        self.stem, blocks = self._plan(self.inputs[0])
        self.blocks = tuple(blocks)
        convolutions = [self.stem, *(conv for block in blocks for conv in block.convolutions)]
        self.widths = [conv.fan_out for conv in convolutions]
        self.channels = sum(self.widths)
        return [*(conv.shape for conv in convolutions), (self.outputs, blocks[-1].body[-1].fan_out)]

    def __call__(self, weights: Sequence[Tensor], x: Tensor, statistics: Statistics | None = None) -> Tensor:
        """Logits ``[T, B, s]`` of images ``[T, B, C, H, W]`` of any height and width.

        Without statistics a batch is normalised with its own moments, which are kept nowhere. Grouped convolutions are
        slow on a processor, so there the tasks take turns; a task's result then has the same bits in any company.
        """
        if x.device.type != "cpu":
            return self.together(weights, x, statistics)
        turns = [slice(t, t + 1) for t in range(len(x))]
        return torch.cat([self.together([w[t] for w in weights], x[t], statistics and statistics.of(t)) for t in turns])

    def together(self, weights: Sequence[Tensor], x: Tensor, statistics: Statistics | None = None) -> Tensor:
        """The same with all tasks side by side, as one network with T groups of channels."""
        tasks = len(x)
        norms = _Norms(statistics, self.widths, tasks)
        layer = _Layers(weights[:-1], norms, tasks)
        layout = torch.channels_last if tasks == 1 and x.device.type == "cpu" else torch.contiguous_format
        h = x.transpose(0, 1).flatten(1, 2).contiguous(memory_format=layout)
        h = F.relu_(layer(self.stem, h)).contiguous(memory_format=layout)  # one colour has no layout to hand on
        if self.pool:
            h = F.max_pool2d(h, 3, 2, 1)
        for block in self.blocks:
            h = _residual(layer, block, h)
        norms.close()
        features = h.mean((2, 3)).unflatten(1, (tasks, -1)).transpose(0, 1)
        return torch.bmm(features, weights[-1].transpose(1, 2))


class GemResNet18(ResidualNetwork):
    """The ResNet-18 with few channels of Lopez-Paz and Ranzato (2017), here with BatchNorm per task.

    1,090,940 weights in 21 layers with width 20, three colours and 5 outputs. A 3x3 stem, then four stages of two
    blocks of two 3x3 convolutions with 1, 2, 4 and 8 times the width. An image of 32x32 ends as 4x4 places.

    Args:
        width: channels of the stem and of the first stage.
    """

    name = "gem_resnet18"

    @checked
    def __init__(self, width: PositiveInt = 20) -> None:
        self.width = width

    def describe(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"width": self.width}

    def _plan(self, colours: int) -> tuple[Conv, list[Block]]:
        blocks, fan_in = [], self.width
        for stage in range(4):
            for place in range(2):
                fan_out, stride = self.width * 2**stage, 2 if stage and not place else 1
                body = (Conv(fan_in, fan_out, 3, stride), Conv(fan_out, fan_out))
                blocks.append(_block(body, fan_in, fan_out, stride))
                fan_in = fan_out
        return Conv(colours, self.width), blocks


class ResNet50(ResidualNetwork):
    """ResNet-50 (He et al. 2016) with the stride in the 3x3 convolution, as torchvision has it.

    23,475,392 weights in 54 layers with three colours and 10 outputs, and 26,560 channels of BatchNorm.
    """

    name = "resnet50"
    pool = True

    def describe(self) -> dict[str, Any]:
        """There are no arguments."""
        return {}

    def _plan(self, colours: int) -> tuple[Conv, list[Block]]:
        blocks, fan_in = [], 64
        for stage, depth in enumerate((3, 4, 6, 3)):
            for place in range(depth):
                inner, stride = 64 * 2**stage, 2 if stage and not place else 1
                body = (Conv(fan_in, inner, 1), Conv(inner, inner, 3, stride), Conv(inner, 4 * inner, 1))
                blocks.append(_block(body, fan_in, 4 * inner, stride))
                fan_in = 4 * inner
        return Conv(colours, 64, 7, 2), blocks


def _block(body: tuple[Conv, ...], fan_in: int, fan_out: int, stride: int) -> Block:
    return Block(body, Conv(fan_in, fan_out, 1, stride) if fan_in != fan_out else None)


def _residual(layer: _Layers, block: Block, x: Tensor) -> Tensor:
    h = x
    for conv in block.body[:-1]:
        h = F.relu_(layer(conv, h))
    h = layer(block.body[-1], h)
    return F.relu_(h.add_(x if block.shortcut is None else layer(block.shortcut, x)))


class _Layers:
    """Applies one convolution with its BatchNorm after another, in the order of the weights."""

    def __init__(self, weights: Sequence[Tensor], norms: _Norms, tasks: int) -> None:
        self.weights: Iterator[Tensor] = iter(weights)
        self.norms, self.tasks = norms, tasks

    def __call__(self, conv: Conv, x: Tensor) -> Tensor:
        """``[B, T*fan_in, H, W]`` to ``[B, T*fan_out, H', W']``."""
        weight = next(self.weights).flatten(0, 1)
        return self.norms(F.conv2d(x, weight, None, conv.stride, conv.size // 2, groups=self.tasks))


class _Norms:
    """BatchNorm without scale and shift, one layer after another.

    Running moments move in copies, each layer's in a row as torch wants them, and `close` writes them back: torch keeps
    them for the backward pass, which would refuse them if another layer had changed the same tensor meanwhile.
    """

    def __init__(self, statistics: Statistics | None, widths: list[int], tasks: int) -> None:
        self.statistics, self.widths, self.tasks = statistics, widths, tasks
        self.training = statistics is None or statistics.training
        self.parts: list[tuple[Tensor | None, Tensor | None]] = [(None, None)] * len(widths)
        if statistics is not None:
            rows = (statistics.mean, statistics.var)
            parts = ([part.flatten().clone() for part in row.split(widths, 1)] for row in rows)
            self.parts = list(zip(*parts, strict=True))
        self.at = 0

    def __call__(self, x: Tensor) -> Tensor:
        """The next layer, normalised."""
        mean, var = self.parts[self.at]
        self.at += 1
        return F.batch_norm(x, mean, var, None, None, self.training, MOMENTUM, EPS)

    def close(self) -> None:
        """All layers are done."""
        if self.statistics is None or not self.training:
            return
        for row, parts in zip((self.statistics.mean, self.statistics.var), zip(*self.parts, strict=True), strict=True):
            row.copy_(torch.cat([part.view(self.tasks, -1) for part in parts], 1))
