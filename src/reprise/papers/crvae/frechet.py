"""Sample quality: how far samples of the prior are from the data."""

from __future__ import annotations

from reprise import frechet
from reprise.checks import PositiveInt, checked


class Frechet(frechet.Frechet):
    """The Frechet distance of samples to held-out images.

    Args:
        samples: how many are drawn.
        train, features, epochs: of the classifier, see `reprise.frechet.Frechet`.
    """

    @checked
    def __init__(
        self,
        samples: PositiveInt = 5000,
        train: PositiveInt = 20_000,
        features: PositiveInt = 64,
        epochs: PositiveInt = 3,
    ) -> None:
        super().__init__(train, features, epochs)
        self.samples = samples
