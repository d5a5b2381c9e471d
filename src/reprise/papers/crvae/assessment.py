"""How the end of a run is judged: likelihood, information, consistency, representation and samples."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from reprise.checks import PositiveInt, checked
from reprise.papers.crvae import metrics
from reprise.papers.crvae.frechet import Frechet
from reprise.papers.crvae.likelihoods import binarise
from reprise.papers.crvae.model import Autoencoder, Gaussian, Likelihood
from reprise.papers.crvae.probes import Probes
from reprise.randomness import generator

if TYPE_CHECKING:
    from reprise.papers.crvae.datamodule import ViewData

SHOWN = 10  # inputs and samples that are kept for pictures
TRAVERSED = 8  # units, from the most active one
STEPS = 9  # values of each
BINARY, TRANSFORMED, NLL, ELBO, INFORMATION, PRIOR, TRAIN = range(10, 17)  # what randomness is for


@dataclass(frozen=True)
class Assessed:
    """What was found.

    Attributes:
        metrics: the numbers.
        clean, augmented: posteriors of test inputs and of their transformations ``[N, d]``.
        labels: of the test inputs ``[N]``.
        classes: names of the labels.
        nll, consistency: per test input ``[N]``, in nats.
        variances: of the posterior means, sorted ``[d]``.
        pictures: ``inputs``, ``transformed``, and what the model makes of each, ``reconstructed`` and
            ``transformed_reconstructed``; ``samples``; ``traversals`` ``[units, steps, *shape]``.
    """

    metrics: dict[str, float]
    clean: Gaussian
    augmented: Gaussian
    labels: Tensor
    classes: tuple[str, ...]
    nll: Tensor
    consistency: Tensor
    variances: Tensor
    pictures: dict[str, Tensor]


class Assessment:
    """Judges an auto-encoder on the test inputs and their fixed transformations.

    All that is drawn follows from the data's seed, so that methods and runs answer for the same pixels and noise.

    Args:
        samples: S, importance samples of the negative log-likelihood.
        inputs: test inputs of which the likelihood is taken; ``None`` = all.
        chunk: inputs times samples that are decoded at once.
        probes: classifiers on the posterior means; ``None`` = none.
        frechet: distance of samples to images; ``None`` = none.
    """

    @checked
    def __init__(
        self,
        samples: PositiveInt = 1000,
        inputs: PositiveInt | None = None,
        chunk: PositiveInt = 2000,
        probes: Probes | None = None,
        frechet: Frechet | None = None,
    ) -> None:
        self.samples, self.inputs, self.chunk, self.probes, self.frechet = samples, inputs, chunk, probes, frechet

    @torch.no_grad()
    def __call__(self, model: Autoencoder, likelihood: Likelihood, data: ViewData, device: torch.device) -> Assessed:
        """Judge a model in evaluation mode on ``device``."""

        def draw(purpose: int) -> torch.Generator:
            return generator(data.data_seed, purpose, device=device)

        def seen(x: Tensor, purpose: int) -> Tensor:
            x = x.to(device)
            return binarise(x, draw(purpose)) if likelihood.binary else x

        x, moved = seen(data.test.x, BINARY), seen(data.transformed, TRANSFORMED)
        elbo, kl = metrics.elbo(model, likelihood, x, draw(ELBO))
        elbo_moved, _ = metrics.elbo(model, likelihood, moved, draw(ELBO))
        nll = metrics.nll(model, likelihood, x[: self.inputs], self.samples, draw(NLL), self.chunk)
        q, p = metrics.posteriors(model, x)
        q_moved, _ = metrics.posteriors(model, moved)
        apart = metrics.consistency(q, q_moved)
        active, variances = metrics.active_units(q)
        found = {
            "nll": float(nll.mean()),
            "elbo": float(elbo.mean()),
            "elbo_transformed": float(elbo_moved.mean()),
            "kl": float(kl.mean()),
            "active_units": active,
            "consistency_kl": float(apart["kl"].mean()),
            "consistency_w2_ratio": float(apart["w2_ratio"].mean()),
            "retrieval": metrics.retrieval(q, q_moved),
        } | metrics.information(q, p, draw(INFORMATION))
        if not likelihood.binary and data.source.spec.kind == "image":
            found["bits_per_dim"] = found["nll"] / (x[0].numel() * math.log(2))
        if self.probes is not None:
            train, _ = metrics.posteriors(model, seen(data.train.x, TRAIN))
            features = (train.mean, data.train.y), (q.mean, data.test.y), q_moved.mean
            found |= self.probes(*features)
        found |= self._frechet(model, likelihood, data, draw(PRIOR), device)
        pictures = _pictures(model, likelihood, data, x, moved, q, draw(PRIOR))
        classes = data.source.spec.classes
        return Assessed(found, q, q_moved, data.test.y, classes, nll, apart["kl"], variances, pictures)

    def _frechet(
        self,
        model: Autoencoder,
        likelihood: Likelihood,
        data: ViewData,
        draw: torch.Generator,
        device: torch.device,
    ) -> dict[str, float]:
        """Of expected images: a sample of binary pixels would be told from grey ones by its noise."""
        spec = data.spec
        if self.frechet is None or spec.kind != "image" or spec.num_classes < 2 or min(spec.shape[1:]) < 8:
            return {}
        generated = sample(model, likelihood, self.frechet.samples, draw).clamp(0, 1)
        return {"frechet": self.frechet.distance(spec, data.train, data.test.x.to(device), generated, data.cache_dir)}


def sample(model: Autoencoder, likelihood: Likelihood, count: int, draw: torch.Generator) -> Tensor:
    """Expected inputs ``[count, *shape]`` of samples from the prior."""
    parts = []
    for done in range(0, count, 1000):
        noise = model.noise(1, min(1000, count - done), draw)
        parts.append(likelihood.mean(model.decode(model.prior(noise)))[0])
    return torch.cat(parts)


def _pictures(
    model: Autoencoder,
    likelihood: Likelihood,
    data: ViewData,
    x: Tensor,
    moved: Tensor,
    q: Gaussian,
    draw: torch.Generator,
) -> dict[str, Tensor]:
    """Some inputs with what the model makes of them, samples, and traversals of the most active units."""
    first = slice(SHOWN)

    def reconstructed(views: Tensor) -> Tensor:
        levels = model.levels(views, model.no_noise(views))
        return likelihood.mean(model.decode([level.z for level in levels]))[0]

    pictures = {
        "inputs": data.test.x[first],
        "reconstructed": reconstructed(x[first]),
        "transformed": data.transformed[first],
        "transformed_reconstructed": reconstructed(moved[first]),
        "samples": sample(model, likelihood, SHOWN * SHOWN, draw),
        "traversals": _traversals(model, likelihood, x[:1], q),
    }
    return {name: value.cpu() for name, value in pictures.items()}


def _traversals(model: Autoencoder, likelihood: Likelihood, x: Tensor, q: Gaussian) -> Tensor:
    """One input's code, with one unit at a time taken from one end of its range over the data to the other."""
    levels = model.levels(x, model.no_noise(x))
    code = torch.cat([level.z[0] for level in levels], -1)  # [1, d]
    units = q.mean.var(0).argsort(descending=True)[:TRAVERSED]
    steps = torch.linspace(-2.5, 2.5, STEPS, device=x.device, dtype=code.dtype)
    codes = code.repeat(len(units), STEPS, 1)
    for row, unit in enumerate(units.tolist()):
        codes[row, :, unit] = q.mean[:, unit].mean() + steps * q.mean[:, unit].std().clamp_min(1e-6)
    z = [part.unsqueeze(0) for part in codes.flatten(0, 1).split(list(model.sizes), -1)]
    images = likelihood.mean(model.decode(z))[0]
    return images.unflatten(0, (len(units), STEPS))
