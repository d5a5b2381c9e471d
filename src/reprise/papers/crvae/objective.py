"""One code path for every loss: any bound on one or two views of a batch, and what ties the views together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from reprise.papers.crvae.bounds import Bound
from reprise.papers.crvae.model import Autoencoder, Level, Likelihood

Views = Literal["clean", "both", "augmented"]
Batching = Literal["concat", "separate"]
Penalty = Callable[[Sequence[Level], Sequence[Level]], Tensor]
BoundOf = Callable[[Tensor, Sequence[Level]], Bound]


@dataclass(frozen=True)
class Seen:
    """What the model makes of one view of B inputs.

    Attributes:
        x: the view as the likelihood sees it ``[B, *shape]``.
        theta: parameters of p(x | z) ``[K, B, P, *shape]``.
        levels: posteriors and samples.
        bound: what is maximised, per input ``[B]``.
    """

    x: Tensor
    theta: Tensor
    levels: list[Level]
    bound: Bound


def look(
    model: Autoencoder,
    likelihood: Likelihood,
    bound: BoundOf,
    samples: int,
    views: Sequence[Tensor],
    generator: torch.Generator,
    batching: Batching = "concat",
    shared_noise: bool = False,
    mine: slice = slice(None),
) -> list[Seen]:
    """Each view through the model, K samples an input.

    Args:
        views: one or two tensors ``[B, *shape]``, ready for the likelihood.
        batching: one pass over all views together, or one each, which is another thing where the network has
            BatchNorm.
        shared_noise: give all views the same epsilon.
        mine: inputs to look at; noise is drawn for all, so that several processes together see what one would.
    """
    drawn = [model.noise(samples, len(views[0]), generator) for _ in views[: 1 if shared_noise else None]]
    drawn = [[level[:, mine] for level in noise] for noise in drawn]
    per_view = drawn * len(views) if shared_noise else drawn
    views = [view[mine] for view in views]
    size = len(views[0])
    if batching == "separate" or len(views) == 1:
        return [_seen(model, likelihood, bound, x, noise) for x, noise in zip(views, per_view, strict=True)]
    together = [torch.cat(level, dim=1) for level in zip(*per_view, strict=True)]
    x = torch.cat(list(views))
    levels = model.levels(x, together)
    theta = model.decode([level.z for level in levels])
    log_px = likelihood.log_prob(x, theta)
    parts = [slice(i * size, (i + 1) * size) for i in range(len(views))]
    own = [[level.rows(part) for level in levels] for part in parts]
    return [
        Seen(view, theta[:, part], mine, bound(log_px[:, part], mine))
        for view, part, mine in zip(views, parts, own, strict=True)
    ]


def _seen(model: Autoencoder, likelihood: Likelihood, bound: BoundOf, x: Tensor, noise: Sequence[Tensor]) -> Seen:
    levels = model.levels(x, noise)
    theta = model.decode([level.z for level in levels])
    return Seen(x, theta, levels, bound(likelihood.log_prob(x, theta), levels))


def consistent_loss(seen: Sequence[Seen], penalty: Penalty | None, weight: float) -> tuple[Tensor, Tensor | None]:
    """-(sum of the views' bounds) + lambda * penalty, means over the batch (paper, equation 3); and the mean penalty.

    Views come clean first, then augmented. With lambda 0 there is nothing to compute, which is VAE+Aug exactly.
    """
    loss = -sum(view.bound.value.mean() for view in seen)
    if penalty is None or weight == 0:
        return loss, None
    clean, augmented = seen
    apart = penalty(augmented.levels, clean.levels).mean()
    return loss + weight * apart, apart
