"""What a trained auto-encoder is judged by, over a set of held-out inputs (binarised already, where they are).

Of an auto-encoder with several levels, mutual information, active units and distances are those of all levels side by
side, each level's posterior taken given the means of those before it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from reprise.papers.crvae.bounds import log_weights
from reprise.papers.crvae.model import Autoencoder, Gaussian, Level, Likelihood
from reprise.papers.crvae.penalties import wasserstein2

ACTIVE = 0.01  # variance of a posterior mean over the data above which a unit is active (Burda et al., 2016)
BATCH = 64  # inputs per batch of the mutual information that stays below log(batch)
INPUTS_AT_ONCE = 1000


@torch.inference_mode()
def nll(
    model: Autoencoder,
    likelihood: Likelihood,
    x: Tensor,
    samples: int,
    generator: torch.Generator,
    chunk: int = 2000,
) -> Tensor:
    """-log (1/S) sum_s p(x, z_s) / q(z_s | x) ``[N]`` in nats, an upper bound that tightens with S.

    Args:
        x: inputs ``[N, *shape]``.
        samples: S.
        generator: of the samples.
        chunk: inputs times samples that are decoded at once, which bounds the memory: a decoder's output of so many
            inputs is held a few times.
    """
    found = x.new_empty(len(x))
    inputs = min(len(x), chunk)
    at_once = max(1, chunk // inputs)
    for first in range(0, len(x), inputs):
        part = x[first : first + inputs]
        total = part.new_full((len(part),), -math.inf)
        for done in range(0, samples, at_once):
            weights = _log_weights(model, likelihood, part, min(at_once, samples - done), generator)
            total = torch.logaddexp(total, weights.logsumexp(0))
        found[first : first + inputs] = math.log(samples) - total
    return found


def _log_weights(
    model: Autoencoder, likelihood: Likelihood, x: Tensor, samples: int, generator: torch.Generator
) -> Tensor:
    """log p(x, z) - log q(z | x) ``[K, n]``."""
    levels = model.levels(x, model.noise(samples, len(x), generator))
    return log_weights(likelihood.log_prob(x, model.decode([level.z for level in levels])), levels)


@torch.inference_mode()
def elbo(model: Autoencoder, likelihood: Likelihood, x: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """The evidence lower bound ``[N]`` of one sample each, and its KL(q(z | x) || p(z)) ``[N]``, in nats."""
    bounds, kls = [], []
    for part in x.split(INPUTS_AT_ONCE):
        levels = model.levels(part, model.noise(1, len(part), generator))
        kl = sum(level.kl()[0] for level in levels)
        bounds.append(likelihood.log_prob(part, model.decode([level.z for level in levels]))[0] - kl)
        kls.append(kl)
    return torch.cat(bounds), torch.cat(kls)


@torch.inference_mode()
def posteriors(model: Autoencoder, x: Tensor) -> tuple[Gaussian, Gaussian]:
    """q(z | x) and p(z) of all levels side by side, each ``[N, d]``, given the means of the levels before."""
    parts = [model.levels(part, model.no_noise(part)) for part in x.split(INPUTS_AT_ONCE)]
    return _joined(parts, prior=False), _joined(parts, prior=True)


def _joined(parts: list[list[Level]], prior: bool) -> Gaussian:
    rows = []
    for levels in parts:
        own = [_prior(level) if prior else level.posterior for level in levels]
        rows.append(tuple(torch.cat([getattr(g, name)[0] for g in own], -1) for name in ("mean", "log_variance")))
    mean, log_variance = zip(*rows, strict=True)
    return Gaussian(torch.cat(mean), torch.cat(log_variance))


def _prior(level: Level) -> Gaussian:
    standard = torch.zeros_like(level.posterior.mean)
    return Gaussian(standard, standard) if level.prior is None else level.prior


@torch.inference_mode()
def information(q: Gaussian, p: Gaussian, generator: torch.Generator) -> dict[str, float]:
    """Mutual information I_q(x; z) in nats by three estimators, and the KL of the aggregated posterior to the prior.

    With z_i ~ q(z | x_i): the mean over i of log q(z_i | x_i) - log q(z_i), where q(z) is the mixture of the posteriors

    - of all N inputs, ``mi/full``: a lower bound in expectation, and never above log N (Hoffman and Johnson, 2016),
    - of its own batch of 64, ``mi/batch``: never above log 64 (the estimator of He et al., 2019),
    - of all other inputs, ``mi/leave_one_out``: an upper bound in expectation, without a ceiling.

    Args:
        q: posteriors ``[N, d]``.
        p: priors ``[N, d]``.
        generator: of the z_i.
    """
    noise = torch.randn(q.mean.shape, generator=generator, device=q.mean.device, dtype=q.mean.dtype)
    z = q.at(noise)
    own = q.log_density(z)
    n, batch = len(z), min(BATCH, len(z))
    full, others = _log_mixtures(q, z)
    whole = n // batch * batch  # a last batch that is not full has another ceiling
    starts = range(0, whole, batch)
    within = torch.cat([_log_mixtures(q.rows(slice(s, s + batch)), z[s : s + batch])[0] for s in starts])
    return {
        "mi/full": float((own - full + math.log(n)).mean()),
        "mi/full_ceiling": math.log(n),
        "mi/batch": float((own[:whole] - within + math.log(batch)).mean()),
        "mi/batch_ceiling": math.log(batch),
        "mi/leave_one_out": float((own - others + math.log(max(n - 1, 1))).mean()),
        "aggregated_kl": float((full - math.log(n) - p.log_density(z)).mean()),
    }


def _log_mixtures(q: Gaussian, z: Tensor) -> tuple[Tensor, Tensor]:
    """log sum_j q(z_i | x_j) ``[n]``, over all j and over all but i."""
    sums, others = [], []
    for first, density in _pairwise(q, z):
        sums.append(density.logsumexp(1))
        rows = torch.arange(len(density), device=z.device)
        density[rows, rows + first] = -math.inf
        others.append(density.logsumexp(1))
    return torch.cat(sums), torch.cat(others)


def _pairwise(q: Gaussian, z: Tensor) -> Iterator[tuple[int, Tensor]]:
    """log q(z_i | x_j) ``[rows, n]`` for some rows i at a time, as two matrix products.

    sum_k (z_k - m_k)^2 / v_k is a sum of three inner products, taken in double precision because they nearly cancel.
    """
    mean, precision = q.mean.double(), (-q.log_variance.double()).exp()
    constant = -0.5 * (
        (mean.square() * precision + q.log_variance.double()).sum(1) + mean.shape[1] * math.log(math.tau)
    )
    for first in range(0, len(z), INPUTS_AT_ONCE):
        rows = z[first : first + INPUTS_AT_ONCE].double()
        yield first, rows @ (mean * precision).T - 0.5 * rows.square() @ precision.T + constant


def active_units(q: Gaussian) -> tuple[int, Tensor]:
    """How many units' posterior means ``[N, d]`` have a variance of at least 0.01, and all variances, largest first."""
    variances = q.mean.var(0).sort(descending=True).values
    return int((variances >= ACTIVE).sum()), variances


def consistency(clean: Gaussian, augmented: Gaussian) -> dict[str, Tensor]:
    """Distances between the posteriors of x and x~, per input ``[N]``.

    ``kl``: KL(q(z | x~) || q(z | x)) in nats. ``w2``: squared 2-Wasserstein distance. ``w2_ratio``: the same over the
    total variance of the posterior means of x, 0 for no distance and about 2 for means as far apart as those of two
    random inputs.
    """
    w2 = wasserstein2(augmented, clean)
    total = clean.mean.var(0).sum()
    return {"kl": augmented.kl(clean), "w2": w2, "w2_ratio": w2 / total.clamp_min(torch.finfo(total.dtype).tiny)}


@torch.inference_mode()
def retrieval(clean: Gaussian, augmented: Gaussian) -> float:
    """Share of the x~ whose posterior mean has that of its own x as the nearest among all x."""
    found = [torch.cdist(rows, clean.mean).argmin(1) for rows in augmented.mean.split(INPUTS_AT_ONCE)]
    return float((torch.cat(found) == torch.arange(len(clean.mean), device=clean.mean.device)).double().mean())
