"""The upper bound: as many networks as tasks, all of whose weights are trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from reprise.checks import checked
from reprise.papers.supsup.continual import Purpose
from reprise.papers.supsup.networks import Shape
from reprise.papers.supsup.shared import SharedWeights, initial_weights


class UpperBound(SharedWeights):
    """One network per task, each stored whole. The task must be given.

    Args:
        sequential_finetune: start each network where the last one ended, as the official code does, which trains one
            network through all tasks and scores it right after each; else all start at random, independent of each
            other.
        common: see `SharedWeights`; ``parallel`` is without effect with ``sequential_finetune``.
    """

    title = "upper bound"

    @checked
    def __init__(self, *, sequential_finetune: bool = False, **common: Any) -> None:
        super().__init__(**common | ({"parallel": 1} if sequential_finetune else {}))
        self.sequential_finetune = sequential_finetune

    @property
    def shared_shapes(self) -> Sequence[Shape]:
        """Nothing is shared."""
        return ()

    @property
    def own_shapes(self) -> Sequence[Shape]:
        """The whole network."""
        return self.network.shapes

    def start(self, task: int) -> list[Tensor]:
        """At random, or where the last network ended."""
        if self.sequential_finetune and task:
            return [layer[0] for layer in self.own_layers(slice(task - 1, task))]
        return initial_weights(self.own_shapes, self.init, self.generator(Purpose.START, task))

    def networks(self, shared: Sequence[Tensor], own: Sequence[Tensor]) -> list[Tensor]:
        """As they are."""
        return list(own)
