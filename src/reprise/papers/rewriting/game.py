"""What generator and discriminator play for: non-saturating logistic losses, two lazy regularisers, an average.

Goodfellow et al., NeurIPS 2014 (losses); Mescheder et al., ICML 2018 (R1); Karras et al., CVPR 2020 (path length).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

FOLLOWS = 0.01  # share of the way that the usual path length goes towards each measured one
WARM = 0.05  # the average's half life is at most this share of the images so far, so that it soon leaves the start


def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """-log sigmoid(D(x)) - log(1 - sigmoid(D(G(z)))), means over logits ``[n]`` on reals and fakes."""
    return F.softplus(-real).mean() + F.softplus(fake).mean()


def generator_loss(fake: Tensor) -> Tensor:
    """-log sigmoid(D(G(z))), mean over logits ``[n]`` on fakes."""
    return F.softplus(-fake).mean()


def gradient_penalty(scores: Tensor, images: Tensor) -> Tensor:
    """R1: mean over images of \\|grad D(x)\\|^2, which can be differentiated once more.

    Args:
        scores: D(x) ``[n]`` of ``images``.
        images: reals ``[n, C, s, s]`` that require a gradient.
    """
    (slope,) = torch.autograd.grad(scores.sum(), images, create_graph=True)
    return slope.square().flatten(1).sum(1).mean()


def path_lengths(images: Tensor, ws: Tensor, draw: torch.Generator) -> Tensor:
    """Length ``[n]`` of J^T y for random images y: how far an image moves when its styles do, the same for all or not.

    Args:
        images: of the styles ``[n, C, s, s]``.
        ws: styles ``[n, slots, style]`` that require a gradient.
        draw: of y, normal with a variance of one over the number of pixels.
    """
    y = torch.randn(images.shape, generator=draw, device=images.device) / math.sqrt(images[0, 0].numel())
    (slope,) = torch.autograd.grad((images * y).sum(), ws, create_graph=True)
    return slope.square().sum(2).mean(1).sqrt()


def path_penalty(lengths: Tensor, usual: Tensor) -> Tensor:
    """Mean squared distance of lengths ``[n]`` from the usual one, which follows them (it is changed)."""
    with torch.no_grad():
        usual.lerp_(lengths.mean(), FOLLOWS)
    return (lengths - usual).square().mean()


def decay(batch: int, seen: int, half_life: int) -> float:
    """What is left of the old average after a step: half of it after ``half_life`` images, sooner at the beginning.

    Args:
        batch: images per step.
        seen: images before this step.
        half_life: in images.
    """
    lives = min(half_life, WARM * seen)
    return 0.5 ** (batch / lives) if lives else 0.0


@torch.no_grad()
def follow(average: nn.Module, model: nn.Module, share: float) -> None:
    """Keep ``share`` of an average of weights and take the rest from the model; buffers are copied."""
    for mean, now in zip(average.parameters(), model.parameters(), strict=True):
        mean.lerp_(now, 1 - share)
    for mean, now in zip(average.buffers(), model.buffers(), strict=True):
        mean.copy_(now)
