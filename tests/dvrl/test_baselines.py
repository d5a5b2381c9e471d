"""The methods DVRL is compared with, against their definitions."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from dvrl_tasks import fit, generator, small_data, source_of, table
from torch.nn import functional as F

from reprise.data.base import Split
from reprise.errors import UserError
from reprise.papers.dvrl.baselines import KNNShapley, LeaveOneOut, RandomValues, ValidationModel, knn_shapley
from reprise.papers.dvrl.datamodule import ValuationData
from reprise.papers.dvrl.predictors import MLP, Linear, one_hot
from reprise.papers.dvrl.scores import REWARDS


def predictor(**changes):
    return Linear(**({"steps": 3, "final_steps": 12, "learning_rate": 1.0, "l2": 1e-3} | changes))


def level_data(classes=2, train=10, noise=0.2):
    """Rows that all have the same absolute sum: Linear's step size is then the same without any of them."""
    drawn = table(60, classes, 3)
    source = source_of(Split(F.normalize(drawn.x, p=1, dim=1), drawn.y), classes)
    return ValuationData(source, seed=0, train_size=train, validation_size=20, noise_rate=noise, scaling="none")


def utility(subset, x, y, x_valid, y_valid, neighbours):
    """Mean over validation points of the share of right votes among the K nearest of the subset."""
    if not subset:
        return 0.0
    total = 0.0
    for point, label in zip(x_valid, y_valid, strict=True):
        nearest = sorted(subset, key=lambda i: (math.dist(x[i], point), i))[:neighbours]
        total += sum(y[i] == label for i in nearest) / neighbours
    return total / len(y_valid)


def brute_force_shapley(x, y, x_valid, y_valid, neighbours):
    n, arguments = len(y), (x.tolist(), y.tolist(), x_valid.tolist(), y_valid.tolist(), neighbours)
    worth = {
        frozenset(s): utility(list(s), *arguments)
        for size in range(n + 1)
        for s in itertools.combinations(range(n), size)
    }
    values = []
    for i in range(n):
        others = [s for s in worth if i not in s]
        share = {s: math.factorial(len(s)) * math.factorial(n - len(s) - 1) / math.factorial(n) for s in others}
        values.append(sum(share[s] * (worth[s | {i}] - worth[s]) for s in others))
    return values, worth[frozenset(range(n))]


@pytest.mark.parametrize("neighbours", [1, 2, 3, 9])
@pytest.mark.parametrize(("rows", "classes"), [(1, 2), (2, 2), (5, 2), (6, 3)])
def test_knn_shapley_is_the_brute_force_shapley_value(rows, classes, neighbours):
    rng = generator(rows)
    x, x_valid = torch.randn(rows, 2, generator=rng), torch.randn(4, 2, generator=rng)
    y = torch.randint(classes, (rows,), generator=rng)
    y_valid = torch.arange(4) % classes
    expected, whole = brute_force_shapley(x, y, x_valid, y_valid, neighbours)
    found = knn_shapley(x, y, x_valid, y_valid, neighbours)
    assert found.tolist() == pytest.approx(expected, abs=1e-12)
    assert found.sum().item() == pytest.approx(whole)


def test_knn_shapley_breaks_distance_ties_by_row():
    x, y = torch.zeros(4, 1), torch.tensor([1, 0, 1, 1])
    valid = torch.zeros(1, 1), torch.tensor([1])
    expected, _ = brute_force_shapley(x, y, *valid, 2)
    assert knn_shapley(x, y, *valid, 2).tolist() == pytest.approx(expected)


def test_knn_shapley_module_uses_the_given_labels_and_the_validation_rows():
    data = small_data(noise=0.3)
    module = KNNShapley(spec=data.spec, seed=0, predictor=predictor(), neighbours=3)
    module.prepare(data.task)
    task = data.task
    expected = knn_shapley(task.x_train, task.y_train, task.x_valid, task.y_valid, 3)
    assert torch.equal(module.ranking(), expected)
    assert not torch.equal(expected, knn_shapley(task.x_train, task.y_true, task.x_valid, task.y_valid, 3))
    assert KNNShapley.tasks == ("classification",)


@pytest.mark.parametrize("reward", ["neg_log_loss", "accuracy", "auc"])
def test_leave_one_out_values_are_those_of_explicit_refits(reward):
    data = level_data()
    f = predictor()
    module = fit(LeaveOneOut(spec=data.spec, seed=0, predictor=f, reward=reward, together=4), data)
    task = data.task

    def score(rows):
        x, target = task.x_train[rows], one_hot(task.y_train[rows], 2)
        begin = f.initial(3, 2, 1, generator())
        theta = f.fit(x, target, torch.ones(1, len(rows)), begin, f.final_steps, generator())
        return REWARDS[reward](f.outputs(theta, task.x_valid), task.y_valid).item()

    everything = list(range(10))
    explicit = [score(everything) - score([j for j in everything if j != i]) for i in everything]
    assert module.ranking().tolist() == pytest.approx(explicit, abs=1e-6)
    assert len(set(explicit)) > 1
    assert (module.epochs, int(module.fits), int(module.updates)) == (3, 11, 11 * 12)


def test_leave_one_out_does_not_depend_on_how_many_refits_run_together():
    data = small_data()
    f = MLP(steps=2, final_steps=6, learning_rate=0.05, l2=1e-3, hidden=[5], batch_size=7)
    values = [
        fit(LeaveOneOut(spec=data.spec, seed=1, predictor=f, reward="neg_log_loss", together=t), data).ranking()
        for t in (1, 8, 100)
    ]
    torch.testing.assert_close(values[0], values[1], rtol=0, atol=1e-5)
    torch.testing.assert_close(values[0], values[2], rtol=0, atol=1e-5)
    assert values[0].std() > 1e-4


def test_leave_one_out_of_numbers_uses_the_root_mean_squared_error():
    data = small_data(classes=0)
    module = LeaveOneOut(spec=data.spec, seed=0, predictor=predictor(), reward="accuracy", together=50)
    assert module.utility.reward is REWARDS["neg_rmse"]
    assert fit(module, data).ranking().isfinite().all()


def test_leave_one_out_refuses_a_reward_that_does_not_suit():
    with pytest.raises(UserError, match="auc needs two classes"):
        LeaveOneOut(spec=small_data().spec, seed=0, predictor=predictor(), reward="auc", together=5)


def test_random_values_depend_on_the_seed_only():
    def values(seed, data):
        module = RandomValues(spec=data.spec, seed=seed, predictor=predictor())
        module.prepare(data.task)
        torch.rand(17)  # what was drawn elsewhere does not matter
        return module.ranking()

    data, other_data = small_data(), small_data(seed=5, noise=0.4)
    assert torch.equal(values(1, data), values(1, other_data))
    assert not torch.equal(values(1, data), values(2, data))
    assert ((values(1, data) >= 0) & (values(1, data) < 1)).all()


def test_validation_model_is_a_fit_on_the_validation_rows_alone():
    data = small_data()
    f, task = predictor(), data.task
    module = fit(ValidationModel(spec=data.spec, seed=0, predictor=f), data)
    begin = f.initial(4, 3, 1, generator())
    theta = f.fit(task.x_valid, one_hot(task.y_valid, 3), torch.ones(1, 20), begin, 12, generator())
    p = f.outputs(theta, task.x_train)[:, 0].softmax(-1)
    expected = p[torch.arange(30), task.y_train]
    torch.testing.assert_close(module.ranking(), expected)
    torch.testing.assert_close(module.weights(), expected)
    assert (int(module.fits), int(module.updates)) == (1, 12)


def test_validation_model_of_numbers_ranks_by_the_residual():
    data = small_data(classes=0)
    module = fit(ValidationModel(spec=data.spec, seed=0, predictor=predictor(final_steps=300)), data)
    predicted = module.validation_predictions[:, 0]
    torch.testing.assert_close(module.ranking(), -(predicted - data.task.y_train).abs())
    residual = (predicted - data.task.y_true).abs()
    assert residual.mean() < 0.3
    np.testing.assert_array_equal(module.weights().argsort(), module.ranking().argsort())
    assert sorted((module.weights() * 30).round().tolist()) == list(range(1, 31))
