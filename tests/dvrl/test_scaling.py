"""Scaling: by hand, and against scikit-learn's transformers bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
from dvrl_tasks import quick
from hypothesis import given
from hypothesis import strategies as st
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from reprise.papers.dvrl.scaling import Scaler

HOLE = np.nan
SCALINGS = ("standard", "minmax", "minmax_all", "none")


def scaled(parts, scaling):
    """By scikit-learn, all parts at once."""
    if any(np.isnan(part).any() for part in parts):
        holes = np.isnan(np.concatenate(parts)).any(axis=0)
        imputer = SimpleImputer(strategy="median", keep_empty_features=True).fit(parts[0])
        parts = [np.hstack([imputer.transform(part), np.isnan(part)[:, holes]]) for part in parts]
    if scaling != "none":
        scaler = StandardScaler() if scaling == "standard" else MinMaxScaler(clip=True)
        scaler.fit(np.concatenate(parts) if scaling == "minmax_all" else parts[0])
        parts = [scaler.transform(part) for part in parts]
    if scaling == "minmax":
        mean = parts[0].mean(axis=0)
        parts = [part - mean for part in parts]
    return [part.astype(np.float32) for part in parts]


@quick
@given(
    seed=st.integers(0, 10_000),
    scaling=st.sampled_from(SCALINGS),
    dtype=st.sampled_from([np.float32, np.float64]),
    features=st.integers(1, 6),
    rows=st.tuples(*[st.integers(2, 40)] * 3),
    holes=st.sampled_from([0.0, 0.2]),
    spoilt=st.sampled_from(["no", "empty", "constant"]),
)
def test_the_same_bits_as_scikit_learn(seed, scaling, dtype, features, rows, holes, spoilt):
    rng = np.random.default_rng(seed)
    size = 10 ** rng.uniform(-3, 4, features)
    parts = [(rng.normal(size=(n, features)) * size + 100 * rng.normal(size=features)).astype(dtype) for n in rows]
    for part in parts:
        part[rng.random(part.shape) < holes] = HOLE
    if spoilt != "no":
        parts[0][:, 0] = HOLE if spoilt == "empty" else 3
    scaler = Scaler.fit(parts, scaling)
    for part, expected in zip(parts, scaled(parts, scaling), strict=True):
        found = scaler.transform(part)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, expected)


def test_missing_cells_get_the_training_median_and_an_indicator():
    train = np.array([[1.0, 5.0, 1.0], [HOLE, 6.0, 2.0], [3.0, 7.0, 3.0], [20.0, 8.0, 4.0]])
    valid = np.array([[HOLE, 1.0, HOLE]])
    test = np.array([[900.0, 2.0, 5.0]])
    scaler = Scaler.fit([train, valid, test], "none")
    found = [scaler.transform(part) for part in (train, valid, test)]
    np.testing.assert_array_equal(found[0][:, :3], [[1, 5, 1], [3, 6, 2], [3, 7, 3], [20, 8, 4]])
    np.testing.assert_array_equal(found[0][:, 3:], [[0, 0], [1, 0], [0, 0], [0, 0]])
    np.testing.assert_array_equal(found[1], [[3, 1, 2.5, 1, 1]])
    np.testing.assert_array_equal(found[2], [[900, 2, 5, 0, 0]])
    assert scaler.columns == 3


def test_later_holes_in_other_columns_are_filled_without_an_indicator():
    scaler = Scaler.fit([np.array([[1.0, HOLE], [2.0, 4.0], [9.0, 4.0]])], "none")
    np.testing.assert_array_equal(scaler.transform(np.array([[HOLE, HOLE]])), [[2, 4, 1]])
    whole = Scaler.fit([np.array([[1.0], [2.0], [9.0]])], "none")
    np.testing.assert_array_equal(whole.transform(np.array([[HOLE], [5.0]])), [[2], [5]])


def test_minmax_by_hand():
    scaler = Scaler.fit([np.array([[10.0], [20.0], [30.0], [20.0]])], "minmax")
    np.testing.assert_allclose(
        scaler.transform(np.array([[10.0], [15.0], [30.0], [99.0], [-99.0]]))[:, 0], [-0.5, -0.25, 0.5, 0.5, -0.5]
    )


@pytest.mark.parametrize("scaling", SCALINGS)
def test_no_rows_stay_no_rows(scaling):
    scaler = Scaler.fit([np.array([[1.0, HOLE], [2.0, 4.0]])], scaling)
    assert scaler.transform(np.empty((0, 2))).shape == (0, 3)


@pytest.mark.parametrize("scaling", SCALINGS)
def test_the_state_is_arrays_and_gives_the_scaler_back(scaling):
    rng = np.random.default_rng(0)
    train = rng.normal(size=(20, 3)).astype(np.float32)
    train[3, 1] = HOLE
    scaler = Scaler.fit([train], scaling)
    assert all(isinstance(array, np.ndarray) for array in scaler.state().values())
    twin = Scaler.from_state({name: array.copy() for name, array in scaler.state().items()})
    later = rng.normal(size=(9, 3)).astype(np.float32)
    np.testing.assert_array_equal(twin.transform(later), scaler.transform(later))
