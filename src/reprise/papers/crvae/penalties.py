"""What ties the posteriors of an input and of its transformation, per input: the paper's term and its rivals.

All take the levels of the augmented view first, then those of the clean one, as the paper writes the divergence.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from reprise.checks import NonNegativeFloat, PositiveFloat, checked
from reprise.papers.crvae.model import Gaussian, Level

Direction = Literal["paper", "reverse", "symmetric", "w2"]


class Consistency:
    """The distance between the two posteriors, summed over levels (paper, equation 3).

    A level below the first is compared given each view's own samples above it.

    Args:
        direction: ``paper`` KL(q(z | x~) || q(z | x)), ``reverse`` the other way round, ``symmetric`` the mean of both,
            ``w2`` the squared 2-Wasserstein distance.
        stop_gradient: the view whose posterior is held fixed; ``none`` in the paper's formula and code.
    """

    @checked
    def __init__(
        self, direction: Direction = "paper", stop_gradient: Literal["none", "clean", "augmented"] = "none"
    ) -> None:
        self.direction, self.stop_gradient = direction, stop_gradient

    def __call__(self, augmented: Sequence[Level], clean: Sequence[Level]) -> Tensor:
        """The distance ``[B]``: nats, or squared units of z for ``w2``."""
        return sum(
            self._apart(self._held(a.posterior, "augmented"), self._held(c.posterior, "clean")).mean(0)
            for a, c in zip(augmented, clean, strict=True)
        )

    def _held(self, posterior: Gaussian, view: str) -> Gaussian:
        if self.stop_gradient != view:
            return posterior
        return Gaussian(posterior.mean.detach(), posterior.log_variance.detach())

    def _apart(self, augmented: Gaussian, clean: Gaussian) -> Tensor:
        if self.direction == "w2":
            return wasserstein2(augmented, clean)
        if self.direction == "symmetric":
            return 0.5 * (augmented.kl(clean) + clean.kl(augmented))
        return augmented.kl(clean) if self.direction == "paper" else clean.kl(augmented)


def wasserstein2(a: Gaussian, b: Gaussian) -> Tensor:
    """Squared 2-Wasserstein distance ``[...]`` of Gaussians with diagonal covariance."""
    spread = (0.5 * a.log_variance).exp() - (0.5 * b.log_variance).exp()
    return ((a.mean - b.mean).square() + spread.square()).sum(-1)


class Triplet:
    """max(0, |mu(x) - mu(x~)|^2 - |mu(x) - mu(x')|^2 + margin), x' the next input of the batch.

    Batches are drawn in random order, so that the next input is a random one. The paper's margin is not known.

    Args:
        margin: in squared units of z.
    """

    across_batch = True  # an input's loss depends on the others

    @checked
    def __init__(self, margin: NonNegativeFloat = 1.0) -> None:
        self.margin = margin

    def __call__(self, augmented: Sequence[Level], clean: Sequence[Level]) -> Tensor:
        """The loss ``[B]``."""
        anchor, positive = _means(clean), _means(augmented)
        near = (anchor - positive).square().sum(-1)
        far = (anchor - anchor.roll(1, 0)).square().sum(-1)
        return (near - far + self.margin).clamp_min(0)


class InfoNCE:
    """-log of the share that the own transformed view has among all those of the batch, by cosine.

    Args:
        temperature: of the softmax over cosines.
    """

    across_batch = True

    @checked
    def __init__(self, temperature: PositiveFloat = 0.1) -> None:
        self.temperature = temperature

    def __call__(self, augmented: Sequence[Level], clean: Sequence[Level]) -> Tensor:
        """The loss ``[B]`` in nats."""
        anchor, positive = F.normalize(_means(clean), dim=-1), F.normalize(_means(augmented), dim=-1)
        target = torch.arange(len(anchor), device=anchor.device)
        return F.cross_entropy(anchor @ positive.T / self.temperature, target, reduction="none")


def _means(levels: Sequence[Level]) -> Tensor:
    """Posterior means of all levels side by side ``[B, d]``, averaged over the samples of the levels above."""
    return torch.cat([level.posterior.mean.mean(0) for level in levels], dim=-1)
