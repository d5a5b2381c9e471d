"""TMC-Shapley and Beta Shapley: against the definitions by enumeration."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from dvrl_tasks import fit, generator, quick, small_data
from hypothesis import given
from hypothesis import strategies as st

from reprise.papers.dvrl import shapley
from reprise.papers.dvrl.predictors import MLP, Linear
from reprise.papers.dvrl.shapley import BetaShapley, PermutationMean, TMCShapley, beta_weights, drift, marginals

FIVE = list(itertools.permutations(range(5)))


def linear():
    return Linear(steps=5, final_steps=6, learning_rate=1.0, l2=1e-3)


def method(data, kind=TMCShapley, seed=0, **changes):
    options = {
        "reward": "neg_log_loss",
        "together": 3,
        "permutations": 6,
        "tolerance": None,
        "convergence": None,
        "predictor": linear(),
    }
    if kind is BetaShapley:
        options |= {"alpha": 16, "beta": 1}
    return kind(spec=data.spec, seed=seed, **(options | changes))


def semivalue(module, share):
    """sum over sets without i of share[size] (U(S with i) - U(S)), by enumeration; ``share`` by the size of S."""
    rows = len(module.task.y_train)
    sets = torch.tensor(list(itertools.product([0.0, 1.0], repeat=rows)))
    worth = dict(zip(map(tuple, sets.int().tolist()), module.utility(sets).tolist(), strict=True))
    values = np.zeros(rows)
    for chosen, score in worth.items():
        for i in (i for i in range(rows) if not chosen[i]):
            joined = (*chosen[:i], 1, *chosen[i + 1 :])
            values[i] += share[sum(chosen)] * (worth[joined] - score)
    return values


def on_all_permutations(data, kind, **changes):
    module = method(data, kind, permutations=120, **changes)
    module.order = lambda number: torch.tensor(FIVE[number])
    return fit(module, data)


@pytest.mark.parametrize("classes", [2, 0])
def test_over_all_permutations_the_mean_is_the_shapley_value(classes):
    data = small_data(classes, train=5, noise=0.2)
    module = on_all_permutations(data, TMCShapley)
    share = [math.factorial(s) * math.factorial(4 - s) / math.factorial(5) for s in range(5)]
    expected = semivalue(module, share)
    assert module.ranking().tolist() == pytest.approx(expected, abs=1e-6)
    assert np.abs(expected).max() > 0.01


@pytest.mark.parametrize(("alpha", "beta"), [(16, 1), (1, 16), (4, 2.5)])
def test_over_all_permutations_beta_shapley_is_its_definition(alpha, beta):
    data = small_data(2, train=5, noise=0.2)
    module = on_all_permutations(data, BetaShapley, alpha=alpha, beta=beta)

    def b(p, q):
        return math.exp(math.lgamma(p) + math.lgamma(q) - math.lgamma(p + q))

    share = [b(s + beta, 4 - s + alpha) / b(alpha, beta) for s in range(5)]
    assert module.ranking().tolist() == pytest.approx(semivalue(module, share), abs=1e-6)


def test_beta_one_one_is_the_shapley_value_on_the_same_permutations():
    data = small_data()
    first = fit(method(data), data)
    same = fit(method(data, BetaShapley, alpha=1, beta=1), data)
    other = fit(method(data, BetaShapley), data)
    torch.testing.assert_close(same.ranking(), first.ranking(), rtol=1e-9, atol=1e-12)
    assert not torch.allclose(other.ranking(), first.ranking(), atol=1e-3)


@pytest.mark.parametrize("predictor", [linear(), MLP(steps=4, final_steps=4, learning_rate=0.1, l2=0, hidden=[4])])
def test_an_uncut_permutation_hands_out_what_all_rows_are_worth(predictor):
    data = small_data()
    module = fit(method(data, predictor=predictor), data)
    gained = module.utility.whole() - module.utility.empty()
    torch.testing.assert_close(module.contributions.sum(1), gained.expand(6), rtol=0, atol=1e-9)
    assert (int(module.done), int(module.added)) == (6, 6 * 30)
    assert int(module.fits) == 1 + 1 + 6 * 29  # U(D) here and above, and all prefixes but the whole


def test_values_do_not_depend_on_how_many_prefixes_are_fitted_together():
    data = small_data()
    values = [fit(method(data, together=t), data).ranking() for t in (1, 7, 100)]
    torch.testing.assert_close(values[0], values[1], rtol=0, atol=1e-5)
    torch.testing.assert_close(values[0], values[2], rtol=0, atol=1e-5)


class Staircase:
    """A utility that depends on the number of rows alone; counts as many fits as it is asked for."""

    together = 4

    def __init__(self, owner, scores):
        self.owner, self.scores = owner, torch.tensor(scores, dtype=torch.float64)

    def __call__(self, weights):
        self.owner.fits += len(weights)
        return self.scores[weights.sum(1).long()]

    def whole(self):
        return self.scores[-1]

    def empty(self):
        return self.scores[0]


@pytest.mark.parametrize("sign", [1, -1])
def test_a_permutation_is_cut_after_six_scores_in_a_row_near_that_of_all_rows(sign):
    data = small_data()
    # near are those within 10 % of 1.0; sizes 5 to 9 are (five in a row), size 10 is not, and 12 to 17 are
    near = {*range(5, 10), *range(12, 30)}
    scores = [sign * (1.05 if n in near else 0.5) for n in range(30)] + [sign * 1.0]
    module = method(data, tolerance=0.1, permutations=1)
    module.utility = Staircase(module, scores)
    fit(module, data)
    order = module.order(0).tolist()
    assert (int(module.added), int(module.fits)) == (17, 20)  # the last batch had sizes 17 to 20
    expected = dict(zip(order, np.diff(scores[:18]), strict=False))
    assert module.ranking().tolist() == pytest.approx([expected.get(row, 0.0) for row in range(30)])
    assert module.ranking().abs().sum() > 1


@pytest.mark.parametrize(("tolerance", "added"), [(None, 30), (0.0, 6)])
def test_without_a_tolerance_nothing_is_cut(tolerance, added):
    data = small_data()
    module = method(data, tolerance=tolerance, permutations=1)
    module.utility = Staircase(module, [1.0] * 31)
    assert int(fit(module, data).added) == added


def test_marginals_are_weighted_differences():
    weights = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64)
    assert marginals(0.5, [1.0, 0.0, 0.25], weights).tolist() == pytest.approx([0.5, -2.0, 0.75])


@quick
@given(st.integers(1, 300), st.floats(0.2, 20), st.floats(0.2, 20))
def test_beta_weights_are_the_papers(n, alpha, beta):
    def log_b(p, q):
        return math.lgamma(p) + math.lgamma(q) - math.lgamma(p + q)

    expected = [
        n * math.comb(n - 1, j - 1) * math.exp(log_b(j + beta - 1, n - j + alpha) - log_b(alpha, beta))
        for j in range(1, n + 1)
    ]
    found = beta_weights(n, alpha, beta)
    np.testing.assert_allclose(found, expected, rtol=1e-7)
    assert found.sum() == pytest.approx(n)


def test_beta_weights_favour_small_sets_when_alpha_is_large():
    assert beta_weights(7, 1, 1).tolist() == pytest.approx([1.0] * 7)
    assert (np.diff(beta_weights(50, 16, 1)) < 0).all()
    np.testing.assert_allclose(beta_weights(50, 16, 2), beta_weights(50, 2, 16)[::-1])


def test_drift_is_the_largest_mean_relative_distance_of_the_running_means():
    given_ = torch.rand(130, 3, generator=generator(), dtype=torch.float64)
    running = [given_[: t + 1].mean(0).numpy() for t in range(130)]
    distances = [np.mean(np.abs(mean - running[-1]) / (np.abs(running[-1]) + 1e-12)) for mean in running[30:]]
    assert drift(given_) == pytest.approx(max(distances))
    assert drift(given_[:99]) == math.inf
    assert drift(torch.ones(100, 3)) == 0


class Constant(PermutationMean):
    """Every permutation contributes the same."""

    def evaluated(self, numbers):
        self.fits += len(numbers)
        return torch.ones(len(numbers), self.contributions.shape[1])


@pytest.mark.parametrize(("convergence", "done"), [(0.1, 102), (None, 150)])
def test_settled_values_end_the_work(convergence, done):
    data = small_data()
    module = fit(Constant(data.spec, 0, linear(), 150, convergence, 6), data)
    assert (int(module.done), int(module.fits)) == (done, done)
    assert module.ranking().tolist() == [1.0] * 30
    assert module.final_metrics(data)["cost/permutations"] == done


def test_permutations_depend_on_the_seed_and_their_number_alone():
    data = small_data()
    first, beta, other = method(data), method(data, BetaShapley), method(data, seed=1)
    orders = [module.order(number).tolist() for module in (first, other) for number in (0, 1)]
    assert first.order(1).tolist() == beta.order(1).tolist() == orders[1]
    assert len({tuple(order) for order in orders}) == 4
    assert all(sorted(order) == list(range(30)) for order in orders)


def test_the_last_epoch_may_be_shorter():
    data = small_data(train=6)
    module = fit(method(data, permutations=shapley.PERMUTATIONS_PER_EPOCH + 1), data)
    assert (module.epochs, int(module.done)) == (2, shapley.PERMUTATIONS_PER_EPOCH + 1)
    assert (module.contributions.abs().sum(1) > 0).all()
