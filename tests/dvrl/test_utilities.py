"""U(S): against fits on the rows of S alone, and by hand for no rows."""

from __future__ import annotations

import math

import pytest
import torch
from dvrl_tasks import generator, small_data
from sklearn.tree import DecisionTreeClassifier

from reprise.errors import UserError
from reprise.papers.dvrl.baselines import RandomValues
from reprise.papers.dvrl.estimators import Estimator
from reprise.papers.dvrl.predictors import MLP, Linear, one_hot, row_size
from reprise.papers.dvrl.scores import REWARDS
from reprise.papers.dvrl.utilities import Utility, for_some_rows


def linear(**changes):
    return Linear(**({"steps": 7, "final_steps": 12, "learning_rate": 1.0, "l2": 1e-3} | changes))


def mlp(**changes):
    return MLP(**({"steps": 7, "final_steps": 12, "learning_rate": 0.05, "l2": 1e-3, "hidden": [5]} | changes))


def utility_on(data, predictor, reward="neg_log_loss", together=4):
    owner = RandomValues(spec=data.spec, seed=3, predictor=predictor)
    owner.prepare(data.task)
    return Utility(owner, reward, predictor.steps, together)


def some_sets(rows, count=9, share=0.5):
    return (torch.rand(count, rows, generator=generator(5)) < share).float()


@pytest.mark.parametrize("classes", [3, 0])
@pytest.mark.parametrize("share", [0.1, 0.9])  # with and without rows left out of the fit
@pytest.mark.parametrize("predictor", [linear(), mlp(), linear(batch_size=6)])
def test_scores_are_those_of_fits_one_by_one(predictor, share, classes):
    data = small_data(classes)
    task, reward = data.task, "neg_log_loss" if classes else "neg_rmse"
    utility, sets = utility_on(data, predictor), some_sets(30, share=share)
    sets[:, 0] = 1
    expected = []
    for row in sets:
        begin = predictor.initial(4, max(classes, 1), 1, generator(3))
        target = one_hot(task.y_train, classes)
        theta = predictor.fit(task.x_train, target, row.unsqueeze(0), begin, 7, generator(3))
        expected.append(REWARDS[reward](predictor.outputs(theta, task.x_valid), task.y_valid).item())
    found = utility(sets)
    assert found.dtype == torch.float64
    assert found.tolist() == pytest.approx(expected, abs=1e-4)
    assert len(set(expected)) > 2
    assert (int(utility.owner.fits), int(utility.owner.updates)) == (9, 9 * 7)


@pytest.mark.parametrize("together", [1, 5, 50])
def test_scores_do_not_depend_on_how_many_fits_run_together(together):
    data, sets = small_data(), some_sets(30, share=0.2)
    expected = utility_on(data, linear(), together=4)(sets)
    torch.testing.assert_close(utility_on(data, linear(), together=together)(sets), expected, rtol=0, atol=1e-5)


def test_the_linear_predictor_takes_the_steps_it_would_take_on_all_rows():
    x, used = torch.tensor([[1.0, -3.0], [0.0, 9.0], [2.0, 2.0]]), torch.tensor([True, False, True])
    narrow = for_some_rows(linear(learning_rate=0.5), x, used)
    assert narrow.learning_rate / row_size(x[used]) == pytest.approx(0.5 / row_size(x))
    assert for_some_rows(mlp(), x, used).learning_rate == 0.05


@pytest.mark.parametrize("predictor", [linear(batch_size=2), mlp(batch_size=2), Estimator(DecisionTreeClassifier())])
def test_other_predictors_see_all_rows(predictor):
    assert for_some_rows(predictor, torch.ones(3, 2), torch.tensor([True, False, False])) is None


@pytest.mark.parametrize("reward", ["accuracy", "neg_log_loss", "auc"])
def test_no_rows_are_worth_the_best_constant_guess(reward):
    data = small_data(2)
    shares = [(data.task.y_valid == c).double().mean().item() for c in (0, 1)]
    expected = {"accuracy": max(shares), "neg_log_loss": sum(p * math.log(p) for p in shares), "auc": 0.5}
    utility = utility_on(data, linear(), reward)
    assert utility.empty().item() == pytest.approx(expected[reward], abs=1e-6)
    sets = torch.zeros(3, 30)
    sets[1, 4] = 1
    found = utility(sets)
    assert found[0] == found[2] == utility.empty()
    assert found[1] == utility(sets[1:2])[0]
    assert int(utility.owner.fits) == 2  # nothing is fitted on no rows


def test_no_rows_are_worth_minus_the_spread_of_numbers():
    data = small_data(0)
    expected = -data.task.y_valid.std(correction=0).item()
    assert utility_on(data, linear(), "accuracy").empty().item() == pytest.approx(expected, abs=1e-6)


def test_a_class_that_the_validation_rows_lack_leaves_the_guess_finite():
    data = small_data(3)
    utility = utility_on(data, linear())
    utility.owner.task.y_valid.clamp_(max=1)
    assert math.isfinite(utility.empty().item())


def test_the_whole_is_the_set_of_all_rows():
    utility = utility_on(small_data(), linear())
    assert utility.whole() == utility(torch.ones(1, 30))[0]


def test_a_reward_that_does_not_suit_is_refused():
    with pytest.raises(UserError, match="auc needs two classes"):
        utility_on(small_data(3), linear(), "auc")
