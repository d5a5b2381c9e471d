"""From a request to an edit: the second moment of a layer's keys, directions from the context, a target, a solver."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from reprise.checks import NonNegativeFloat, PositiveFloat, PositiveInt, checked
from reprise.errors import UserError
from reprise.papers.rewriting.edits import Edit
from reprise.papers.rewriting.memory import Moment, busiest, context_rows, raw_directions, zca_directions
from reprise.papers.rewriting.network import Network
from reprise.papers.rewriting.request import Marked, Request, at_size, bounding_box, context_keys, pasted
from reprise.papers.rewriting.solvers import (
    Goal,
    Search,
    Solution,
    Watch,
    adam_project,
    cropped,
    finished,
    learn_direction,
    least_squares,
    solve_lambda,
)

AT_ONCE = 100  # images per batch when keys are collected, fewer where a layer's maps are large
CELLS = 2**21  # of one channel's maps, in a batch

Solver = Literal["lambda", "adam_project", "closed_form", "learned_direction", "full_rank"]
Directions = Literal["zca", "raw"]


class Recipe:
    """How an edit is made.

    Args:
        layer: number of the layer; ``auto`` where who edits can choose one.
        solver: ``lambda`` (Adam on Lambda), ``adam_project`` (the paper's algorithm), ``closed_form`` (least squares),
            ``learned_direction`` (Adam on Lambda and D), or ``full_rank`` (Adam on the whole weight, no constraint).
        directions: ``zca`` (C^-1, the paper's) or ``raw`` (the context's keys as they are).
        rank: R, number of directions.
        ridge: added to C, as a share of its mean eigenvalue.
        steps, lr: of Adam.
        period: steps between two projections of ``adam_project``.
        units: units that are switched off in the target of a removal.
        repeats: how often a removal is made, each time from what the last one left.
    """

    @checked
    def __init__(
        self,
        layer: PositiveInt | Literal["auto"],
        solver: Solver = "lambda",
        directions: Directions = "zca",
        rank: PositiveInt = 1,
        ridge: NonNegativeFloat = 1e-3,
        steps: PositiveInt = 400,
        lr: PositiveFloat = 0.05,
        period: PositiveInt = 10,
        units: PositiveInt = 20,
        repeats: PositiveInt = 2,
    ) -> None:
        self.layer, self.solver, self.directions, self.rank = layer, solver, directions, rank
        self.ridge, self.steps, self.lr, self.period = ridge, steps, lr, period
        self.units, self.repeats = units, repeats

    def at(self, layer: int, rank: int | None = None) -> Recipe:
        """The same for another layer, and perhaps another rank."""
        other = copy(self)
        other.layer, other.rank = layer, rank or self.rank
        return other


class Rewriter:
    """Edits a synthesis network.

    Args:
        synthesis: the network, which is never written to.
        sample: gives the styles ``[n, slots, style]`` of so many images to take C from, always the same.
        images: how many.
        fingerprint: of the generator, for its edits.

    Attributes:
        seconds: that C took, by layer.
    """

    def __init__(
        self, synthesis: Network, sample: Callable[[int], Tensor], images: int = 1000, fingerprint: str = ""
    ) -> None:
        self.synthesis, self.sample, self.images, self.fingerprint = synthesis, sample, images, fingerprint
        self._unedited = synthesis
        self._moments: dict[int, Moment] = {}
        self.seconds: dict[int, float] = {}
        self._taking = threading.Lock()

    def on(self, synthesis: Network) -> Rewriter:
        """The same for the network after some edits; C stays that of the network as it was (as in the paper's code)."""
        other = copy(self)
        other.synthesis = synthesis
        return other

    def check_layer(self, layer: int) -> None:
        """Refuse a layer that the network lacks.

        Raises:
            UserError: see above.
        """
        numbers = self.synthesis.numbers
        if layer not in numbers:
            raise UserError(
                f"layer={layer} cannot be edited: this generator's layers are {numbers[0]} to {numbers[-1]}."
            )

    def channels(self, layer: int) -> int:
        """Numbers of a layer's key."""
        return self.synthesis.layers[str(layer)].weight.shape[1]

    @torch.no_grad()
    def moment(self, layer: int, watch: Callable[[int, int], None] | None = None) -> Moment:
        """C of a layer's keys over all places of the sampled images; taken once, not again after edits (as there).

        ``watch`` is told how many images have been seen, of how many; what it raises gives up.
        """
        self.check_layer(layer)
        with self._taking:  # who comes while it is taken waits for it
            if layer not in self._moments:
                began = time.perf_counter()
                found, seen = Moment(self.channels(layer), self._unedited.device), 0
                at_once = max(1, min(AT_ONCE, CELLS // self._unedited.side(layer) ** 2))
                for ws in self.sample(self.images).split(at_once):
                    found.add(self._unedited.key(layer, ws)[0])
                    seen += len(ws)
                    if watch:
                        watch(seen, self.images)
                self._moments[layer], self.seconds[layer] = found, time.perf_counter() - began
        return self._moments[layer]

    @torch.no_grad()
    def rows(self, contexts: Sequence[Marked], layer: int) -> tuple[Tensor, Tensor]:
        """A layer's keys ``[m, I]`` that contexts select, and their weights ``[m]``."""
        self.check_layer(layer)
        return context_rows(*context_keys(self.synthesis, layer, contexts))

    def directions(self, contexts: Sequence[Marked], recipe: Recipe) -> Tensor:
        """D ``[R, I]`` of a context."""
        rows, weights = self.rows(contexts, recipe.layer)
        if recipe.directions == "raw":
            return raw_directions(rows, weights, recipe.rank)
        return zca_directions(self.moment(recipe.layer).matrix(recipe.ridge), rows, weights, recipe.rank)

    @torch.no_grad()
    def goal(self, requests: Sequence[Request], layer: int) -> Goal:
        """What the layer shall answer at each request's paste: its own value there with the copied one pasted in."""
        self.check_layer(layer)
        keys, scales, targets, boxes = [], [], [], []
        for request in requests:
            key, scale = self.synthesis.key(layer, request.paste.ws.unsqueeze(0))
            both = torch.stack([request.copy.ws, request.paste.ws])
            copied, into = self.synthesis.start(both, layer + 1)[0]
            size = into.shape[-1]
            masks = (at_size(marked.mask, size).to(into.device) for marked in (request.copy, request.paste))
            copy_mask, paste_mask = masks
            target, box = pasted(copied, copy_mask, into, paste_mask)
            keys.append(key)
            scales.append(scale)
            targets.append(target.unsqueeze(0))
            boxes.append(box)
        own = self.synthesis.layers[str(layer)]
        return Goal(own, torch.cat(keys), torch.cat(scales), torch.cat(targets), tuple(boxes))

    @torch.no_grad()
    def removal(self, requests: Sequence[Request], recipe: Recipe, weight: Tensor | None = None) -> Goal:
        """What the layer shall answer when a thing is to go: its value with the thing's units switched off in the key.

        Args:
            weight: with which the value is taken; ``None`` = the layer's own.
        """
        layer = self.synthesis.layers[str(recipe.layer)]
        units = busiest(*self.rows(_contexts(requests), recipe.layer), self.moment(recipe.layer), recipe.units)
        ws = torch.stack([request.paste.ws for request in requests])
        key, scales = self.synthesis.key(recipe.layer, ws)
        without = key.clone()
        without[:, units] = 0
        target = layer.value_of(without, scales, weight)
        masks = [at_size(request.paste.mask, target.shape[-1]) for request in requests]
        boxes = tuple(bounding_box(mask > 0, "paste") for mask in masks)
        return Goal(layer, key, scales, target, boxes)

    def search(self, requests: Sequence[Request], recipe: Recipe) -> Search:
        """Look for the change that answers some requests with one rule, step by step."""
        directions = self.directions(_contexts(requests), recipe)
        if any(request.copy for request in requests):
            yield from solve(self.goal(requests, recipe.layer), directions, recipe)
            return
        weight, losses = self.synthesis.layers[str(recipe.layer)].weight.detach(), []
        for _ in range(recipe.repeats):  # the keys, and with them the units, are those before the layer: they stay
            goal = self.removal(requests, recipe, weight)
            for found in solve(goal, directions, recipe):
                yield replace(found, losses=losses + found.losses)
            weight, losses = goal.layer.weight.detach() + found.dw, losses + found.losses

    def edit(
        self, requests: Sequence[Request], recipe: Recipe, name: str = "", watch: Watch | None = None
    ) -> tuple[Edit | None, Solution]:
        """The change that answers some requests with one rule.

        Returns:
            The edit, ``None`` where the solver is not bound to a rank, and all that was found.
        """
        found = finished(self.search(requests, recipe), watch)
        if found.lam is None:
            return None, found
        return Edit(recipe.layer, found.lam, found.directions, self.fingerprint, name), found


def solve(goal: Goal, directions: Tensor, recipe: Recipe) -> Search:
    """The search that a recipe names."""
    goal, steps, lr = cropped(goal), recipe.steps, recipe.lr
    if recipe.solver == "lambda":
        return solve_lambda(goal, directions, steps, lr)
    if recipe.solver == "adam_project":
        return adam_project(goal, directions, steps, lr, recipe.period)
    if recipe.solver == "learned_direction":
        return learn_direction(goal, directions, steps, lr)
    if recipe.solver == "full_rank":
        return adam_project(goal, None, steps, lr)
    return least_squares(goal, directions)


def _contexts(requests: Sequence[Request]) -> list[Marked]:
    return [context for request in requests for context in request.contexts]


@torch.no_grad()
def feature_paste(synthesis: Network, layer: int, ws: Tensor, value: Tensor, alpha: Tensor) -> Tensor:
    """The oracle of a layer: images ``[n, 3, s, s]`` whose value is replaced in part, weights untouched.

    No change of the weights can do better at meeting a request at this layer: it is its ceiling.

    Args:
        ws: styles of the images ``[n, slots, style]``, which later layers keep.
        value: what is pasted, value maps ``[n, O, H, W]``.
        alpha: where, on the value's grid ``[n, H, W]`` in 0..1.
    """
    x, colours, _ = synthesis.start(ws, layer)
    share = alpha.unsqueeze(1)
    mixed = (1 - share) * synthesis.apply_layer(layer, x, ws) + share * value
    return synthesis.finish((mixed, synthesis.coloured(layer, mixed, colours, ws), layer + 1), ws)
