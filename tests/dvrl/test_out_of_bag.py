"""Data-OOB: against a plain loop over bags with scikit-learn's trees."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from dvrl_tasks import fit, small_data
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from reprise.papers.dvrl.estimators import Estimator
from reprise.papers.dvrl.out_of_bag import DataOOB
from reprise.papers.dvrl.predictors import Linear


@pytest.mark.parametrize(
    ("classes", "tree"), [(3, DecisionTreeClassifier(random_state=0)), (0, DecisionTreeRegressor(random_state=0))]
)
def test_values_are_those_of_a_plain_loop_over_repeated_rows(classes, tree):
    data = small_data(classes, noise=0.3)
    predictor = Estimator(classifier=tree if classes else None, regressor=None if classes else tree)
    module = fit(DataOOB(spec=data.spec, seed=0, predictor=predictor, bags=12, together=5), data)
    x, y = data.task.x_train.numpy(), data.task.y_train.numpy()
    scores = [[] for _ in y]
    for number in range(12):
        times = module.bag(number).int().numpy()
        assert times.sum() == 30
        own = type(tree)(random_state=0).fit(np.repeat(x, times, axis=0), np.repeat(y, times))
        for i in np.flatnonzero(times == 0):
            predicted = own.predict(x[i : i + 1])[0]
            scores[i].append(float(predicted == y[i]) if classes else -((predicted - y[i]) ** 2))
    assert all(scores)
    np.testing.assert_allclose(module.ranking().numpy(), [np.mean(s) for s in scores], rtol=1e-4)
    assert (int(module.fits), int(module.updates), module.epochs) == (12, 12, 3)


def test_a_batch_of_bags_is_as_good_as_one_after_the_other():
    data = small_data()
    f = Linear(steps=3, final_steps=9, learning_rate=1.0, l2=1e-3)
    values = [fit(DataOOB(spec=data.spec, seed=0, predictor=f, bags=6, together=t), data) for t in (1, 6)]
    torch.testing.assert_close(values[0].ranking(), values[1].ranking())
    assert int(values[0].updates) == 6 * 9


def test_a_row_that_no_bag_left_out_gets_the_mean_of_the_others():
    data = small_data(train=3)
    f = Linear(steps=3, final_steps=9, learning_rate=1.0, l2=1e-3)
    module = DataOOB(spec=data.spec, seed=0, predictor=f, bags=2, together=2)
    module.total.copy_(torch.tensor([1.0, 0.0, 2.0]))
    module.count.copy_(torch.tensor([4.0, 0.0, 4.0]))
    assert module.ranking().tolist() == [0.25, 0.375, 0.5]
