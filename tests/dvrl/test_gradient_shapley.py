"""G-Shapley: against explicit descent, one copy and one row at a time."""

from __future__ import annotations

import pytest
import torch
from dvrl_tasks import fit, generator, small_data
from sklearn.tree import DecisionTreeClassifier
from torch.nn import functional as F

from reprise.errors import UserError
from reprise.papers.dvrl.estimators import Estimator
from reprise.papers.dvrl.gradient_shapley import RATES, TRIAL, TRIALS, GShapley, descend
from reprise.papers.dvrl.predictors import MLP, Linear, one_hot
from reprise.papers.dvrl.scores import REWARDS


def linear():
    return Linear(steps=3, final_steps=6, learning_rate=1.0, l2=1e-3)


def mlp():
    return MLP(steps=3, final_steps=6, learning_rate=0.1, l2=1e-3, hidden=[5])


def method(data, predictor=None, seed=0, **changes):
    options = {"reward": "neg_log_loss", "together": 4, "permutations": 6, "convergence": None} | changes
    return GShapley(spec=data.spec, seed=seed, predictor=predictor or linear(), **options)


def explicit_step(predictor, theta, x, target, rate):
    """One row, one copy, torch's own SGD."""
    theta = [p.clone().requires_grad_() for p in theta]
    outputs = predictor.outputs(theta, x.unsqueeze(0))[0]
    classify = target.shape[0] > 1
    loss = F.cross_entropy(outputs, target.argmax().unsqueeze(0)) if classify else F.mse_loss(outputs[0], target) / 2
    loss.backward()
    torch.optim.SGD(theta, lr=rate).step()
    return [p.detach() for p in theta]


def epoch(predictor, task, order, rate, score):
    """Scores before and after every update of one pass."""
    target = one_hot(task.y_train, task.num_classes)
    theta = predictor.initial(task.x_train.shape[1], target.shape[1], 1, generator(0))
    scores = [score(predictor.outputs(theta, task.x_valid), task.y_valid).item()]
    for row in order.tolist():
        theta = explicit_step(predictor, theta, task.x_train[row], target[row], rate)
        scores.append(score(predictor.outputs(theta, task.x_valid), task.y_valid).item())
    return torch.tensor(scores, dtype=torch.float64)


@pytest.mark.parametrize("classes", [3, 0])
@pytest.mark.parametrize("predictor", [linear(), mlp()])
def test_every_copy_takes_its_own_step(predictor, classes):
    task, rates = small_data(classes).task, torch.tensor([0.5, 0.1, 0.0])
    target, rows = one_hot(task.y_train, classes), [4, 7, 9]
    begin = predictor.initial(4, max(classes, 1), 1, generator())
    begin = [p + 0.1 for p in begin]
    copies = [torch.cat([p] * 3, dim=1 if predictor.name == "linear" else 0) for p in begin]
    after = descend(predictor, copies, task.x_train[rows], target[rows], rates)
    found = predictor.outputs(after, task.x_valid)
    for copy, (row, rate) in enumerate(zip(rows, rates.tolist(), strict=True)):
        own = explicit_step(predictor, begin, task.x_train[row], target[row], rate)
        torch.testing.assert_close(found[:, copy], predictor.outputs(own, task.x_valid)[:, 0], rtol=1e-4, atol=1e-5)
    assert all(not p.requires_grad for p in after)
    assert not torch.allclose(found[:, 0], found[:, 2])


@pytest.mark.parametrize(("classes", "reward"), [(3, "neg_log_loss"), (0, "neg_rmse")])
@pytest.mark.parametrize("predictor", [linear(), mlp()])
def test_a_row_contributes_what_its_update_changes(predictor, classes, reward):
    data = small_data(classes, train=12)
    module = fit(method(data, predictor), data)
    expected = torch.zeros(6, 12, dtype=torch.float64)
    for number in range(6):
        order = module.order(number)
        scores = epoch(predictor, data.task, order, module.rate.item(), REWARDS[reward])
        expected[number, order] = scores.diff()
        assert expected[number].sum().item() == pytest.approx((scores[-1] - scores[0]).item())
    torch.testing.assert_close(module.contributions, expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(module.ranking(), expected.mean(0), rtol=0, atol=1e-5)
    trials = len(RATES) * TRIALS
    assert (int(module.fits), int(module.updates)) == (6 + trials, (6 + trials) * 12)


def test_the_rate_has_the_best_mean_less_spread_of_an_epoch():
    data = small_data(train=8)
    module = method(data)
    module.prepare(data.task)
    found, random = module.best_rate(), module.generator(TRIAL)
    worth = []
    for rate in RATES:
        orders = [torch.randperm(8, generator=random) for _ in range(TRIALS)]
        finals = [epoch(linear(), data.task, order, rate, REWARDS["neg_log_loss"])[-1] for order in orders]
        worth.append(torch.stack(finals).mean() - torch.stack(finals).std(correction=0))
    assert found == RATES[int(torch.stack(worth).argmax())]
    assert pytest.approx((0.1, 10**-1.5, 0.01, 10**-2.5, 1e-3, 10**-3.5, 1e-4, 10**-4.5)) == RATES


def test_a_rate_that_diverges_is_not_taken():
    data = small_data(classes=0, train=12)
    data.task.x_train.mul_(1e4)
    module = method(data)
    module.prepare(data.task)
    assert module.best_rate() in RATES
    wild = module.task.x_train.square().sum(1).max() * RATES[0]
    assert wild > 2  # the largest rate blows the coefficients up


def test_values_do_not_depend_on_how_many_permutations_are_walked_together():
    data = small_data(train=12)
    values = [fit(method(data, together=t), data).ranking() for t in (1, 6)]
    torch.testing.assert_close(values[0], values[1], rtol=0, atol=1e-6)


def test_other_predictors_are_refused():
    with pytest.raises(UserError, match="single-sample steps with DecisionTreeClassifier; use predictor=linear"):
        method(small_data(), Estimator(DecisionTreeClassifier()))
