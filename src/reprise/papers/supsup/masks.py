"""Which weights a task keeps: the two mask searches of the paper, and how many weights each layer may keep.

Scores S have one real number per weight. The mask is a function of the scores, the gradient passes through it as if it
were the identity (straight-through): dL/dS = dL/dM = W * dL/dW~ with W~ = W * M.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

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


def masked_weight(scores: Tensor, weight: Tensor, kept: Tensor) -> Tensor:
    """W~ = W * M ``[T, *shape]`` for scores and ``kept`` (bool) ``[T, *shape]`` and one weight ``[*shape]``."""
    return _MaskedWeight.apply(scores, weight, torch.where(kept, weight, weight.new_zeros(())))


def initial_scores(shapes: Sequence[Shape], generator: torch.Generator) -> list[Tensor]:
    """Uniform within 1 / sqrt(fan_in) (Kaiming-uniform with a = sqrt 5), one tensor per layer."""
    return [(torch.rand(shape, generator=generator) * 2 - 1) / math.sqrt(fan_in(shape)) for shape in shapes]


class MaskSearch(ABC):
    """How scores become a mask."""

    name: str

    @abstractmethod
    def kept(self, scores: Tensor) -> Tensor:
        """The mask ``[T, *shape]``, bool, of one layer's scores ``[T, *shape]``."""

    def weights(self, scores: Sequence[Tensor], frozen: Sequence[Tensor]) -> list[Tensor]:
        """W~ of every layer, differentiable by the scores."""
        return [masked_weight(s, w, self.kept(s.detach())) for s, w in zip(scores, frozen, strict=True)]


class Threshold(MaskSearch):
    """M = 1[S >= 0]; density is free and starts near one half. For permuted and rotated MNIST (section 4.2)."""

    name = "threshold"

    def kept(self, scores: Tensor) -> Tensor:
        """A score of exactly 0 is kept."""
        return scores >= 0


class EdgePopup(MaskSearch):
    """Each layer keeps a fixed number of weights, those of largest |S| (Ramanujan et al. 2020); for scenario GG.

    Args:
        density: epsilon of the Erdos-Renyi budget; larger keeps more.
    """

    name = "edge_popup"

    @checked
    def __init__(self, density: PositiveFloat) -> None:
        self.density = density

    def kept(self, scores: Tensor) -> Tensor:
        """Exactly `budget` weights per task; equal scores are taken in the order of their place."""
        flat = scores.abs().flatten(1)
        keep = budget(tuple(scores.shape[1:]), self.density)
        if not keep:
            return torch.zeros_like(scores, dtype=torch.bool)
        least = flat.kthvalue(flat.shape[1] - keep + 1, dim=1, keepdim=True).values
        above = flat > least
        tied = flat == least
        room = keep - above.sum(1, keepdim=True)
        return (above | (tied & (tied.cumsum(1) <= room))).view_as(scores)


def budget(shape: Shape, density: float) -> int:
    """Weights that a layer may keep: N - int((1 - f) N), f = min(0.5, eps (C_out + C_in) / (C_out C_in k k)).

    The Erdos-Renyi rule of Mocanu et al. (2018) with the paper's cap at one half.
    """
    total = math.prod(shape)
    share = min(0.5, density * (shape[0] + shape[1]) / total)
    return total - int((1 - share) * total)
