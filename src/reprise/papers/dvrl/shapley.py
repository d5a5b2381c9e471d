"""Shapley values by permutations: TMC-Shapley and Beta Shapley, which weight the same marginal contributions.

In a random order of the rows, the row at place j contributes Delta_j = U(first j rows) - U(first j - 1 rows). The mean
of a row's contributions over orders is its Shapley value; other weights for the places give the other semivalues.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor

from reprise.checks import NonNegativeFloat, PositiveFloat, PositiveInt, checked
from reprise.data.base import DataSpec
from reprise.papers.dvrl.predictors import Predictor
from reprise.papers.dvrl.utilities import Utility
from reprise.papers.dvrl.valuation import Valuator
from reprise.papers.dvrl.walks import Walk, Walks, identity

# Constants of the code of Ghorbani and Zou 2019.
NEAR_IN_A_ROW = 5  # so many scores near U(D) are chance, one more cuts a permutation off
CONVERGENCE_WINDOW = 100  # permutations
TINY = 1e-12

PERMUTATIONS_PER_EPOCH = 4
ORDER = 1  # purpose of randomness


class PermutationMean(Valuator):
    """Values that are means over permutations of what each row contributed to each.

    Args:
        permutations: at most so many.
        convergence: stop when ``drift`` is below; ``None`` = never.
        per_epoch: permutations per epoch.
    """

    def __init__(
        self,
        spec: DataSpec,
        seed: int,
        predictor: Predictor,
        permutations: int,
        convergence: float | None,
        per_epoch: int,
    ) -> None:
        super().__init__(spec, seed, predictor)
        self.permutations, self.convergence, self.per_epoch = permutations, convergence, per_epoch
        self.epochs = -(-permutations // per_epoch)
        self.register_buffer("contributions", torch.zeros(permutations, spec.rows, dtype=torch.float64))
        self.register_buffer("done", torch.zeros((), dtype=torch.int64))

    def training_step(self, batch: int) -> None:
        """The next permutations, unless the values have settled."""
        first = self.current_epoch * self.per_epoch
        numbers = range(first, min(first + self.per_epoch, self.permutations))
        if self.convergence is not None and drift(self.contributions[: self.done]) < self.convergence:
            return
        self.contributions[numbers.start : numbers.stop] = self.evaluated(numbers)
        self.done += len(numbers)

    def evaluated(self, numbers: range) -> Tensor:
        """Contributions ``[len(numbers), N]`` of each row to the permutations of these numbers."""
        raise NotImplementedError

    def order(self, number: int) -> Tensor:
        """The permutation of that number, ``[N]``: the rows from first to last."""
        generator = self.generator(ORDER, number)
        return torch.randperm(self.contributions.shape[1], generator=generator, device=self.device)

    def ranking(self) -> Tensor:
        """See ``Valuator``."""
        return self.contributions[: self.done].mean(0)

    def final_metrics(self, datamodule: LightningDataModule) -> dict[str, float]:
        """Also how many permutations the values rest on."""
        return super().final_metrics(datamodule) | {"cost/permutations": int(self.done)}


def drift(contributions: Tensor) -> float:
    """How far the running mean of ``contributions [T, N]`` moved over the last 100 permutations.

    The largest, over those permutations, mean relative distance of the running values from the present ones (Ghorbani
    and Zou 2019, the code's ``error``); infinite before there are as many.
    """
    total = len(contributions)
    if total < CONVERGENCE_WINDOW:
        return float("inf")
    counts = torch.arange(1, total + 1, device=contributions.device).unsqueeze(1)
    running = (contributions.cumsum(0) / counts)[-CONVERGENCE_WINDOW:]
    return ((running - running[-1]).abs() / (running[-1].abs() + TINY)).mean(1).max().item()


class TMCShapley(PermutationMean):
    """Truncated Monte Carlo Shapley values (Ghorbani and Zou 2019): the mean contribution over random permutations.

    A permutation is cut off once more than five scores in a row lie within ``tolerance * |U(D)|`` of U(D); rows after
    that contribute nothing to it. Without a cut the contributions of a permutation add up to U(D) - U(empty).
    Consecutive prefixes of one permutation are fitted together, on their own rows alone; prefixes past the cut that
    were fitted with it are charged but not used.

    Args:
        reward: the utility U (``scores.REWARDS``).
        together: prefixes fitted at once.
        permutations: at most so many.
        tolerance: ``None`` = permutations are never cut off.
        convergence: stop when ``drift`` is below; ``None`` = never.
    """

    title = "TMC-Shapley"

    @checked
    def __init__(
        self,
        spec: DataSpec,
        seed: int,
        predictor: Predictor,
        reward: str,
        together: PositiveInt,
        permutations: PositiveInt,
        tolerance: NonNegativeFloat | None,
        convergence: PositiveFloat | None,
    ) -> None:
        super().__init__(spec, seed, predictor, permutations, convergence, PERMUTATIONS_PER_EPOCH)
        self.utility = Utility(self, reward, predictor.steps, together)
        self.tolerance, self.walks = tolerance, Walks(None)
        self.settings = {"reward": reward, "together": together, "tolerance": tolerance}
        self.register_buffer("full", torch.zeros((), dtype=torch.float64))
        self.register_buffer("added", torch.zeros((), dtype=torch.int64))
        self.register_buffer("shared", torch.zeros((), dtype=torch.int64))

    def place_weights(self) -> Tensor:
        """Weight ``[N]`` of a contribution by its place in the permutation; their mean is 1."""
        return torch.ones(len(self.task.y_train), dtype=torch.float64, device=self.device)

    def on_fit_start(self) -> None:
        """Also look for permutations that another run has evaluated."""
        super().on_fit_start()
        folder: Path | None = getattr(self.trainer.datamodule, "cache_dir", None)
        known = identity(self, self.settings, sys.modules[__name__]) if folder else None
        self.walks = Walks(folder if known else None, known)

    @torch.no_grad()
    def evaluated(self, numbers: range) -> Tensor:
        """See ``PermutationMean``."""
        if self.current_epoch == 0:
            self.full.copy_(self.utility.whole())
        before, weights = self.utility.empty().item(), self.place_weights()
        found = torch.zeros(len(numbers), len(weights), dtype=torch.float64, device=self.device)
        for row, number, walk in zip(found, numbers, self._walks(numbers), strict=True):
            self.added += len(walk.scores)
            row[self.order(number)[: len(walk.scores)]] = marginals(before, walk.scores, weights)
        return found

    def _walks(self, numbers: range) -> list[Walk]:
        """These permutations, charged alike whether they are evaluated here or were before."""
        kept = self.walks.load(numbers)
        if kept is None:
            walks = [self._walk(number) for number in numbers]
            self.walks.save(numbers, walks)
            return walks
        fits = sum(walk.fits for walk in kept)
        self.shared += fits
        self.fits += fits
        self.updates += fits * self.predictor.steps
        return kept

    def _walk(self, number: int) -> Walk:
        """Scores of the prefixes of 1, 2, ... rows, up to the cut or all rows."""
        place, rows = self.order(number).argsort(), len(self.task.y_train)
        full, near, fits = self.full.item(), 0, int(self.fits)
        scores: list[float] = []
        while len(scores) < rows - 1:
            sizes = (
                torch.arange(len(scores), min(len(scores) + self.utility.together, rows - 1), device=self.device) + 1
            )
            for score in self.utility((place < sizes.unsqueeze(1)).float()).tolist():
                scores.append(score)
                close = self.tolerance is not None and abs(score - full) <= self.tolerance * abs(full)
                near = near + 1 if close else 0
                if near > NEAR_IN_A_ROW:
                    return Walk(scores, int(self.fits) - fits)
        return Walk([*scores, full], int(self.fits) - fits)

    def final_metrics(self, datamodule: LightningDataModule) -> dict[str, float]:
        """Also how far the permutations went, and how many of the charged fits another run had done.

        The latter is a matter of which run came first, so it stands with the times: it may differ between equal runs.
        """
        ran = {"cost/rows_per_permutation": int(self.added) / max(int(self.done), 1)}
        return super().final_metrics(datamodule) | ran | {"time/shared_fits": int(self.shared)}


def marginals(before: float, scores: Sequence[float], weights: Tensor) -> Tensor:
    """Weighted differences of consecutive scores, the first against ``before``; as many as there are scores."""
    scores = torch.tensor([before, *scores], dtype=torch.float64, device=weights.device)
    return scores.diff() * weights[: len(scores) - 1]


class BetaShapley(TMCShapley):
    """Beta(alpha, beta)-Shapley values (Kwon and Zou 2022): contributions to small sets count for more.

    The same permutations as ``TMCShapley`` of the same seed, cut off alike, so that one evaluation serves both.

    Args:
        alpha: larger = more weight on small sets; 16 with ``beta`` 1 in the paper's detection of wrong labels.
        beta: larger = more weight on large sets; 1 and 1 give the Shapley value.
    """

    title = "Beta Shapley"

    @checked
    def __init__(
        self,
        spec: DataSpec,
        seed: int,
        predictor: Predictor,
        reward: str,
        together: PositiveInt,
        permutations: PositiveInt,
        tolerance: NonNegativeFloat | None,
        convergence: PositiveFloat | None,
        alpha: PositiveFloat,
        beta: PositiveFloat,
    ) -> None:
        super().__init__(spec, seed, predictor, reward, together, permutations, tolerance, convergence)
        self.alpha, self.beta = alpha, beta

    def place_weights(self) -> Tensor:
        """See ``TMCShapley``."""
        return torch.as_tensor(beta_weights(len(self.task.y_train), self.alpha, self.beta), device=self.device)


def beta_weights(rows: int, alpha: float, beta: float) -> np.ndarray:
    """Weight of the contribution at place j = 1..n (Kwon and Zou 2022, equation 3 times the number of sets behind it).

    w(j) = n C(n-1, j-1) B(j + beta - 1, n - j + alpha) / B(alpha, beta): n times the probability of j - 1 successes in
    n - 1 draws whose rate is Beta(beta, alpha) distributed.
    """
    from scipy.stats import betabinom

    return rows * betabinom.pmf(np.arange(rows), rows - 1, beta, alpha)
