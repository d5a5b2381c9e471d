"""Data Banzhaf: the semivalue that the noise of the scores disturbs least."""

from __future__ import annotations

import torch
from torch import Tensor

from reprise.checks import PositiveInt, checked
from reprise.data.base import DataSpec
from reprise.papers.dvrl.predictors import Predictor
from reprise.papers.dvrl.utilities import Utility
from reprise.papers.dvrl.valuation import Valuator

SUBSETS_PER_EPOCH = 256
SUBSET = 1  # purpose of randomness


class Banzhaf(Valuator):
    """Banzhaf values (Wang and Jia 2023), by the estimator in which every subset tells about every row.

    Subsets have each row with probability 1/2; v_i = mean U of those with row i - mean U of those without. A row that
    was in all of them or in none gets 0.

    Args:
        reward: the utility U (``scores.REWARDS``).
        together: subsets fitted at once.
        subsets: how many are drawn.
    """

    title = "Data Banzhaf"

    @checked
    def __init__(
        self, spec: DataSpec, seed: int, predictor: Predictor, reward: str, together: PositiveInt, subsets: PositiveInt
    ) -> None:
        super().__init__(spec, seed, predictor)
        self.utility = Utility(self, reward, predictor.steps, together)
        self.subsets = subsets
        self.epochs = -(-subsets // SUBSETS_PER_EPOCH)
        # first line: subsets with the row, second line: those without
        self.register_buffer("totals", torch.zeros(2, spec.rows, dtype=torch.float64))
        self.register_buffer("counts", torch.zeros(2, spec.rows, dtype=torch.float64))

    @torch.no_grad()
    def training_step(self, batch: int) -> None:
        """Score the next subsets."""
        count = min(SUBSETS_PER_EPOCH, self.subsets - self.current_epoch * SUBSETS_PER_EPOCH)
        inside = self.draw(count)
        scores, sides = self.utility(inside.float()), torch.stack([inside, ~inside]).double()
        self.totals += torch.einsum("m,smn->sn", scores, sides)
        self.counts += sides.sum(1)

    def draw(self, count: int) -> Tensor:
        """The next random subsets, bool ``[count, N]``."""
        generator = self.generator(SUBSET, self.current_epoch)
        return torch.rand(count, self.totals.shape[1], generator=generator, device=self.device) < 0.5

    def ranking(self) -> Tensor:
        """See ``Valuator``."""
        inside, outside = self.totals / self.counts.clamp_min(1)
        return torch.where(self.counts.min(0).values > 0, inside - outside, 0)
