"""The released code's loss, with its names mended and its scales as they are: shown, never used.

What it adds up has three scales: a cross-entropy averaged over batch and pixels, a KL to the prior summed over batch
and latents, and a consistency term summed over latents and averaged over the batch. Prior and pixels are thereby about
B * D apart, so that the posterior collapses at once. Its consistency term also takes exp(log sigma^2) for sigma.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from reprise.papers.crvae.model import Gaussian
from reprise.papers.crvae.objective import Seen


def literal_loss(seen: Sequence[Seen], weight: float) -> tuple[Tensor, Tensor]:
    """The released sum for the clean and the augmented view ``seen``, and its consistency term.

    Args:
        seen: both views.
        weight: gamma, the released code's name for lambda; its default is 1e-3.
    """
    clean, augmented = seen
    terms = []
    for view in seen:
        per_pixel = -view.bound.reconstruction.mean() / view.x[0].numel()
        terms.append(per_pixel + view.bound.kl.sum())
    apart = sum(
        _squared_variances(a.posterior).kl(_squared_variances(c.posterior)).mean()
        for a, c in zip(augmented.levels, clean.levels, strict=True)
    )
    return terms[0] + terms[1] + weight * apart, apart


def _squared_variances(posterior: Gaussian) -> Gaussian:
    """The Gaussian whose standard deviation is what the network calls a variance."""
    return Gaussian(posterior.mean, 2 * posterior.log_variance)
