"""Baselines with a linear classifier ("head") per task on a trunk of all layers before it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from torch import Tensor

from reprise.checks import checked
from reprise.papers.supsup.continual import Purpose
from reprise.papers.supsup.networks import Shape
from reprise.papers.supsup.shared import SharedWeights, initial_weights


class _Heads(SharedWeights):
    """The last weight tensor of the network belongs to a task, all others are shared."""

    @property
    def shared_shapes(self) -> Sequence[Shape]:
        """The trunk."""
        return self.network.shapes[:-1]

    @property
    def own_shapes(self) -> Sequence[Shape]:
        """The head."""
        return self.network.shapes[-1:]

    def start(self, task: int) -> list[Tensor]:
        """A random head."""
        return initial_weights(self.own_shapes, self.init, self.generator(Purpose.START, task))

    def networks(self, shared: Sequence[Tensor], own: Sequence[Tensor]) -> list[Tensor]:
        """The same trunk under every head."""
        (head,) = own
        return [*(w.expand(len(head), *w.shape) for w in shared), head]


class SeparateHeads(_Heads):
    """A trunk trained on the first task, or random, then frozen; later tasks train a head. The task must be given.

    BatchNorm statistics belong to a task.

    Args:
        trained: ``first_task``, or ``never`` (the paper's Rand W).
        common: see `SharedWeights`; ``first_optimizer`` trains trunk and head.
    """

    title = "separate heads"

    @checked
    def __init__(self, *, trained: Literal["first_task", "never"], **common: Any) -> None:
        super().__init__(**common, trained=trained)


class LowerBound(_Heads):
    """A trunk trained on every task in turn, with nothing done against forgetting. The task must be given.

    BatchNorm statistics are the trunk's, so that they are forgotten, too.

    Args:
        common: see `SharedWeights`; ``parallel`` is without effect, since every task goes on from the last.
    """

    title = "lower bound"

    @checked
    def __init__(self, **common: Any) -> None:
        super().__init__(**common, trained="always", own_statistics=False)
