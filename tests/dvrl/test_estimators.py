"""Scikit-learn estimators as predictors: against scikit-learn itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from dvrl_tasks import fit, generator, small_data, small_dvrl
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import SVC, LinearSVC
from sklearn.tree import DecisionTreeClassifier

from reprise.errors import UserError
from reprise.papers.dvrl.estimators import Estimator
from reprise.papers.dvrl.predictors import one_hot, predictions


def fitted(estimator, task, weights):
    predictor = Estimator(classifier=estimator) if task.num_classes else Estimator(regressor=estimator)
    theta = predictor.fit(task.x_train, one_hot(task.y_train, task.num_classes), weights, [], 1, generator())
    return predictor, theta


def test_probabilities_are_those_of_the_estimator_fitted_on_the_selected_rows():
    task = small_data().task
    weights = (torch.rand(3, 30, generator=generator()) < 0.6).float()
    predictor, theta = fitted(LogisticRegression(), task, weights)
    found = predictions(predictor.outputs(theta, task.x_test), 3)
    assert found.shape == (len(task.y_test), 3, 3)
    x, y = task.x_train.numpy(), task.y_train.numpy()
    for g, row in enumerate(weights.bool().numpy()):
        own = LogisticRegression().fit(x[row], y[row]).predict_proba(task.x_test.numpy())
        np.testing.assert_allclose(found[:, g], own, atol=1e-5)


def test_soft_weights_are_used_as_sample_weights():
    task = small_data().task
    weights = torch.rand(1, 30, generator=generator())
    predictor, theta = fitted(LogisticRegression(), task, weights)
    own = LogisticRegression().fit(task.x_train.numpy(), task.y_train.numpy(), sample_weight=weights[0].numpy())
    found = predictions(predictor.outputs(theta, task.x_test), 3)[:, 0]
    np.testing.assert_allclose(found, own.predict_proba(task.x_test.numpy()), atol=1e-5)


@pytest.mark.parametrize("estimator", [SVC(probability=True), LogisticRegression(), DecisionTreeClassifier()])
def test_a_selection_of_one_class_predicts_that_class(estimator):
    task = small_data().task
    weights = (task.y_train == 2).float().unsqueeze(0)
    predictor, theta = fitted(estimator, task, weights)
    assert (predictor.outputs(theta, task.x_test).argmax(-1) == 2).all()


def test_a_class_missing_from_the_selection_gets_almost_no_probability_but_a_finite_loss():
    task = small_data().task
    weights = (task.y_train != 1).float().unsqueeze(0)
    predictor, theta = fitted(LogisticRegression(), task, weights)
    outputs = predictor.outputs(theta, task.x_test)
    assert torch.isfinite(outputs).all()
    assert predictions(outputs, 3)[..., 1].max() < 1e-6


def test_numbers_are_predicted_as_the_estimator_does():
    task = small_data(0).task
    predictor, theta = fitted(LinearRegression(), task, torch.ones(1, 30))
    own = LinearRegression().fit(task.x_train.numpy(), task.y_train.numpy()).predict(task.x_test.numpy())
    np.testing.assert_allclose(predictor.outputs(theta, task.x_test)[:, 0, 0], own, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("estimator", "classes", "fault"),
    [
        (KNeighborsClassifier(), 3, "KNeighborsClassifier takes no sample_weight"),
        (LinearSVC(), 3, "LinearSVC has no predict_proba"),
        ("text", 3, "classifier: str takes no sample_weight"),
        ("text", 0, "regressor: str takes no sample_weight"),
        (None, 3, "classification target and the predictor's classifier is null"),
        (None, 0, "regression target and the predictor's regressor is null"),
    ],
)
def test_an_estimator_that_cannot_work_is_refused_in_a_sentence(estimator, classes, fault):
    predictor = Estimator(classifier=estimator) if classes else Estimator(regressor=estimator)
    with pytest.raises(UserError, match=fault):
        predictor.bind(small_data(classes).spec)


def test_the_target_decides_between_classifier_and_regressor():
    predictor = Estimator(LogisticRegression(), LinearRegression())
    for classes, name in ((3, "LogisticRegression"), (0, "LinearRegression")):
        data = small_data(classes)
        predictor.bind(data.spec)
        assert predictor.name == name
        target = one_hot(data.task.y_train, classes)
        (one,) = predictor.fit(data.task.x_train, target, torch.ones(1, 30), [], 1, generator())
        assert type(one).__name__ == name


def test_only_the_estimator_that_is_needed_is_asked_for():
    predictor = Estimator(classifier=LogisticRegression())
    predictor.bind(small_data(3).spec)
    with pytest.raises(UserError, match="regressor is null"):
        predictor.bind(small_data(0).spec)


def test_steps_change_nothing_and_batches_are_refused():
    predictor = Estimator(LogisticRegression(), steps=100, final_steps=200)
    assert predictor.steps == predictor.final_steps == 1
    with pytest.raises(UserError, match="batch_size=256 cannot be used"):
        Estimator(LogisticRegression(), batch_size=256)


def test_the_predictor_that_judges_is_checked_before_any_training():
    with pytest.raises(UserError, match="LinearSVC has no predict_proba"):
        small_data(final_predictor=Estimator(LinearSVC()))
    judge = Estimator(DecisionTreeClassifier(), LinearRegression())
    small_data(0, final_predictor=judge)
    assert judge.name == "LinearRegression"


@pytest.mark.parametrize(
    ("classes", "trees"), [(3, HistGradientBoostingClassifier), (0, HistGradientBoostingRegressor)]
)
def test_dvrl_values_rows_for_boosted_trees(classes, trees):
    data = small_data(classes, rows=120, train=50)
    estimator = trees(max_iter=3, min_samples_leaf=5, random_state=0)
    predictor = Estimator(classifier=estimator) if classes else Estimator(regressor=estimator)
    module = fit(small_dvrl(data, predictor=predictor), data)
    metrics = module.final_metrics(data)
    assert metrics["cost/predictor_fits"] == metrics["cost/predictor_updates"] == 4 * 4
    assert "reference/fine_tuned" not in metrics
    assert metrics["weighted/test_accuracy" if classes else "weighted/test_rmse"] > 0
