"""Which layer and which rank: short searches, scored by how well the request is met against what else changes.

Both are measured on images, so that layers can be compared: activations of two layers are not of one scale, and what a
coarse layer is told the later ones may not heed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from reprise.papers.rewriting.network import Network
from reprise.papers.rewriting.request import Request, pasted
from reprise.papers.rewriting.rewriter import Recipe, Rewriter
from reprise.papers.rewriting.solvers import finished

STEPS = 60  # of a short search
RANKS = (1, 2, 3)
LEAST = 1e-9
HARM = 2.0  # what a change elsewhere weighs against as much of the request that is not met


@dataclass(frozen=True)
class Candidate:
    """A layer and a rank that were tried.

    Attributes:
        fit: what is left to do at the place of the paste: 1 = as before, 0 = as asked.
        change: of images that nobody marked, as a share of the change that is asked for.
    """

    layer: int
    rank: int
    fit: float
    change: float

    @property
    def score(self) -> float:
        """The less, the better."""
        return self.fit + HARM * self.change


def choose(
    rewriter: Rewriter,
    requests: Sequence[Request],
    recipes: Sequence[Recipe],
    others: Tensor,
    watch: Callable[[int, int], None],
) -> list[Candidate]:
    """Try recipes; all that were tried, the best first.

    Args:
        recipes: one per layer and rank, see `tries`.
        others: styles of images that nobody marked ``[n, slots, style]``.
        watch: is told how many were tried, of how many; what it raises gives up.
    """
    found = []
    for number, recipe in enumerate(recipes):
        watch(number, len(recipes))
        found.append(tried(rewriter, requests, recipe, others))
    return sorted(found, key=lambda one: one.score)


def tries(recipe: Recipe, layers: Sequence[int], ranks: Sequence[int]) -> Iterator[Recipe]:
    """Short searches for all layers and ranks."""
    for layer in layers:
        for rank in ranks:
            short = recipe.at(layer, rank)
            short.steps = min(STEPS, recipe.steps)
            yield short


def tried(rewriter: Rewriter, requests: Sequence[Request], recipe: Recipe, others: Tensor) -> Candidate:
    """A short search, and what it did to the images."""
    found = finished(rewriter.search(requests, recipe))
    net, request, layer = rewriter.synthesis, requests[0], recipe.layer
    weights = {layer: net.layers[str(layer)].weight.detach() + found.dw}
    with torch.no_grad():
        before, after = (images[0] for images in _pair(net, request.paste.ws.unsqueeze(0), weights))
        if request.copy is None:  # what should be there instead nobody knows: the layer's own objective must do
            fit = found.losses[-1] / max(found.losses[0], LEAST)
            asked = float((after - before).abs().mean(0)[request.paste.mask > 0].mean())
        else:
            copied = net(request.copy.ws.unsqueeze(0))[0]
            target, box = pasted(copied, request.copy.mask, before, request.paste.mask)
            asked = float(box.of(before - target).abs().mean())
            fit = float(box.of(after - target).abs().mean()) / max(asked, LEAST)
        still, moved = _pair(net, others, weights)
    return Candidate(layer, recipe.rank, fit, float((moved - still).abs().mean()) / max(asked, LEAST))


def _pair(net: Network, ws: Tensor, weights: dict[int, Tensor]) -> tuple[Tensor, Tensor]:
    state = net.start(ws, min(weights))
    return net.finish(state, ws), net.finish(state, ws, weights)
