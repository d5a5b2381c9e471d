"""PSP, parameter superposition (Cheung et al. 2019): all tasks in the same weights, told apart by their contexts.

The input of every layer is multiplied by the task's context C_t, drawn once and never trained: y = W (C_t x). What
another task has written into W looks like noise through C_t, and the more tasks there are the louder it gets.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reprise.checks import checked
from reprise.papers.supsup import accounting
from reprise.papers.supsup.continual import Purpose
from reprise.papers.supsup.networks import FullyConnected, Network, Statistics
from reprise.papers.supsup.shared import SharedWeights


class Context(ABC):
    """A kind of context."""

    @staticmethod
    @abstractmethod
    def draw(width: int, generator: torch.Generator) -> Tensor:
        """One for inputs of so many units."""

    @staticmethod
    @abstractmethod
    def apply(x: Tensor, context: Tensor) -> Tensor:
        """C x of inputs ``[..., n]``."""

    @staticmethod
    @abstractmethod
    def fold(weight: Tensor, context: Tensor) -> Tensor:
        """W C ``[out, n, ...]``, which does to x what W does to C x; convolutions have a context over channels."""


class Rotation(Context):
    """Orthogonal matrices ``[n, n]`` from the Haar measure: n^2 products per input, but the least interference."""

    @staticmethod
    def draw(width: int, generator: torch.Generator) -> Tensor:
        """By a QR decomposition with signs."""
        return nn.init.orthogonal_(torch.empty(width, width), generator=generator)

    @staticmethod
    def apply(x: Tensor, context: Tensor) -> Tensor:
        """As one matrix product."""
        return F.linear(x, context)

    @staticmethod
    def fold(weight: Tensor, context: Tensor) -> Tensor:
        """A sum over input channels."""
        return torch.einsum("oi...,ij->oj...", weight, context)


class Signs(Context):
    """Diagonals ``[n]`` of +1 and -1: as cheap as can be."""

    @staticmethod
    def draw(width: int, generator: torch.Generator) -> Tensor:
        """With equal probability."""
        return torch.randint(2, (width,), generator=generator).float() * 2 - 1

    @staticmethod
    def apply(x: Tensor, context: Tensor) -> Tensor:
        """Unit by unit."""
        return x * context

    @staticmethod
    def fold(weight: Tensor, context: Tensor) -> Tensor:
        """Channel by channel."""
        return weight * context.view(1, -1, *[1] * (weight.dim() - 2))


CONTEXTS: dict[str, type[Context]] = {"rotation": Rotation, "binary": Signs}


def contextual(
    network: Network,
    kind: type[Context],
    weights: Sequence[Tensor],
    contexts: Sequence[Tensor],
    x: Tensor,
    statistics: Statistics | None = None,
) -> Tensor:
    """Logits ``[1, B, s]`` of images ``[1, B, C, H, W]`` under one task's contexts, one per layer."""
    if not isinstance(network, FullyConnected):
        return network([kind.fold(w, c)[None] for w, c in zip(weights, contexts, strict=True)], x, statistics)
    # a batch has fewer rows than a layer has units: to turn it costs less than to turn the weights
    h = x.flatten(2)
    for layer, (weight, context) in enumerate(zip(weights, contexts, strict=True)):
        h = F.linear(kind.apply(F.relu(h) if layer else h, context), weight)
    return h


class PSP(SharedWeights):
    """One network trained on every task in turn, under the context of each. The task must be given.

    Contexts are drawn from the seed whenever they are needed, so that the network is all that is stored.

    Args:
        context: ``rotation`` (the paper's) or ``binary``.
        common: see `SharedWeights`; ``parallel`` is without effect, since every task goes on from the last.
    """

    title = "PSP"

    @checked
    def __init__(self, *, context: Literal["rotation", "binary"], **common: Any) -> None:
        super().__init__(**common, trained="always")
        self.context = CONTEXTS[context]
        self._drawn: tuple[int, list[Tensor]] = (-1, [])  # the latest task and its contexts

    def contexts(self, task: int) -> list[Tensor]:
        """Of each layer of a task's network."""
        if self._drawn[0] != task:
            layers = enumerate(self.network.shapes)
            drawn = [self.context.draw(s[1], self.generator(Purpose.CONTEXT, task, i)) for i, s in layers]
            self._drawn = task, [c.to(self.device) for c in drawn]
        elif self._drawn[1][0].device != self.device:  # Lightning moves a module when training ends
            self._drawn = task, [c.to(self.device) for c in self._drawn[1]]
        return self._drawn[1]

    def answers(
        self,
        tasks: range,
        shared: Sequence[Tensor],
        own: Sequence[Tensor],
        x: Tensor,
        statistics: Statistics | None,
    ) -> Tensor:
        """Of one task, since no two are trained side by side."""
        (task,) = tasks
        return contextual(self.network, self.context, shared, self.contexts(task), x, statistics)

    def cost(self) -> dict[str, float]:
        """Also the seed of the contexts."""
        cost = super().cost()
        return cost | {"bytes/bank": cost["bytes/bank"] + accounting.SEED}
