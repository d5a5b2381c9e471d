"""What values are worth: removal, discovery and learning with weights, against hand cases and separate fits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from dvrl_tasks import generator, quick, small_data
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LinearRegression
from sklearn.metrics import roc_auc_score
from sklearn.tree import DecisionTreeClassifier

from reprise.papers.dvrl import evaluation
from reprise.papers.dvrl.estimators import Estimator
from reprise.papers.dvrl.evaluation import (
    REMOVED,
    Values,
    area_between,
    discovery_curve,
    discovery_metrics,
    evaluate,
    fit_many,
    outputs_of,
    removal_weights,
)
from reprise.papers.dvrl.predictors import MLP, Linear, one_hot
from reprise.papers.dvrl.scores import test_score as score_on_test


def linear():
    return Linear(steps=3, final_steps=15, learning_rate=1.0, l2=1e-3)


def lone_fit(task, x, y, weights):
    """Test and validation accuracy (or RMSE, in the target's unit on the test rows) of one fit of its own."""
    f = linear()
    begin = f.initial(x.shape[1], task.num_classes or 1, 1, generator())
    theta = f.fit(x, one_hot(y, task.num_classes), weights.float().unsqueeze(0), begin, f.final_steps, generator())
    if task.num_classes:
        parts = ((task.x_test, task.y_test), (task.x_valid, task.y_valid))
        return [(f.outputs(theta, rows)[:, 0].argmax(-1) == truth).double().mean().item() for rows, truth in parts]
    test = (f.outputs(theta, task.x_test)[:, 0, 0] - task.y_test).square().mean().sqrt() * task.y_scale
    valid = (f.outputs(theta, task.x_valid)[:, 0, 0] - task.y_valid).square().mean().sqrt()
    return [test.item(), -valid.item()]


def some_values(task, seed=0):
    """A ranking that is partly right and weights that go with it."""
    ranking = torch.randn(len(task.y_train), generator=generator(seed)) - task.corrupted.float()
    return ranking, ranking.sigmoid()


def by_hand_removal(task, ranking, removed, first):
    """0/1 weights after dropping that share of the rows, by a plain sort."""
    order = sorted(range(len(ranking)), key=lambda i: (-ranking[i] if first == "high" else ranking[i], i))
    weights = torch.ones(len(ranking))
    weights[order[: int(removed * len(ranking) + 1e-9)]] = 0
    return weights


def test_removal_weights_by_hand_ties_by_row():
    ranking = torch.tensor([2.0, 1.0, 2.0, 0.0, 1.0])
    low = removal_weights(ranking, (0.0, 0.2, 0.4, 0.6, 0.99), "low")
    assert low.tolist() == [[1, 1, 1, 1, 1], [1, 1, 1, 0, 1], [1, 0, 1, 0, 1], [1, 0, 1, 0, 0], [0, 0, 1, 0, 0]]
    high = removal_weights(ranking, (0.0, 0.2, 0.4, 0.6), "high")
    assert high.tolist() == [[1, 1, 1, 1, 1], [0, 1, 1, 1, 1], [0, 1, 0, 1, 1], [0, 0, 0, 1, 1]]


@quick
@given(st.lists(st.integers(0, 5), min_size=1, max_size=30), st.sampled_from(["low", "high"]))
def test_removal_drops_the_right_number_and_never_a_row_out_of_order(values, first):
    ranking = torch.tensor(values, dtype=torch.float64)
    weights = removal_weights(ranking, REMOVED, first)
    for removed, row in zip(range(20), weights, strict=True):
        assert (row == 0).sum() == removed * len(values) // 20
        kept, dropped = ranking[row == 1], ranking[row == 0]
        if len(dropped) and len(kept):
            assert dropped.max() <= kept.min() if first == "low" else dropped.min() >= kept.max()


def test_removed_shares_are_those_of_the_official_release():
    assert list(REMOVED) == pytest.approx([step / 20 for step in range(20)])


def test_a_perfect_ranking_finds_as_fast_as_can_be():
    corrupted = np.arange(50) % 5 == 3
    inspected, found = discovery_curve(-corrupted.astype(float), corrupted)
    np.testing.assert_allclose(inspected, np.arange(51) / 50)
    np.testing.assert_allclose(found, np.minimum(inspected / 0.2, 1))
    _, last = discovery_curve(corrupted.astype(float), corrupted)
    np.testing.assert_allclose(last, np.maximum((inspected - 0.8) / 0.2, 0), atol=1e-12)


def test_discovery_curve_by_hand_ties_by_row():
    inspected, found = discovery_curve(np.array([0.5, 0.1, 0.5, 0.9]), np.array([False, False, True, True]))
    assert inspected.tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert found.tolist() == [0, 0, 0, 0.5, 1]


def test_area_between_by_hand():
    fractions = (0.0, 0.1, 0.2, 0.3)
    better, worse = np.array([1.0, 0.9, 0.8, 9.0]), np.array([1.0, 0.7, 0.5, 0.0])
    # gaps 0, 0.2, 0.3 up to 0.2: trapezoids 0.01 and 0.025 over a width of 0.2; what lies beyond does not count
    assert area_between(fractions, better, worse, 0.2) == pytest.approx(0.175)
    assert area_between(fractions, worse, better, 0.2) == pytest.approx(-0.175)
    assert area_between(REMOVED, np.full(20, 0.9), np.full(20, 0.6), 0.5) == pytest.approx(0.3)


def test_discovery_metrics_by_hand():
    ranking = np.array([0.1, 0.4, 0.2, 0.9, 0.8, 0.3])
    corrupted = np.array([True, False, False, False, True, True])
    # lowest three: rows 0, 2, 5; pairs (damaged below undamaged): row 0 beats 3, row 4 beats 1, row 5 beats 2 of 3
    assert discovery_metrics(ranking, corrupted) == {
        "discovery/auroc": pytest.approx(6 / 9),
        "discovery/tpr_at_noise_rate": pytest.approx(2 / 3),
    }
    assert discovery_metrics(-ranking, corrupted)["discovery/auroc"] == pytest.approx(3 / 9)


@pytest.mark.parametrize("predictor", [linear(), MLP(2, 5, 0.02, 1e-3, [4], batch_size=6)], ids=["linear", "mlp"])
def test_chunks_do_not_change_the_fits(predictor, monkeypatch):
    task = small_data().task
    target = one_hot(task.y_train, 3)
    weights = torch.rand(7, 30, generator=generator())
    whole = outputs_of(predictor, fit_many(predictor, task.x_train, target, weights, 9, 4), task.x_test)
    monkeypatch.setattr(evaluation, "ELEMENTS_PER_CHUNK", 2 * 30 * 3)
    chunks = fit_many(predictor, task.x_train, target, weights, 9, 4)
    assert len(chunks) == 4
    torch.testing.assert_close(outputs_of(predictor, chunks, task.x_test), whole, rtol=1e-4, atol=1e-4)


def fine_tuned(task):
    """Test score of a fit on all rows that goes on with the validation rows."""
    predictor = linear()
    (theta,) = fit_many(
        predictor, task.x_train, one_hot(task.y_train, task.num_classes), torch.ones(1, len(task.y_train)), 15, 0
    )
    few = torch.ones(1, len(task.y_valid))
    steps = predictor.final_steps
    target = one_hot(task.y_valid, task.num_classes)
    theta = predictor.fit(task.x_valid, target, few, theta, steps, generator(0))
    return score_on_test(predictor.outputs(theta, task.x_test), task.y_test, task.y_scale).item()


def percentage_error(task, weights):
    """Root mean square of (prediction - target) / target on the test rows, in the target's own unit."""
    f = linear()
    begin = f.initial(task.x_train.shape[1], 1, 1, generator())
    theta = f.fit(task.x_train, one_hot(task.y_train, 0), weights.unsqueeze(0), begin, f.final_steps, generator())
    predicted, truth = (task.y_mean + task.y_scale * y for y in (f.outputs(theta, task.x_test)[:, 0, 0], task.y_test))
    return ((predicted - truth) / truth).square().mean().sqrt().item()


@pytest.mark.parametrize(("classes", "seed"), [(0, 1), (3, 2)])
def test_every_number_of_an_evaluation_is_that_of_a_separate_fit(classes, seed):
    task = small_data(classes, rows=200, train=60, noise=0.3, seed=seed).task
    ranking, weights = some_values(task)
    found = evaluate(task, Values(ranking, weights), linear(), seed=0)
    name = "accuracy" if classes else "rmse"

    def on_train(weights):
        return lone_fit(task, task.x_train, task.y_train, weights)

    subsets = [on_train(by_hand_removal(task, ranking, r, first)) for first in ("low", "high") for r in REMOVED]
    low, high = ([test for test, _ in part] for part in (subsets[:20], subsets[20:]))
    assert found.removal["removed"] == list(REMOVED)
    assert found.removal["low_first"] == pytest.approx(low, rel=1e-3)
    assert found.removal["high_first"] == pytest.approx(high, rel=1e-3)
    best = max(range(40), key=lambda k: (subsets[k][1], -k))
    ranks, corrupted = ranking.double().numpy(), task.corrupted.numpy()
    gap = area_between(REMOVED, np.array(low), np.array(high), 0.5) * (1 if classes else -1)
    validation_only = lone_fit(task, task.x_valid, task.y_valid, torch.ones(len(task.y_valid)))
    expected = {
        f"weighted/test_{name}": on_train(weights)[0],
        "reference/all": on_train(torch.ones(60))[0],
        "reference/clean_only": on_train(~task.corrupted)[0],
        "reference/zero_noise": lone_fit(task, task.x_train, task.y_true, torch.ones(60))[0],
        "reference/fine_tuned": fine_tuned(task),
        "reference/validation_only": validation_only[0],
        "removal/area_between": gap,
        f"best_subset/test_{name}": subsets[best][0],
        "discovery/auroc": roc_auc_score(corrupted, -ranks),
        "discovery/tpr_at_noise_rate": corrupted[ranks.argsort()[: corrupted.sum()]].mean(),
    }
    if not classes:
        expected["weighted/test_rmspe"] = percentage_error(task, weights)
        expected["reference/all_rmspe"] = percentage_error(task, torch.ones(60))
    assert found.metrics == pytest.approx(expected, rel=1e-3, abs=1e-4)
    assert found.discovery["found"] == pytest.approx(discovery_curve(ranks, corrupted)[1].tolist())
    # chosen by validation, so neither the first subset nor the one that is best on the test rows
    tests = [test for test, _ in subsets]
    assert subsets[best][0] != (max(tests) if classes else min(tests))
    assert best != 0


def test_a_good_ranking_has_a_positive_area_and_a_bad_one_a_negative():
    for classes in (0, 3):
        task = small_data(classes, rows=300, train=80, noise=0.4).task
        good = -task.corrupted.float()
        areas = [
            evaluate(task, Values(ranking, torch.ones(80)), linear(), 0).metrics["removal/area_between"]
            for ranking in (good, -good)
        ]
        assert areas[0] > 0 > areas[1]


def test_unknown_truth_gives_no_discovery():
    task = small_data(noise=0.0).task
    found = evaluate(task, Values(*some_values(task)), linear(), seed=0)
    assert found.discovery is None
    assert set(found.metrics) == {
        "weighted/test_accuracy",
        "reference/all",
        "reference/fine_tuned",
        "reference/validation_only",
        "removal/area_between",
        "best_subset/test_accuracy",
    }


def test_a_scikit_learn_model_evaluates_in_place_of_the_predictor():
    task = small_data(rows=200, train=60, noise=0.3).task
    model = DecisionTreeClassifier(max_depth=3, random_state=0)
    ranking, weights = some_values(task)
    weights[:5] = 0
    found = evaluate(task, Values(ranking, weights), linear(), seed=0, final_predictor=Estimator(model))
    x, y = task.x_train.numpy(), task.y_train.numpy()

    def own(rows, sample_weight=None):
        fitted = DecisionTreeClassifier(max_depth=3, random_state=0).fit(x[rows], y[rows], sample_weight)
        return fitted.score(task.x_test.numpy(), task.y_test.numpy())

    everything = np.arange(60)
    assert found.metrics["reference/all"] == pytest.approx(own(everything))
    assert found.metrics["reference/clean_only"] == pytest.approx(own(np.flatnonzero(~task.corrupted)))
    assert found.metrics["weighted/test_accuracy"] == pytest.approx(own(everything[5:], weights[5:].numpy()))
    kept = np.flatnonzero(by_hand_removal(task, ranking, 0.25, "high"))
    assert found.removal["high_first"][5] == pytest.approx(own(kept))
    assert not hasattr(model, "tree_")  # a clone was fitted


def test_a_scikit_learn_regressor_is_scored_in_the_targets_unit():
    task = small_data(0, rows=200, train=60, noise=0.2).task
    judge = Estimator(regressor=LinearRegression())
    found = evaluate(task, Values(*some_values(task)), linear(), seed=0, final_predictor=judge)
    given = task.y_mean + task.y_scale * task.y_train.numpy()
    truth = task.y_mean + task.y_scale * task.y_test.numpy()
    predicted = LinearRegression().fit(task.x_train.numpy(), given).predict(task.x_test.numpy())
    assert found.metrics["reference/all"] == pytest.approx(np.sqrt(np.mean((predicted - truth) ** 2)), rel=1e-4)


def test_without_removal_curves_the_forty_fits_are_saved_and_nothing_else_changes():
    task = small_data(rows=200, train=60, noise=0.3).task
    values = Values(*some_values(task))
    whole = evaluate(task, values, linear(), seed=0)
    short = evaluate(task, values, linear(), seed=0, removal_curves=False)
    assert short.removal is None
    gone = {"removal/area_between", "best_subset/test_accuracy"}
    assert short.metrics == {name: value for name, value in whole.metrics.items() if name not in gone}


def test_a_predictor_that_the_method_trained_is_judged_itself():
    task = small_data(rows=200, train=60, noise=0.3).task
    ranking, weights = some_values(task)
    predictor = linear()
    (theta,) = fit_many(predictor, task.x_valid, one_hot(task.y_valid, 3), torch.ones(1, len(task.y_valid)), 9, 0)
    own = evaluate(task, Values(ranking, weights, theta), predictor, seed=0).metrics["weighted/test_accuracy"]
    assert own == score_on_test(predictor.outputs(theta, task.x_test), task.y_test, 1.0).item()


def test_a_trained_predictor_of_other_sizes_than_the_judge_s_is_not_judged_itself():
    task = small_data(rows=200, train=60, noise=0.3).task
    ranking, weights = some_values(task)
    judge, other = (MLP(steps=3, final_steps=5, learning_rate=0.01, l2=0.0, hidden=[h]) for h in (4, 9))
    other.name = judge.name  # a network's name does not tell its channels
    theta = other.initial(task.x_train.shape[1], 3, 1, generator())
    found = evaluate(task, Values(ranking, weights, theta), other, 0, final_predictor=judge, removal_curves=False)
    plain = evaluate(task, Values(ranking, weights), other, 0, final_predictor=judge, removal_curves=False)
    assert found.metrics == plain.metrics
