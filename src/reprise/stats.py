"""Intervals over seeds, and the verdicts that follow from them by rule.

Nothing here reads a file or knows a paper: numbers go in, an interval or a verdict with its reason comes out. The rules
are written out in `cell_verdict` and `claim_verdict`; they treat favourable and unfavourable results alike.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

import numpy as np

MIN_SEEDS = 3  # below this no verdict is given, whatever the numbers look like
BCA_FROM = 10  # a bootstrap of fewer values than this gives intervals that are far too narrow
RELATIONS = (">", ">=", "<", "<=", "within")
RESAMPLES = 9999


class CellVerdict(StrEnum):
    """How one reported number compares with ours; see `cell_verdict`."""

    REPRODUCED = "REPRODUCED"
    BETTER = "BETTER"
    CLOSE = "CLOSE"
    NOT_REPRODUCED = "NOT REPRODUCED"
    PARTIAL = "PARTIAL"
    NOT_RUN = "NOT RUN"
    NOT_APPLICABLE = "N/A"


class ClaimVerdict(StrEnum):
    """Whether a claim holds on paired seeds; see `claim_verdict`."""

    SUPPORTED = "SUPPORTED"
    REFUTED = "REFUTED"
    INCONCLUSIVE = "INCONCLUSIVE"
    NOT_RUN = "NOT RUN"


@dataclass(frozen=True)
class Interval:
    """A mean over ``n`` values with its confidence interval, in the unit of the values.

    ``low`` and ``high`` are ``None`` for a single value. ``method`` says how they were found: ``t`` (Student),
    ``bca`` (bootstrap), ``degenerate`` (all values equal, so low = mean = high) or ``none`` (one value).
    """

    mean: float
    low: float | None
    high: float | None
    n: int
    method: Literal["none", "degenerate", "t", "bca"]

    @property
    def half_width(self) -> float | None:
        """Half the interval's length; ``None`` for a single value."""
        return None if self.low is None or self.high is None else (self.high - self.low) / 2

    def scaled(self, factor: float) -> Interval:
        """The same interval in another unit (``factor`` > 0), e.g. 100 for fraction to percent."""
        low = None if self.low is None else self.low * factor
        high = None if self.high is None else self.high * factor
        return Interval(self.mean * factor, low, high, self.n, self.method)


@dataclass(frozen=True)
class CellJudgement:
    """A cell's verdict and the sentence that explains it."""

    verdict: CellVerdict
    reason: str


@dataclass(frozen=True)
class ClaimJudgement:
    """A claim's verdict on ``n`` paired seeds; ``difference`` is left minus right (``None`` without a pair)."""

    verdict: ClaimVerdict
    reason: str
    n: int
    difference: Interval | None = None


def interval(values: Sequence[float], level: float = 0.95) -> Interval:
    """Mean of ``values`` with a two-sided confidence interval at ``level``.

    Student's t below 10 values, the BCa bootstrap (seeded, so the answer never moves) from 10. One value has no
    interval; equal values have one of length zero. The order of the values does not matter, negating them mirrors the
    interval exactly, and the interval always contains the mean.

    Raises:
        ValueError: no values, or a value that is not finite.
    """
    numbers = sorted(float(v) for v in values)
    if not numbers:
        raise ValueError("an interval needs at least one value")
    if not all(math.isfinite(v) for v in numbers):
        raise ValueError(f"an interval needs finite values, got {numbers}")
    n = len(numbers)
    if n == 1:
        return Interval(numbers[0], None, None, 1, "none")
    if numbers[0] == numbers[-1]:
        return Interval(numbers[0], numbers[0], numbers[0], n, "degenerate")
    mean = math.fsum(numbers) / n
    offsets = _bca(np.array([v - mean for v in numbers]), level) if n >= BCA_FROM else None
    method: Literal["t", "bca"] = "t" if offsets is None else "bca"
    below, above = offsets or _student(numbers, mean, level)
    return Interval(mean, mean + min(below, 0.0), mean + max(above, 0.0), n, method)


def _student(numbers: list[float], mean: float, level: float) -> tuple[float, float]:
    from scipy.stats import t

    n = len(numbers)
    deviation = math.sqrt(math.fsum((v - mean) ** 2 for v in numbers) / (n - 1))
    half = float(t.ppf((1 + level) / 2, n - 1)) * deviation / math.sqrt(n)
    return -half, half


def _bca(centred: np.ndarray, level: float) -> tuple[float, float] | None:
    """BCa limits of the mean of ``centred`` (ascending, mean 0), or ``None`` where the bootstrap breaks down.

    The resampling draws positions, so the array is first turned to a fixed one of its two mirror images; otherwise
    left-minus-right and right-minus-left would get slightly different intervals.
    """
    from scipy.stats import bootstrap

    mirrored = -centred[::-1]
    flip = tuple(mirrored) > tuple(centred)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # degenerate resamples: answered by the finiteness check below
        found = bootstrap(
            (mirrored if flip else centred,),
            np.mean,
            method="BCa",
            confidence_level=level,
            n_resamples=RESAMPLES,
            rng=np.random.default_rng(0),
        ).confidence_interval
    low, high = float(found.low), float(found.high)
    if not (math.isfinite(low) and math.isfinite(high)):
        return None
    return (-high, -low) if flip else (low, high)


def paired(left: Sequence[float], right: Sequence[float], level: float = 0.95) -> Interval:
    """Interval of the mean of ``left[i] - right[i]``; both sequences hold the same seeds in the same order."""
    if len(left) != len(right):
        raise ValueError(f"paired values differ in number: {len(left)} and {len(right)}")
    return interval([a - b for a, b in zip(left, right, strict=True)], level)


def probability_of_improvement(left: Sequence[float], right: Sequence[float], relation: str) -> float | None:
    """How often a run of the left side is on the better side of one of the right, over all pairs of runs, ties by half.

    Agarwal et al., *Deep reinforcement learning at the edge of the statistical precipice*, NeurIPS 2021: the
    Mann-Whitney statistic over the number of pairs. It tells how likely a single run shows what the means show; 0.5 is
    chance.
    ``None`` where a relation has no better side, or nothing is there to compare.
    """
    if relation == "within" or not (left and right):
        return None
    sign = 1 if relation in (">", ">=") else -1
    apart = sign * (np.asarray(left)[:, None] - np.asarray(right)[None, :])
    return float((apart > 0).mean() + (apart == 0).mean() / 2)


def cell_verdict(
    ours: Interval | None,
    paper: float | None,
    tolerance: float | None,
    higher_is_better: bool | None,
    at_paper_scale: bool,
) -> CellJudgement:
    """Judge one reported number. All arguments are in the unit of the cell; the first rule that applies decides.

    1. N/A: the paper's number was not recovered, or no tolerance was set for it.
    2. NOT RUN: we have no finished run for it.
    3. PARTIAL: fewer than 3 seeds, or not the paper's scale. The difference is told all the same.
    4. REPRODUCED: ``|ours - paper| <= tolerance`` and our interval lies inside ``paper ± 2 tolerance`` (a mean that
       agrees inside a wide interval may be luck).
    5. BETTER: ours is beyond the tolerance in the good direction and our interval does not reach down to the paper's
       number. Needs to know which direction is good.
    6. CLOSE: ``|ours - paper| <= 2 tolerance``, or our interval overlaps ``paper ± tolerance``.
    7. NOT REPRODUCED: everything else.
    """
    if paper is None:
        return CellJudgement(CellVerdict.NOT_APPLICABLE, "the paper's number was not recovered")
    if tolerance is None:
        return CellJudgement(CellVerdict.NOT_APPLICABLE, "no tolerance is set for this cell")
    if ours is None:
        return CellJudgement(CellVerdict.NOT_RUN, "no finished run")
    gap = ours.mean - paper
    told = f"differs by {gap:+.4g} (tolerance {tolerance:g})"
    short = [] if at_paper_scale else ["not the paper's scale"]
    short += [f"{ours.n} of {MIN_SEEDS} seeds"] if ours.n < MIN_SEEDS else []
    if short or ours.low is None or ours.high is None:
        return CellJudgement(CellVerdict.PARTIAL, "; ".join([*short, told]))
    if abs(gap) <= tolerance and ours.low >= paper - 2 * tolerance and ours.high <= paper + 2 * tolerance:
        return CellJudgement(CellVerdict.REPRODUCED, told)
    if higher_is_better is not None and abs(gap) > tolerance:
        clear = ours.low > paper if higher_is_better else ours.high < paper
        if clear:
            return CellJudgement(CellVerdict.BETTER, told)
    if abs(gap) <= 2 * tolerance or (ours.low <= paper + tolerance and ours.high >= paper - tolerance):
        wide = "; the interval is wider than twice the tolerance" if abs(gap) <= tolerance else ""
        return CellJudgement(CellVerdict.CLOSE, told + wide)
    return CellJudgement(CellVerdict.NOT_REPRODUCED, told)


def check_relation(relation: str, tolerance: float) -> None:
    """Raise ``ValueError`` unless the pair makes sense (see `claim_verdict` for what each relation means)."""
    if relation not in RELATIONS:
        raise ValueError(f"unknown relation {relation!r}; choose one of {', '.join(RELATIONS)}")
    if not (math.isfinite(tolerance) and tolerance >= 0):
        raise ValueError(f"a tolerance is a number not below zero, got {tolerance!r}")
    if relation in (">", "<") and tolerance:
        raise ValueError(f"the relation {relation!r} takes no tolerance")
    if relation == "within" and not tolerance:
        raise ValueError("the relation 'within' needs a tolerance above zero")


def holds(left: float, right: float, relation: str, tolerance: float = 0.0) -> bool:
    """Whether the relation is true of two numbers."""
    check_relation(relation, tolerance)
    gap = left - right
    return {
        ">": gap > 0,
        "<": gap < 0,
        ">=": gap >= -tolerance,
        "<=": gap <= tolerance,
        "within": abs(gap) <= tolerance,
    }[relation]


def claim_verdict(
    left: Sequence[float], right: Sequence[float], relation: str, tolerance: float = 0.0, level: float = 0.95
) -> ClaimJudgement:
    """Judge ``left <relation> right`` on paired seeds, from the interval [low, high] of the mean of left - right.

    ========== ========================== ================================ =================================
    relation   meaning of the difference  SUPPORTED                        REFUTED
    ========== ========================== ================================ =================================
    ``>``      above 0                    low > 0                          high <= 0
    ``<``      below 0                    high < 0                         low >= 0
    ``>=``     at least -tolerance        low >= -tolerance                high < -tolerance
    ``<=``     at most tolerance          high <= tolerance                low > tolerance
    ``within`` at most tolerance off 0    both ends within the tolerance   interval wholly outside
    ========== ========================== ================================ =================================

    Everything else is INCONCLUSIVE, and so is every case with fewer than 3 pairs; no pair at all is NOT RUN. A relation
    is SUPPORTED exactly when its negation (``>`` and ``<=`` at tolerance 0) is REFUTED.
    """
    check_relation(relation, tolerance)
    if not left and not right:
        return ClaimJudgement(ClaimVerdict.NOT_RUN, "no paired runs", 0)
    gap = paired(left, right, level)
    kept = sum(holds(a, b, relation, tolerance) for a, b in zip(left, right, strict=True))
    told = f"held on {kept} of {gap.n} seeds"
    if gap.low is None or gap.high is None or gap.n < MIN_SEEDS:
        return ClaimJudgement(ClaimVerdict.INCONCLUSIVE, f"{gap.n} of {MIN_SEEDS} seeds; {told}", gap.n, gap)
    supported, refuted = _regions(gap.low, gap.high, relation, tolerance)
    if supported:
        return ClaimJudgement(ClaimVerdict.SUPPORTED, told, gap.n, gap)
    if refuted:
        return ClaimJudgement(ClaimVerdict.REFUTED, told, gap.n, gap)
    return ClaimJudgement(ClaimVerdict.INCONCLUSIVE, f"{told}; the interval leaves it open", gap.n, gap)


def _regions(low: float, high: float, relation: str, tolerance: float) -> tuple[bool, bool]:
    """(supported, refuted) by the table of `claim_verdict`."""
    return {
        ">": (low > 0, high <= 0),
        "<": (high < 0, low >= 0),
        ">=": (low >= -tolerance, high < -tolerance),
        "<=": (high <= tolerance, low > tolerance),
        "within": (low >= -tolerance and high <= tolerance, low > tolerance or high < -tolerance),
    }[relation]


def combine(verdicts: Sequence[ClaimVerdict]) -> ClaimVerdict:
    """One verdict from several that must all hold.

    REFUTED if any is; SUPPORTED if every one is; NOT RUN if there is none or none was run; else INCONCLUSIVE (so a part
    that was not run keeps the whole from being SUPPORTED).
    """
    if ClaimVerdict.REFUTED in verdicts:
        return ClaimVerdict.REFUTED
    if all(v is ClaimVerdict.NOT_RUN for v in verdicts):
        return ClaimVerdict.NOT_RUN
    if all(v is ClaimVerdict.SUPPORTED for v in verdicts):
        return ClaimVerdict.SUPPORTED
    return ClaimVerdict.INCONCLUSIVE
