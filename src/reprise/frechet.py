"""The Frechet distance between real and generated images in the features of a small classifier.

Inception features are made for photographs; here a convolutional classifier is trained on the data set's own labels,
once per data set, and its last hidden layer is the space in which both clouds are compared. The distances compare
methods on one data set, and nothing else.
"""

from __future__ import annotations

import hashlib
import logging
import math
import os
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from reprise.checks import PositiveInt, checked
from reprise.data.base import DataSpec, Split
from reprise.randomness import derived_seed, generator

log = logging.getLogger("reprise")

AT_ONCE = 1000


class Frechet:
    """The classifier, and distances in its features.

    Args:
        train: images that the classifier learns from, at most.
        features: units of its last hidden layer.
        epochs: passes over them.
    """

    @checked
    def __init__(self, train: PositiveInt = 20_000, features: PositiveInt = 64, epochs: PositiveInt = 3) -> None:
        self.train, self.features, self.epochs = train, features, epochs

    def distance(self, spec: DataSpec, train: Split, real: Tensor, generated: Tensor, cache: Path) -> float:
        """The distance of generated images ``[n, C, H, W]`` to real ones, both in 0..1 and at least two.

        Args:
            spec: of the data; its checksum is part of the cached classifier's name, and so are the labels of ``train``.
            train: labelled images for the classifier.
            cache: folder in which the classifier is kept.

        Returns:
            NaN where a generated image is not finite.
        """
        if not generated.isfinite().all():
            return math.nan
        network = self._classifier(spec, train, cache).to(real.device)
        return frechet_distance(*_moments(_features(network, real)), *_moments(_features(network, generated)))

    def _classifier(self, spec: DataSpec, train: Split, cache: Path) -> nn.Sequential:
        network = _network(spec.shape, self.features, spec.num_classes)
        settings = (spec.name, spec.checksum, spec.shape, _trace(train), self.train, self.features, self.epochs)
        name = hashlib.sha256(repr(settings).encode()).hexdigest()[:12]
        path = cache / f"frechet-{spec.name}-{name}.safetensors"
        if path.exists():
            try:
                network.load_state_dict(load_file(path))
            except (SafetensorError, RuntimeError) as error:
                log.warning("%s is damaged and is made anew (%s)", path, " ".join(str(error).split())[:120])
            else:
                return network
        self._fit(network, train)
        cache.mkdir(parents=True, exist_ok=True)
        beside = path.with_suffix(f".{os.getpid()}")  # two runs may do the same; the last one to finish is kept
        save_file(network.state_dict(), beside)
        os.replace(beside, path)
        return network

    def _fit(self, network: nn.Sequential, train: Split) -> None:
        draw = generator(0, 1)
        rows = torch.randperm(len(train), generator=draw)[: self.train]
        x, y = train.x[rows], train.y[rows]
        optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
        with torch.enable_grad():
            for _ in range(self.epochs):
                for batch in torch.randperm(len(x), generator=draw).split(64):
                    loss = nn.functional.cross_entropy(network(x[batch]), y[batch])
                    optimizer.zero_grad(set_to_none=True)
                    loss.backward()
                    optimizer.step()


def _trace(part: Split) -> str:
    """Tells two selections of the same data apart: all labels, and some pixels."""
    few = (part.y, part.x.flatten()[::997])
    return hashlib.sha256(b"".join(t.contiguous().numpy().tobytes() for t in few)).hexdigest()[:12]


def _network(shape: tuple[int, ...], features: int, classes: int) -> nn.Sequential:
    channels, height, width = shape
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(0, 2))
        return nn.Sequential(
            nn.Conv2d(channels, 16, 3, 2, 1),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, 2, 1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(32 * -(-height // 4) * -(-width // 4), features),
            nn.ReLU(),
            nn.Linear(features, classes),
        )


@torch.no_grad()
def _features(network: nn.Sequential, x: Tensor) -> Tensor:
    return torch.cat([network[:-1](part) for part in x.split(AT_ONCE)])


def _moments(features: Tensor) -> tuple[Tensor, Tensor]:
    return features.double().mean(0), features.double().T.cov()


def frechet_distance(mean: Tensor, covariance: Tensor, other_mean: Tensor, other_covariance: Tensor) -> float:
    """|m - m'|^2 + tr(C + C' - 2 (C C')^(1/2)), the squared 2-Wasserstein distance of two normal distributions.

    The trace of the root is that of (C^(1/2) C' C^(1/2))^(1/2), which is symmetric.

    Args:
        mean, other_mean: ``[d]``.
        covariance, other_covariance: ``[d, d]``, symmetric and positive semi-definite.
    """
    root = _root(covariance)
    cross = torch.linalg.eigvalsh(root @ other_covariance @ root).clamp_min(0).sqrt().sum()
    traces = covariance.trace() + other_covariance.trace()
    return float(((mean - other_mean).square().sum() + traces - 2 * cross).clamp_min(0))


def _root(matrix: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(matrix)
    return vectors * values.clamp_min(0).sqrt() @ vectors.T
