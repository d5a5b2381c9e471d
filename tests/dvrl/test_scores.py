"""Scores of many predictors at once, against scikit-learn one at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from dvrl_tasks import quick
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, log_loss, roc_auc_score, root_mean_squared_error

from reprise.data.base import DataSpec
from reprise.errors import UserError
from reprise.papers.dvrl import scores


def spec(classes, task="classification"):
    return DataSpec(name="toy", task=task, kind="table", shape=(2,), classes=tuple("abcdef"[:classes]))


def drawn(classes, seed=0):
    rng = torch.Generator().manual_seed(seed)
    outputs = torch.randn(40, 3, classes, generator=rng, dtype=torch.float64) * 3
    return outputs, torch.arange(40) % classes


@pytest.mark.parametrize("classes", [2, 5])
def test_neg_log_loss(classes):
    outputs, y = drawn(classes)
    expected = [-log_loss(y, outputs[:, g].softmax(-1).numpy(), labels=range(classes)) for g in range(3)]
    assert scores.neg_log_loss(outputs, y).tolist() == pytest.approx(expected)
    assert len(set(expected)) == 3


@pytest.mark.parametrize("classes", [2, 5])
def test_accuracy(classes):
    outputs, y = drawn(classes)
    expected = [accuracy_score(y, outputs[:, g].argmax(-1)) for g in range(3)]
    assert scores.accuracy(outputs, y).tolist() == pytest.approx(expected)


def test_log_loss_of_a_certain_mistake_is_large_but_finite():
    outputs = torch.tensor([[[200.0, 0.0]], [[0.0, 200.0]]])
    assert scores.neg_log_loss(outputs, torch.tensor([1, 1])).tolist() == pytest.approx([-100])


@quick
@given(st.lists(st.tuples(st.integers(-2, 2), st.integers(-2, 2)), min_size=2, max_size=20))
def test_auc_counts_ties_half(margins):
    y = np.arange(len(margins)) % 2
    outputs = torch.zeros(len(margins), 2, 2)
    outputs[..., 1] = torch.tensor(margins, dtype=torch.float32)
    outputs += 0.5  # only the difference of the two classes counts
    expected = [roc_auc_score(y, np.array(margins)[:, g]) for g in range(2)]
    assert scores.auc(outputs, torch.tensor(y)).tolist() == pytest.approx(expected, abs=1e-6)


def test_rmse_in_standardised_and_in_own_units():
    outputs = torch.tensor([[[1.0], [0.0]], [[3.0], [1.0]]])
    y = torch.tensor([0.0, 1.0])
    expected = [root_mean_squared_error(y, outputs[:, g, 0]) for g in range(2)]
    assert scores.neg_rmse(outputs, y).tolist() == pytest.approx([-e for e in expected])
    assert expected[0] == pytest.approx(2.5**0.5)
    assert scores.test_score(outputs, y, y_scale=10.0).tolist() == pytest.approx([10 * e for e in expected])


def test_test_score_of_classes_is_the_accuracy_whatever_the_scale():
    outputs, y = drawn(3)
    assert torch.equal(scores.test_score(outputs, y, y_scale=10.0), scores.accuracy(outputs, y))


def test_rewards_by_name():
    assert scores.reward_function("accuracy", spec(3)) is scores.accuracy
    assert scores.reward_function("auc", spec(2)) is scores.auc
    assert scores.reward_function("accuracy", spec(0, "regression")) is scores.neg_rmse


@pytest.mark.parametrize(
    ("name", "classes", "told"),
    [
        ("auc", 3, "method.module.reward=auc needs two classes"),
        ("log_loss", 2, "method.module.reward=log_loss is not a reward"),
        ("neg_rmse", 2, "method.module.reward=neg_rmse is not a reward"),
    ],
)
def test_unsuitable_rewards_are_refused(name, classes, told):
    with pytest.raises(UserError, match=told):
        scores.reward_function(name, spec(classes))
