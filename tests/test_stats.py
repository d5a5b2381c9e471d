"""Intervals against hand-made numbers, and the rules of every verdict."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import mannwhitneyu

from reprise.stats import (
    MIN_SEEDS,
    CellVerdict,
    ClaimVerdict,
    Interval,
    cell_verdict,
    claim_verdict,
    combine,
    holds,
    interval,
    paired,
    probability_of_improvement,
)

few = st.lists(st.floats(-100, 100).map(lambda v: round(v, 6)), min_size=2, max_size=9)
many = st.lists(st.floats(-100, 100).map(lambda v: round(v, 6)), min_size=10, max_size=14)
pairs = st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=6)
OPPOSITE = {">": "<", "<": ">", ">=": "<=", "<=": ">=", "within": "within"}


def test_student_interval_of_three_values_by_hand():
    # mean 2, standard deviation 1, t(0.975, 2 degrees of freedom) = 4.302653
    found = interval([1.0, 2.0, 3.0])
    assert (found.mean, found.n, found.method) == (2.0, 3, "t")
    assert found.half_width == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)
    assert (found.low, found.high) == pytest.approx((-0.484138, 4.484138), abs=1e-6)


def test_one_value_has_no_interval_and_equal_values_a_degenerate_one():
    assert interval([0.5]) == Interval(0.5, None, None, 1, "none")
    assert interval([0.5]).half_width is None
    for n in (2, 12):  # the bootstrap of equal values alone would give nan
        assert interval([0.1] * n) == Interval(0.1, 0.1, 0.1, n, "degenerate")


def test_bootstrap_from_ten_values_is_narrower_than_student_and_repeatable():
    numbers = [0.91, 0.93, 0.95, 0.92, 0.94, 0.96, 0.90, 0.93, 0.95, 0.94]
    found = interval(numbers)
    assert found.method == "bca"
    assert found.low < found.mean < found.high
    assert found == interval(list(reversed(numbers)))
    assert interval(numbers[:9]).method == "t"
    assert found.half_width < interval(numbers[:9]).half_width


def test_skewed_values_still_lie_around_their_mean():
    found = interval([0.0] * 11 + [1.0])
    assert found.low <= found.mean <= found.high


@pytest.mark.parametrize("bad", [[], [math.nan, 1.0], [math.inf, 1.0]])
def test_no_or_infinite_values_are_refused(bad):
    with pytest.raises(ValueError, match="interval needs"):
        interval(bad)


def test_paired_needs_as_many_left_as_right():
    assert paired([2.0, 3.0], [1.0, 1.0]).mean == 1.5
    with pytest.raises(ValueError, match="differ in number"):
        paired([1.0], [1.0, 2.0])


@given(st.one_of(few, many))
@settings(max_examples=40, deadline=None)
def test_interval_contains_the_mean_and_mirrors(numbers):
    found, mirrored = interval(numbers), interval([-v for v in numbers])
    assert found.low <= found.mean <= found.high
    assert (mirrored.mean, mirrored.low, mirrored.high) == (-found.mean, -found.high, -found.low)


@given(few, st.floats(-50, 50))
@settings(deadline=None)
def test_shifting_the_values_shifts_the_interval(numbers, by):
    found, moved = interval(numbers), interval([v + by for v in numbers])
    for name in ("mean", "low", "high"):
        assert getattr(moved, name) == pytest.approx(getattr(found, name) + by, abs=1e-6)


def test_scaling_keeps_everything_but_the_unit():
    found = interval([0.1, 0.2, 0.4])
    assert found.scaled(100.0).half_width == pytest.approx(100 * found.half_width)
    assert interval([0.5]).scaled(100.0).low is None


def ours(mean: float, half: float, n: int = 5) -> Interval:
    return Interval(mean, mean - half, mean + half, n, "t")


@pytest.mark.parametrize(
    ("found", "higher", "expected"),
    [
        (ours(0.905, 0.005), True, "REPRODUCED"),
        (ours(0.891, 0.005), True, "REPRODUCED"),
        (ours(0.905, 0.030), True, "CLOSE"),  # the mean agrees, the interval is too wide to tell
        (ours(0.930, 0.005), True, "BETTER"),
        (ours(0.870, 0.005), False, "BETTER"),
        (ours(0.930, 0.005), False, "NOT REPRODUCED"),
        (ours(0.870, 0.005), True, "NOT REPRODUCED"),
        (ours(0.930, 0.005), None, "NOT REPRODUCED"),  # no good direction, so nothing is better
        (ours(0.930, 0.040), True, "CLOSE"),  # beyond, but the interval reaches down to the paper
        (ours(0.885, 0.001), True, "CLOSE"),  # within twice the tolerance
        (ours(0.870, 0.025), True, "CLOSE"),  # the interval overlaps the band
        (ours(0.870, 0.015), True, "NOT REPRODUCED"),
        (ours(0.900, 0.001, n=2), True, "PARTIAL"),
        (interval([0.9]), True, "PARTIAL"),
        (None, True, "NOT RUN"),
    ],
)
def test_cell_verdicts(found, higher, expected):
    assert cell_verdict(found, 0.9, 0.01, higher, at_paper_scale=True).verdict == expected


def test_cell_verdict_off_scale_or_without_a_number():
    judged = cell_verdict(ours(0.5, 0.01), 0.9, 0.01, True, at_paper_scale=False)
    assert judged.verdict is CellVerdict.PARTIAL
    assert "not the paper's scale" in judged.reason
    assert "-0.4" in judged.reason
    assert cell_verdict(ours(0.9, 0.1), None, 0.01, True, True).verdict is CellVerdict.NOT_APPLICABLE
    assert cell_verdict(ours(0.9, 0.1), 0.9, None, True, True).verdict is CellVerdict.NOT_APPLICABLE


@given(st.floats(0.5, 1), st.floats(0, 0.2), st.floats(0.5, 1))
def test_cell_verdict_does_not_care_which_direction_is_called_good(mean, half, paper):
    """Mirroring all numbers and the good direction gives the same verdict."""
    found = ours(mean, half)
    mirrored = Interval(-found.mean, -found.high, -found.low, found.n, "t")
    left = cell_verdict(found, paper, 0.02, True, True).verdict
    assert left is cell_verdict(mirrored, -paper, 0.02, False, True).verdict


@pytest.mark.parametrize(
    ("gaps", "relation", "tolerance", "expected"),
    [
        ([0.1, 0.1, 0.12], ">", 0, "SUPPORTED"),
        ([-0.1, -0.1, -0.12], ">", 0, "REFUTED"),
        ([0.1, -0.1, 0.12], ">", 0, "INCONCLUSIVE"),
        ([0.0, 0.0, 0.0], ">", 0, "REFUTED"),
        ([0.0, 0.0, 0.0], ">=", 0, "SUPPORTED"),
        ([0.0, 0.0, 0.0], "<", 0, "REFUTED"),
        ([0.0, 0.0, 0.0], "<=", 0, "SUPPORTED"),
        ([-0.01, -0.011, -0.01], ">=", 0.02, "SUPPORTED"),
        ([-0.03, -0.031, -0.03], ">=", 0.02, "REFUTED"),
        ([-0.02, -0.01, -0.03], ">=", 0.02, "INCONCLUSIVE"),
        ([0.01, 0.011, 0.01], "<=", 0.02, "SUPPORTED"),
        ([0.03, 0.031, 0.03], "<=", 0.02, "REFUTED"),
        ([0.01, -0.001, 0.001], "within", 0.1, "SUPPORTED"),
        ([0.3, 0.31, 0.3], "within", 0.1, "REFUTED"),
        ([-0.3, -0.31, -0.3], "within", 0.1, "REFUTED"),
        ([0.1, 0.11, 0.08], "within", 0.1, "INCONCLUSIVE"),
        ([0.5, 0.5], ">", 0, "INCONCLUSIVE"),
        ([0.5], ">", 0, "INCONCLUSIVE"),
        ([], ">", 0, "NOT RUN"),
    ],
)
def test_claim_verdicts(gaps, relation, tolerance, expected):
    judged = claim_verdict(gaps, [0.0] * len(gaps), relation, tolerance)
    assert judged.verdict == expected
    assert judged.n == len(gaps)


def test_probability_of_improvement_by_hand():
    assert probability_of_improvement([1, 2, 3], [0, 2], ">") == pytest.approx((1 + 1.5 + 2) / 6)
    assert probability_of_improvement([1, 2, 3], [0, 2], "<=") == pytest.approx(1 - 4.5 / 6)
    assert probability_of_improvement([1.0], [2.0], "within") is None
    assert probability_of_improvement([], [2.0], ">") is None


@given(st.lists(st.integers(0, 9), min_size=1, max_size=8), st.lists(st.integers(0, 9), min_size=1, max_size=8))
def test_probability_of_improvement_is_the_mann_whitney_statistic_over_the_pairs(left, right):
    expected = mannwhitneyu(left, right).statistic / (len(left) * len(right))
    found = probability_of_improvement(left, right, ">")
    assert found == pytest.approx(expected)
    assert probability_of_improvement(right, left, ">") == pytest.approx(1 - found)


def test_claim_verdict_says_how_many_seeds_it_has_and_where_it_held():
    assert claim_verdict([1.0], [0.0], ">").reason == f"1 of {MIN_SEEDS} seeds; held on 1 of 1 seeds"
    assert "held on 2 of 3 seeds" in claim_verdict([1.0, 1.0, -1.0], [0.0] * 3, ">").reason


@given(pairs, st.sampled_from(sorted(OPPOSITE)))
@settings(deadline=None)
def test_claim_verdict_survives_exchanging_the_sides(both, relation):
    left, right = zip(*both, strict=True)
    tolerance = {">": 0.0, "<": 0.0}.get(relation, 0.1)
    forward = claim_verdict(left, right, relation, tolerance)
    assert forward.verdict is claim_verdict(right, left, OPPOSITE[relation], tolerance).verdict


@given(pairs)
@settings(deadline=None)
def test_a_claim_is_supported_exactly_when_its_negation_is_refuted(both):
    left, right = zip(*both, strict=True)
    turned = {ClaimVerdict.SUPPORTED: ClaimVerdict.REFUTED, ClaimVerdict.REFUTED: ClaimVerdict.SUPPORTED}
    for relation, negation in ((">", "<="), ("<", ">=")):
        verdict = claim_verdict(left, right, relation).verdict
        assert claim_verdict(left, right, negation).verdict is turned.get(verdict, verdict)


@pytest.mark.parametrize(
    ("relation", "tolerance", "message"),
    [
        ("~", 0, "unknown relation"),
        (">", 0.1, "takes no tolerance"),
        ("within", 0, "needs a tolerance"),
        (">=", -1, "not below"),
    ],
)
def test_relations_that_make_no_sense_are_refused(relation, tolerance, message):
    with pytest.raises(ValueError, match=message):
        holds(1.0, 0.0, relation, tolerance)


def test_holds_on_single_numbers():
    assert holds(1.0, 0.5, ">")
    assert not holds(0.5, 0.5, ">")
    assert holds(0.5, 0.5, ">=")
    assert holds(0.96, 0.97, ">=", 0.02)
    assert not holds(0.9, 0.97, "within", 0.02)


S, R, IN, NO = ClaimVerdict.SUPPORTED, ClaimVerdict.REFUTED, ClaimVerdict.INCONCLUSIVE, ClaimVerdict.NOT_RUN


@pytest.mark.parametrize(
    ("verdicts", "whole"),
    [([], NO), ([NO, NO], NO), ([S, S], S), ([S, R], R), ([R, NO], R), ([S, IN], IN), ([S, NO], IN), ([IN, NO], IN)],
)
def test_combining_verdicts(verdicts, whole):
    assert combine(verdicts) is whole
