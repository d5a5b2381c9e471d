"""How the change of one layer is found: min |v* - f(k*; W0 + Lambda D)| over a box, by several routes.

`adam_project` is the paper's algorithm: Adam on the whole weight, put back among the allowed changes now and then.
`solve_lambda` has the same objective and the same solutions, and searches among the allowed changes alone, which are a
few thousand numbers; what does not change is computed once. `learn_direction` chooses D, too. `least_squares` solves
for Lambda directly where the layer is linear, and for a layer with demodulation and activation by undoing both.

A search yields what it has after every step, so that it can be watched, judged on the way or given up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from reprise.errors import UserError
from reprise.papers.rewriting.memory import change, orthonormal, project
from reprise.papers.rewriting.network import Layer
from reprise.papers.rewriting.request import Box
from reprise.schedules import cosine


@dataclass(frozen=True)
class Goal:
    """What one layer shall answer.

    Attributes:
        layer: whose weight is to change.
        key, scales: k* ``[S, I, h, w]`` and the styles' scales ``[S, I]`` in it, of S pasted images.
        target: v* ``[S, O, H, W]``.
        boxes: where the answer counts, one per image.
        noise: of the layer ``[S, 1, H, W]`` where the maps are parts of the whole; ``None`` = the layer's own, if any.
    """

    layer: Layer
    key: Tensor
    scales: Tensor
    target: Tensor
    boxes: tuple[Box, ...]
    noise: Tensor | None = None

    def loss_of(self, value: Tensor) -> Tensor:
        """Mean absolute distance of values ``[S, O, H, W]`` from the target within the boxes (the paper's l1)."""
        apart = [box.of(v - t).abs() for v, t, box in zip(value, self.target, self.boxes, strict=True)]
        return torch.cat([part.flatten() for part in apart]).mean()

    def loss(self, weight: Tensor) -> Tensor:
        """The same for a weight ``[O, I, 3, 3]``."""
        return self.loss_of(self.layer.value_of(self.key, self.scales, weight, self.noise))


def cropped(goal: Goal) -> Goal:
    """The same goal with no more of its maps than what its boxes depend on, so that a step is as cheap as can be.

    A rim is kept around each box, as wide as the layer's filters reach; the values within the boxes are the same.
    """
    ratio = goal.layer.ratio  # and the rim in cells of the key: 1 for the taps, 1 more for the smoothing
    side = goal.key.shape[-1]
    places = [
        Box(
            b.top // ratio - ratio, b.left // ratio - ratio, -(-b.bottom // ratio) + ratio, -(-b.right // ratio) + ratio
        )
        for b in goal.boxes
    ]
    height, width = (min(side, max(getattr(place, name) for place in places)) for name in ("height", "width"))
    noise = goal.layer.noise if goal.noise is None else goal.noise
    noise = None if noise is None else noise.expand(len(places), -1, -1, -1)
    keys, targets, noises, boxes = [], [], [], []
    for i, (place, box) in enumerate(zip(places, goal.boxes, strict=True)):
        top, left = max(0, min(place.top, side - height)), max(0, min(place.left, side - width))
        window = Box(ratio * top, ratio * left, ratio * (top + height), ratio * (left + width))
        keys.append(Box(top, left, top + height, left + width).of(goal.key[i]))
        targets.append(window.of(goal.target[i]))
        if noise is not None:
            noises.append(window.of(noise[i]))
        boxes.append(
            Box(box.top - window.top, box.left - window.left, box.bottom - window.top, box.right - window.left)
        )
    noise = torch.stack(noises) if noises else None
    return Goal(goal.layer, torch.stack(keys), goal.scales, torch.stack(targets), tuple(boxes), noise)


@dataclass(frozen=True)
class Solution:
    """A change of the layer's weight, as far as it has been found.

    Attributes:
        lam, directions: Lambda ``[O, R, 3, 3]`` and D ``[R, I]`` of a change of low rank.
        free: the change itself ``[O, I, 3, 3]`` where it is not of low rank.
        losses: the objective before each step so far.
    """

    lam: Tensor | None = None
    directions: Tensor | None = None
    free: Tensor | None = None
    losses: list[float] = field(default_factory=list)

    @property
    def dw(self) -> Tensor:
        """The change ``[O, I, 3, 3]``."""
        return self.free if self.lam is None else change(self.lam, self.directions)


UPSAMPLES = (
    "solver=closed_form is for layers that do not upsample, which are those of even numbers (and all of "
    "generator=progan): choose another layer, or solver=lambda."
)
PARTS = (1.0, 0.5, 0.25, 0.1, 0.03)  # of the way to what a round of least squares found
Search = Iterator[Solution]
Watch = Callable[[int, float], None]


def finished(search: Search, watch: Watch | None = None) -> Solution:
    """What a search ends with; ``watch`` is told the number and the objective of each step."""
    for step, found in enumerate(search):
        if watch:
            watch(step, found.losses[-1])
    return found


def solve_lambda(goal: Goal, directions: Tensor, steps: int, lr: float) -> Search:
    """Adam on Lambda alone, with a rate that falls to 0 along a cosine, since an l1 has no bottom to rest on.

    A convolution of k with Lambda D is one of D k with Lambda, and the demodulation's energy is a quadratic form of
    Lambda, so that a step costs R input channels in the place of I.
    """
    layer, d = goal.layer, directions.to(goal.key)
    cheap = _LowRank(goal, d)
    lam = torch.zeros(layer.weight.shape[0], len(d), 3, 3, device=goal.key.device, requires_grad=True)
    for losses in _descent([lam], lambda: goal.loss_of(cheap.value(lam)), steps, lr, falling=True):
        yield Solution(lam.detach().clone(), d, losses=losses)


def learn_direction(goal: Goal, directions: Tensor, steps: int, lr: float) -> Search:
    """Adam on Lambda and on D, which starts from given directions and is free to leave them (no C then)."""
    layer = goal.layer
    d = directions.to(goal.key).clone().requires_grad_()
    lam = torch.zeros(layer.weight.shape[0], len(d), 3, 3, device=goal.key.device, requires_grad=True)
    for losses in _descent([lam, d], lambda: goal.loss(layer.weight + change(lam, d)), steps, lr, falling=True):
        own = orthonormal(d.detach())
        turned = torch.einsum("oryx,ri,qi->oqyx", lam.detach(), d.detach(), own)
        yield Solution(turned, own, losses=losses)


def _descent(
    parameters: list[Tensor], objective: Callable[[], Tensor], steps: int, lr: float, falling: bool = False
) -> Iterator[list[float]]:
    """Adam; yields the objective's values before each step, one more after every step."""
    optimizer, losses = torch.optim.Adam(parameters, lr=lr), []
    for step in range(steps):
        if falling:
            optimizer.param_groups[0]["lr"] = lr * cosine(step, steps)
        with torch.enable_grad():
            loss = objective()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
        yield losses


class _LowRank:
    """f(k*; W0 + Lambda D) as a function of Lambda."""

    def __init__(self, goal: Goal, d: Tensor) -> None:
        self.goal, layer = goal, goal.layer
        with torch.no_grad():
            self.plain = layer.convolved(goal.key, layer.weight * layer.scale)
            self.narrow = torch.einsum("sihw,ri->srhw", goal.key, d)
        self.gain = layer.gains(goal.scales, d)

    def value(self, lam: Tensor) -> Tensor:
        """Values ``[S, O, H, W]``."""
        layer = self.goal.layer
        x = self.plain + layer.convolved(self.narrow, lam * layer.scale)
        return layer.finish(x * self.gain(lam)[:, :, None, None], self.goal.noise)

    def loss(self, lam: Tensor) -> float:
        """The objective."""
        return float(self.goal.loss_of(self.value(lam)))


def adam_project(
    goal: Goal,
    directions: Tensor | None,
    steps: int,
    lr: float,
    period: int = 10,
    project_gradient: bool = False,
) -> Search:
    """Adam on the whole weight, projected to W0 + Lambda D every so many steps and at the last one (the paper's code).

    Args:
        directions: D ``[R, I]`` with orthonormal rows; ``None`` = every change is allowed (full rank).
        period: steps between two projections; the first step is followed by one.
        project_gradient: project every gradient, too.
    """
    start = goal.layer.weight.detach()
    weight = start.clone().requires_grad_()
    if directions is None:
        for losses in _descent([weight], lambda: goal.loss(weight), steps, lr):
            yield Solution(free=weight.detach() - start, losses=losses)
        return
    d = directions.to(start)
    if project_gradient:
        weight.register_hook(lambda gradient: project(gradient, d))
    for step, losses in enumerate(_descent([weight], lambda: goal.loss(weight), steps, lr)):
        dw = weight.detach() - start
        if step % period == 0 or step == steps - 1:
            with torch.no_grad():
                weight.copy_(start + project(dw, d))
        yield Solution(torch.einsum("oiyx,ri->oryx", dw, d), d, losses=losses)


def least_squares(goal: Goal, directions: Tensor, rounds: int = 5, ridge: float = 1e-6) -> Search:
    """Lambda by linear least squares, for a layer whose value is no larger than its key.

    What follows the convolution is undone on the target, and what is left is linear in Lambda. On a linear layer that
    is all there is: no Lambda is nearer to the target in the boxes, by squares. Elsewhere the demodulation is taken
    from the last round's weight. Where the target cannot be met, a larger Lambda is divided by a larger norm, and a
    round may lead too far: the best part of its way is gone, and the search ends when the objective no longer falls.

    Args:
        rounds: how often the demodulation is taken anew, at most.
        ridge: added to the normal equations then, as a share of their mean diagonal.

    Raises:
        UserError: the value is larger than the key.
    """
    layer, d = goal.layer, directions.to(goal.key)
    if layer.ratio > 1:
        raise UserError(UPSAMPLES)
    with torch.no_grad():
        low = _LowRank(goal, d)
        equations = _Equations(low)
        best = torch.zeros(layer.weight.shape[0], len(d), 3, 3, device=goal.key.device)
        losses = [low.loss(best)]
        if layer.linear:
            best, rounds = equations.exact(low.gain(best)), 0
            losses.append(low.loss(best))
        for _ in range(rounds):
            lam = equations.solution(low.gain(best), ridge)
            loss, part = min((low.loss(best + part * (lam - best)), part) for part in PARTS)
            if loss >= losses[-1]:
                break
            best = best + part * (lam - best)
            losses.append(loss)
    yield Solution(best, d, losses=losses)


class _Equations:
    """What the convolution of D k* with Lambda should give at the P places in the boxes."""

    def __init__(self, low: _LowRank) -> None:
        goal, layer = low.goal, low.goal.layer
        wanted = layer.undone(goal.target, goal.noise)  # [S, O, H, W]
        self.matrix = torch.cat(_patches(low.narrow, goal.boxes)) * layer.scale  # [P, R * 9]
        self.plain = [box.of(p).flatten(1).T for p, box in zip(low.plain, goal.boxes, strict=True)]
        self.asked = [box.of(w).flatten(1).T for w, box in zip(wanted, goal.boxes, strict=True)]

    def solution(self, gain: Tensor, ridge: float) -> Tensor:
        """Lambda by the normal equations, the gains ``[S, O]`` taken as they are."""
        normal = self.matrix.T @ self.matrix
        normal += ridge * normal.diagonal().mean() * torch.eye(len(normal), device=normal.device)
        return self._shaped(torch.linalg.solve(normal, self.matrix.T @ self._missing(gain)))

    def exact(self, gain: Tensor) -> Tensor:
        """The smallest Lambda of those that fit best, in double precision but for what single cannot tell from 0."""
        noise = torch.finfo(self.matrix.dtype).eps * max(self.matrix.shape)
        inverse = torch.linalg.pinv(self.matrix.double(), rtol=noise)
        return self._shaped((inverse @ self._missing(gain).double()).to(self.matrix))

    def _missing(self, gain: Tensor) -> Tensor:
        return torch.cat([a / g - p for a, g, p in zip(self.asked, gain, self.plain, strict=True)])  # [P, O]

    @staticmethod
    def _shaped(solution: Tensor) -> Tensor:
        return solution.T.unflatten(1, (-1, 3, 3))


def _patches(maps: Tensor, boxes: tuple[Box, ...]) -> list[Tensor]:
    """For each image the 3x3 neighbourhoods ``[P, R * 9]`` of the places in its box."""
    height, width = maps.shape[-2:]
    columns = F.unfold(maps, 3, padding=1).unflatten(2, (height, width))  # [S, R * 9, h, w]
    return [box.of(c).flatten(1).T for c, box in zip(columns, boxes, strict=True)]
