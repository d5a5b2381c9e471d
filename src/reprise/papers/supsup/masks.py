"""Which weights a task keeps: the two mask searches of the paper, and how many weights each layer may keep.

Scores S have one real number per weight. The mask is a function of the scores, the gradient passes through it as if it
were the identity (straight-through): dL/dS = dL/dM = W * dL/dW~ with W~ = W * M; by |S| where the mask goes by |S|.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reprise.checks import PositiveFloat, checked
from reprise.papers.supsup.networks import Shape, fan_in


class _MaskedWeight(torch.autograd.Function):
    """W * M with the straight-through gradient; ``mask`` is W where kept and 0 elsewhere."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, weight: Tensor, masked: Tensor) -> Tensor:
        ctx.save_for_backward(weight)
        return masked

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor, None, None]:
        (weight,) = ctx.saved_tensors
        return grad[0] * weight, None, None


def masked_weight(scores: Tensor, weight: Tensor, mask: Tensor) -> Tensor:
    """W~ = W * M ``[T, *shape]`` for scores and their 0/1 mask ``[T, *shape]``, which is used up, and one weight."""
    return _MaskedWeight.apply(scores, weight, mask.mul_(weight))


def initial_scores(shapes: Sequence[Shape], generator: torch.Generator) -> list[Tensor]:
    """Uniform within 1 / sqrt(fan_in) (Kaiming-uniform with a = sqrt 5), one tensor per layer."""
    return [(torch.rand(shape, generator=generator) * 2 - 1) / math.sqrt(fan_in(shape)) for shape in shapes]


class MaskSearch(ABC):
    """How scores become a mask."""

    @abstractmethod
    def kept(self, scores: Tensor) -> Tensor:
        """The mask ``[T, *shape]``, bool, of one layer's scores ``[T, *shape]``."""

    def mask(self, scores: Tensor) -> Tensor:
        """The same as 0 and 1 of the scores' type, in a tensor of its own."""
        return self.kept(scores).to(scores.dtype)

    def as_scores(self, mean: Tensor) -> Tensor:
        """Scores in -1..1 that stand for a mean of masks ``[*shape]`` in 0..1."""
        return mean

    def weights(self, scores: Sequence[Tensor], frozen: Sequence[Tensor]) -> list[Tensor]:
        """W~ of every layer, differentiable by the scores."""
        layers = zip(scores, frozen, strict=True)
        return [masked_weight(self.importance(s), w, self.mask(s.detach())) for s, w in layers]

    def importance(self, scores: Tensor) -> Tensor:
        """What the mask grows with, and what the straight-through gradient is therefore passed to."""
        return scores


class Threshold(MaskSearch):
    """M = 1[S >= 0]; density is free and starts near one half. For permuted and rotated MNIST (section 4.2)."""

    def kept(self, scores: Tensor) -> Tensor:
        """A score of exactly 0 is kept."""
        return scores >= 0

    def mask(self, scores: Tensor) -> Tensor:
        """In one pass, which is a quarter of the time."""
        return torch.ge(scores, 0, out=torch.empty_like(scores))

    def as_scores(self, mean: Tensor) -> Tensor:
        """Centred: a weight that half of the masks keep is undecided."""
        return 2 * mean - 1


class EdgePopup(MaskSearch):
    """Each layer keeps a fixed number of weights, those of largest |S| (Ramanujan et al. 2020); for scenario GG.

    Args:
        density: epsilon of the Erdos-Renyi budget; larger keeps more.
    """

    @checked
    def __init__(self, density: PositiveFloat) -> None:
        self.density = density

    def importance(self, scores: Tensor) -> Tensor:
        """|S|: a gradient passed to S itself would drive a useful weight with a negative score out of the mask."""
        return scores.abs()

    def kept(self, scores: Tensor) -> Tensor:
        """Exactly `budget` weights per task; equal scores are taken in the order of their place."""
        keep = budget(tuple(scores.shape[1:]), self.density)
        if not keep:
            return torch.zeros_like(scores, dtype=torch.bool)
        flat = scores.detach().abs().flatten(1)
        least = largest(flat, keep)
        reached = flat >= least
        # on a processor asking costs less than breaking ties that are not there; elsewhere the answer is worth no wait
        if flat.device.type == "cpu" and bool((reached.sum(1) == keep).all()):
            return reached.view_as(scores)
        above, tied = flat > least, flat == least
        room = keep - above.sum(1, keepdim=True)
        return (above | (tied & (tied.cumsum(1) <= room))).view_as(scores)


def largest(values: Tensor, rank: int) -> Tensor:
    """The value of this rank in each row ``[T, N]``, 1 the largest: ``[T, 1]``.

    On a processor numpy's partition, some ten times as fast as ``kthvalue``, which CUDA has only without determinism.
    """
    if values.device.type == "cpu":
        place = values.shape[1] - rank
        return torch.from_numpy(np.partition(values.numpy(), place, axis=1)[:, place, None])
    return values.topk(rank, dim=1, sorted=False).values.amin(1, keepdim=True)


def budget(shape: Shape, density: float) -> int:
    """Weights that a layer may keep: N - int((1 - f) N), f = min(0.5, eps (C_out + C_in) / (C_out C_in k k)).

    The Erdos-Renyi rule of Mocanu et al. (2018) with the paper's cap at one half.
    """
    total = math.prod(shape)
    share = min(0.5, density * (shape[0] + shape[1]) / total)
    return total - int((1 - share) * total)
