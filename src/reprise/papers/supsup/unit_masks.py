"""A frozen network whose masks switch units on and off, not weights, so that a layer's mask is one short vector.

Equation 5 with BatchNorm: in every hidden layer x -> swish(m * normalise(W x)). The last layer has no mask.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from reprise.checks import PositiveInt, checked
from reprise.papers.supsup.networks import Network, Shape, Statistics

EPSILON = 1e-5  # of BatchNorm


class _Hard(torch.autograd.Function):
    """1[r >= 0] with the straight-through gradient."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor) -> Tensor:
        return (scores >= 0).to(scores.dtype)

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> Tensor:
        return grad[0]


def hard(scores: Tensor) -> Tensor:
    """The mask of scores, 0 and 1 of their type; to the gradient it is the identity."""
    return _Hard.apply(scores)


class UnitMasked(Network):
    """Fully connected layers with BatchNorm and Swish; the paper's has ``hidden=[2048, 2048]``.

    BatchNorm has no parameters and keeps nothing: it normalises with the moments of the batch, in tests too. So what an
    image is taken for depends on the images beside it.
    """

    name = "unit_masked"

    @checked
    def __init__(self, hidden: Annotated[list[PositiveInt], Field(min_length=1)]) -> None:
        self.hidden = tuple(hidden)

    def describe(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"hidden": list(self.hidden)}

    def _shapes(self) -> list[Shape]:
        widths = (math.prod(self.inputs), *self.hidden, self.outputs)
        return [(out, width) for width, out in itertools.pairwise(widths)]

    def __call__(self, weights: Sequence[Tensor], x: Tensor, statistics: Statistics | None = None) -> Tensor:
        """Logits ``[T, B, s]`` with all units on; T networks have the same weights ``[*shape]``."""
        return self.masked(weights, [x.new_ones(len(x), width) for width in self.hidden], x)

    def masked(self, weights: Sequence[Tensor], units: Sequence[Tensor], x: Tensor) -> Tensor:
        """Logits ``[T, B, s]`` of inputs ``[T, B, *inputs]`` under masks ``[T, d]`` per hidden layer.

        Weights ``[*shape]`` are those of all T networks.
        """
        h = x.flatten(2)
        for weight, mask in zip(weights, units, strict=False):
            h = F.silu(mask[:, None] * normalise(F.linear(h, weight)))
        return F.linear(h, weights[-1])


def normalise(h: Tensor) -> Tensor:
    """Every unit with mean 0 and variance 1 over the batch, ``[T, B, d] -> [T, B, d]``; 0 in a batch of one."""
    var, mean = torch.var_mean(h, dim=1, keepdim=True, correction=0)
    return (h - mean) * (var + EPSILON).rsqrt()
