"""Label noise: the paper's protocol, row for row."""

from __future__ import annotations

import math
from typing import get_args

import numpy as np
import pytest
from dvrl_tasks import quick
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from reprise.errors import UserError
from reprise.papers.dvrl.noise import KINDS, SUITABLE, Kind, corrupt, corrupt_inputs, kind_for

FOR_LABELS = sorted(set(KINDS) & set(SUITABLE["classification"]))

cases = {
    "rows": st.integers(1, 60),
    "rate": st.floats(0, 0.99),
    "classes": st.integers(2, 7),
    "seed": st.integers(0, 1000),
}


def labels(rows, classes, seed):
    return np.random.default_rng(seed).integers(0, classes, rows)


def rng(seed=0):
    return np.random.default_rng(seed)


@quick
@given(**cases)
def test_flip_other_changes_exactly_the_floor_of_the_rate(rows, rate, classes, seed):
    y = labels(rows, classes, seed)
    given_labels, mask = corrupt(y, rate, "flip_other", classes, rng(seed))
    assert mask.sum() == math.floor(rate * rows)
    assert np.array_equal(mask, given_labels != y)
    assert set(given_labels) <= set(range(classes))


@quick
@given(kind=st.sampled_from(FOR_LABELS), **cases)
def test_every_kind_leaves_its_input_alone_and_tells_what_is_wrong(kind, rows, rate, classes, seed):
    y = labels(rows, classes, seed)
    before = y.copy()
    y.flags.writeable = False
    given_labels, mask = corrupt(y, rate, kind, classes, rng(seed))
    assert np.array_equal(y, before)
    assert not np.shares_memory(given_labels, y)
    assert given_labels.dtype == y.dtype
    assert np.array_equal(mask, given_labels != y)
    assert mask.sum() <= math.floor(rate * rows)


@pytest.mark.parametrize("kind", FOR_LABELS)
def test_the_seed_decides_the_damage(kind):
    y = labels(200, 5, 0)
    first, again, other = (corrupt(y, 0.4, kind, 5, rng(seed))[0] for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_every_kind_has_a_name_and_a_use():
    assert set(get_args(Kind)) == {*KINDS, "feature_gauss"} == {name for names in SUITABLE.values() for name in names}


@pytest.mark.parametrize(("task", "default"), [("classification", "flip_other"), ("regression", "shuffle")])
def test_the_kind_suits_the_task(task, default):
    assert kind_for(None, task, "toy") == default
    for kind in get_args(Kind):
        if kind in SUITABLE[task]:
            assert kind_for(kind, task, "toy") == kind
        else:
            with pytest.raises(UserError, match=f"noise_kind={kind} .* dataset=toy; choose one of {default}"):
                kind_for(kind, task, "toy")


def test_pairflip_goes_to_the_next_class_and_round():
    y = np.array([0, 1, 2, 0, 1, 2])
    given_labels, mask = corrupt(y, 0.99, "pairflip", 3, rng())
    assert mask.sum() == 5
    assert np.array_equal(given_labels[mask], np.array([1, 2, 0, 1, 2, 0])[mask])


def test_gauss_adds_noise_as_wide_as_the_target():
    y = rng(1).normal(500, 30, 40_000).astype(np.float32)
    given_targets, mask = corrupt(y, 0.5, "gauss", 0, rng())
    added = (given_targets - y)[mask]
    assert mask.sum() == 20_000
    assert given_targets.dtype == np.float32
    assert added.std() == pytest.approx(30, rel=0.03)
    assert added.mean() == pytest.approx(0, abs=1)
    assert abs(np.corrcoef(added, y[mask])[0, 1]) < 0.03


def test_noise_on_inputs_is_as_wide_as_each_feature_and_keeps_holes():
    x = (rng(1).normal(size=(20_000, 3)) * [1, 50, 0] + [0, 10, 4]).astype(np.float32)
    x[::7, 1] = np.nan
    before = x.copy()
    given_inputs, mask = corrupt_inputs(x, 0.5, rng())
    np.testing.assert_array_equal(x, before)
    assert mask.sum() == 10_000
    np.testing.assert_array_equal(given_inputs[~mask], x[~mask])
    np.testing.assert_array_equal(np.isnan(given_inputs), np.isnan(x))
    np.testing.assert_allclose(np.nanstd(given_inputs - x, axis=0), np.sqrt([0.5, 0.5 * 50**2, 0]), rtol=0.04)
    assert given_inputs.dtype == np.float32


def test_flip_other_is_uniform_over_the_other_labels():
    y = np.full(9_000, 2)
    given_labels, mask = corrupt(y, 0.9, "flip_other", 4, rng())
    counts = np.bincount(given_labels[mask], minlength=4)
    assert counts[2] == 0
    assert counts.sum() == 8_100
    assert chisquare(counts[[0, 1, 3]]).pvalue > 0.01


def test_two_classes_are_plainly_flipped():
    y = np.array([0, 1, 1, 0, 1, 0, 0, 1, 1, 1])
    given_labels, mask = corrupt(y, 0.5, "flip_other", 2, rng())
    assert np.array_equal(given_labels[mask], 1 - y[mask])
    assert mask.sum() == 5


def test_damaged_rows_are_drawn_uniformly():
    hits = sum(corrupt(np.zeros(10, dtype=int), 0.3, "flip_other", 2, rng(seed))[1] for seed in range(1_000))
    assert hits.sum() == 3_000
    assert chisquare(hits).pvalue > 0.01


def test_uniform_all_is_uniform_over_all_labels_so_that_some_stay_right():
    y = np.full(10_000, 3)
    given_labels, mask = corrupt(y, 0.4, "uniform_all", 10, rng())
    others = np.bincount(given_labels[mask], minlength=10)[[0, 1, 2, 4, 5, 6, 7, 8, 9]]
    assert chisquare(others).pvalue > 0.01
    assert np.array_equal(mask, given_labels != y)
    assert mask.mean() == pytest.approx(0.36, abs=0.01)


def test_background_gives_the_first_class_and_marks_only_the_wrong():
    y = np.arange(100) % 4
    given_labels, mask = corrupt(y, 0.4, "background", 4, rng())
    assert (given_labels[mask] == 0).all()
    assert not mask[y == 0].any()
    assert 20 <= mask.sum() < 40


def test_shuffle_exchanges_targets():
    y = np.linspace(0, 1, 50)
    given_targets, mask = corrupt(y, 0.4, "shuffle", 0, rng())
    assert np.array_equal(np.sort(given_targets), y)
    assert np.array_equal(np.sort(given_targets[mask]), np.sort(y[mask]))
    assert 10 <= mask.sum() <= 20


def test_rate_zero_damages_nothing():
    y = labels(30, 3, 0)
    given_labels, mask = corrupt(y, 0.0, "flip_other", 3, rng())
    assert np.array_equal(given_labels, y)
    assert not mask.any()
