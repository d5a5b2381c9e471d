"""Scores of many predictors at once, against scikit-learn one at a time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from dvrl_tasks import quick
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import (
    accuracy_score,
    log_loss,
    mean_absolute_error,
    mean_absolute_percentage_error,
    roc_auc_score,
    root_mean_squared_error,
)

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


@pytest.mark.parametrize("label", [0, 1])
def test_auc_of_one_class_is_a_sentence(label):
    with pytest.raises(UserError, match=r"both classes among the 3 validation rows: raise .*validation_size"):
        scores.auc(torch.zeros(3, 2, 2), torch.full((3,), label))


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


@pytest.mark.parametrize("name", ["neg_log_loss", "accuracy", "auc", "neg_rmse"])
def test_on_numbers_a_reward_for_classes_stands_for_the_default(name):
    assert scores.reward_function(name, spec(0, "regression")) is scores.neg_rmse


def test_rewards_for_numbers_by_name():
    assert scores.reward_function("neg_mae", spec(0, "regression")) is scores.neg_mae
    reward = scores.reward_function("neg_rmspe", replace(spec(0, "regression"), target_mean=6.0, target_scale=2.0))
    # true targets 6 + 2 * [0, 1, -1] = [6, 8, 4], predictions 6 + 2 * [0.5, 1, -2] = [7, 8, 2]
    outputs, y = torch.tensor([[[0.5]], [[1.0]], [[-2.0]]]), torch.tensor([0.0, 1.0, -1.0])
    assert reward(outputs, y).tolist() == pytest.approx([-((((1 / 6) ** 2 + 0.5**2) / 3) ** 0.5)])


def test_an_unknown_reward_for_numbers_is_refused():
    with pytest.raises(UserError, match=r"method\.module\.reward=neg_mse is not a reward for numbers; .* neg_rmspe"):
        scores.reward_function("neg_mse", spec(0, "regression"))


def test_mae():
    outputs, y = torch.randn(20, 3, 1, generator=torch.Generator().manual_seed(0)), torch.linspace(-1, 2, 20)
    expected = [-mean_absolute_error(y, outputs[:, g, 0]) for g in range(3)]
    assert scores.neg_mae(outputs, y).tolist() == pytest.approx(expected)


@quick
@given(st.floats(-50, 50).filter(lambda mean: abs(mean) > 0.1), st.floats(0.1, 20), st.integers(0, 100))
def test_rmspe_is_the_one_of_the_unstandardised_numbers(mean, scale, seed):
    rng = torch.Generator().manual_seed(seed)
    y, outputs = torch.randn(9, generator=rng).double(), torch.randn(9, 2, 1, generator=rng).double()
    true = (mean + scale * y).numpy()
    for g in range(2):
        relative = (mean + scale * outputs[:, g, 0].numpy() - true) / true
        found = scores.neg_rmspe(outputs, y, zero=mean / scale)[g].item()
        assert found == pytest.approx(-np.sqrt(np.mean(relative**2)), rel=1e-6)
    one = scores.neg_rmspe(outputs[:1], y[:1], zero=mean / scale)[0].item()
    own = mean_absolute_percentage_error(true[:1], mean + scale * outputs[:1, 0, 0].numpy())
    assert one == pytest.approx(-own, rel=1e-6)  # of a single row


def test_rows_whose_target_is_zero_have_no_relative_error():
    mean, scale = 123.4, 7.7
    true = torch.tensor([0.0, 100.0, 0.0, 200.0])
    y = (true - mean) / scale
    outputs = ((torch.tensor([[9.0, -9.0], [110.0, 100.0], [3.0, 4.0], [200.0, 260.0]]) - mean) / scale).unsqueeze(-1)
    found = scores.neg_rmspe(outputs, y, zero=mean / scale).tolist()
    assert found == pytest.approx([-(((0.1**2) / 2) ** 0.5), -(((0.3**2) / 2) ** 0.5)], rel=1e-4)
    with pytest.raises(UserError, match="needs targets other than 0"):
        scores.neg_rmspe(outputs[:1], y[:1], zero=mean / scale)


@pytest.mark.parametrize(
    ("name", "classes", "told"),
    [
        ("auc", 3, "method.module.reward=auc needs two classes"),
        ("log_loss", 2, "method.module.reward=log_loss is not a reward"),
        ("neg_rmse", 2, "method.module.reward=neg_rmse is not a reward"),
        ("neg_rmspe", 2, "method.module.reward=neg_rmspe is not a reward for classes"),
    ],
)
def test_unsuitable_rewards_are_refused(name, classes, told):
    with pytest.raises(UserError, match=told):
        scores.reward_function(name, spec(classes))
