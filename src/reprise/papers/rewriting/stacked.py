"""Several edits one upon another: what the first ones did must outlive the later ones."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from reprise.checks import NonNegativeInt, PositiveInt, checked
from reprise.data.base import DataSpec
from reprise.papers.rewriting.datamodule import EditData
from reprise.papers.rewriting.edits import Edit
from reprise.papers.rewriting.module import LayerEdit
from reprise.papers.rewriting.rewriter import Recipe
from reprise.papers.rewriting.solvers import Solution


class StackedEdits(LayerEdit):
    """One edit for each request, looked for on the network as edited so far.

    A single edit answers all requests at once with as few directions as its rank; a stack spends as many on each.

    Args:
        spec, seed, recipe, margin, stops: see `LayerEdit`.
        edits: how many; as many requests are drawn.
    """

    title = "stack of edits"

    @checked
    def __init__(
        self,
        spec: DataSpec,
        seed: int,
        recipe: Recipe,
        margin: NonNegativeInt,
        stops: NonNegativeInt,
        edits: PositiveInt,
    ) -> None:
        super().__init__(spec, seed, recipe, margin, stops)
        self.count = edits
        self.made: list[Edit] = []

    def length(self, data: EditData) -> int:
        """As long as that many searches."""
        return self.count * super().length(data)

    def search(self, data: EditData) -> Iterator[Solution]:
        """One search after another."""
        layer, dw, losses = self.used.layer, torch.zeros_like(self._weight(data)), []
        net, done = copy.deepcopy(data.generator.synthesis), []
        for request in data.requests:
            for found in data.rewriter.on(net).search([request], self.used):
                self.made = [*done, self.named(data, found)]  # who takes the steps may stop at the last one
                yield Solution(free=dw + found.dw, losses=losses + found.losses)
            done, dw, losses = self.made, dw + found.dw, losses + found.losses
            with torch.no_grad():
                net.layers[str(layer)].weight.copy_(self._weight(data) + dw)

    def edits(self, data: EditData) -> list[Edit]:
        """All of them, in order."""
        return [replace(edit, name=f"{edit.name} {i}") for i, edit in enumerate(self.made, start=1)]

    def more_metrics(self, data: EditData) -> dict[str, float]:
        """How many there are."""
        return super().more_metrics(data) | {"edit/edits": len(self.made)}

    def _weight(self, data: EditData) -> Tensor:
        return data.generator.synthesis.layers[str(self.used.layer)].weight.detach()
