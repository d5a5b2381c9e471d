import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from linear_gaussian import LinearGaussian, generator

from reprise.papers.crvae import metrics
from reprise.papers.crvae.model import Gaussian

LENGTHS = [2.0, 1.0, 0.7]


def standard(like):
    return Gaussian(torch.zeros_like(like.mean), torch.zeros_like(like.mean))


def test_with_the_exact_posterior_the_nll_is_exact_for_any_number_of_samples():
    model = LinearGaussian(LENGTHS, 6)
    x = model.draw(30)
    for samples, chunk in ((1, 100), (5, 7), (12, 1)):
        found = metrics.nll(model, model.likelihood, x, samples, generator(), chunk)
        assert torch.allclose(found, -model.log_px(x))


def test_the_nll_of_a_wrong_posterior_comes_down_to_the_truth():
    model = LinearGaussian(LENGTHS, 6, wider=1.7)
    x = model.draw(400)
    truth = -model.log_px(x)
    gaps = [(metrics.nll(model, model.likelihood, x, s, generator()) - truth).mean() for s in (1, 16, 1000)]
    assert gaps[0] > gaps[1] > gaps[2] > -0.005
    assert gaps[2] < 0.005


def test_chunks_change_the_draws_and_nothing_else():
    model = LinearGaussian(LENGTHS, 6, wider=1.3)
    x = model.draw(200)
    means = [
        metrics.nll(model, model.likelihood, x, 500, generator(s), chunk).mean() for s, chunk in ((0, 33), (1, 9999))
    ]
    assert means[0] == pytest.approx(float(means[1]), abs=0.01)


def test_elbo_and_kl_of_the_exact_posterior():
    model = LinearGaussian(LENGTHS, 6)
    x = model.draw(20_000)
    elbo, kl = metrics.elbo(model, model.likelihood, x, generator())
    assert (elbo - model.log_px(x)).mean().abs() < 4 * (elbo - model.log_px(x)).std() / len(x) ** 0.5
    assert kl.mean() == pytest.approx(model.mean_kl(), abs=4 * float(kl.std()) / len(x) ** 0.5)


def test_mutual_information_stands_between_its_two_estimators():
    model = LinearGaussian(LENGTHS, 6)
    q, p = metrics.posteriors(model, model.draw(3000))
    found = metrics.information(q, p, generator(7))
    assert found["mi/full"] == pytest.approx(model.information(), abs=0.12)
    assert found["mi/leave_one_out"] == pytest.approx(model.information(), abs=0.12)
    assert found["mi/full"] < found["mi/leave_one_out"]
    # the aggregated posterior of the model's own data is the prior
    assert found["aggregated_kl"] == pytest.approx(0, abs=0.12)


def test_posteriors_that_do_not_touch_reach_the_ceilings():
    q = Gaussian(torch.arange(128.0).view(-1, 1) * 100, torch.full((128, 1), -4.0))
    found = metrics.information(q, standard(q), generator())
    assert found["mi/full"] == pytest.approx(found["mi/full_ceiling"]) == pytest.approx(math.log(128))
    assert found["mi/batch"] == pytest.approx(found["mi/batch_ceiling"]) == pytest.approx(math.log(64))
    assert found["mi/leave_one_out"] > 1000, "nothing holds it"


@given(st.integers(2, 90), st.integers(1, 4), st.integers(0, 1000))
def test_no_estimate_is_above_its_ceiling(n, d, seed):
    g = generator(seed)
    q = Gaussian(3 * torch.randn(n, d, generator=g), torch.randn(n, d, generator=g))
    found = metrics.information(q, standard(q), g)
    assert found["mi/full"] <= found["mi/full_ceiling"] + 1e-6
    assert found["mi/batch"] <= found["mi/batch_ceiling"] + 1e-6


def test_information_of_equal_posteriors_is_nothing():
    q = Gaussian(torch.ones(70, 2), torch.zeros(70, 2))
    found = metrics.information(q, standard(q), generator())
    for name in ("mi/full", "mi/batch", "mi/leave_one_out"):
        assert found[name] == pytest.approx(0, abs=1e-6)


def test_mixtures_are_what_the_plain_sum_gives():
    g = generator()
    q = Gaussian(torch.randn(9, 3, generator=g), torch.randn(9, 3, generator=g))
    z = torch.randn(9, 3, generator=g)
    plain = torch.stack([q.log_density(row) for row in z])  # [i, j]
    full, others = metrics._log_mixtures(q, z)
    assert torch.allclose(full.float(), plain.logsumexp(1), atol=1e-5)
    plain.fill_diagonal_(-math.inf)
    assert torch.allclose(others.float(), plain.logsumexp(1), atol=1e-5)


def test_active_units_by_hand():
    mean = torch.tensor([[0.0, 0.0, 5.0], [1.0, 0.1, 5.0]])  # variances 1/2, 1/200, 0
    active, variances = metrics.active_units(Gaussian(mean, torch.zeros(2, 3)))
    assert active == 1
    assert torch.allclose(variances, torch.tensor([0.5, 0.005, 0.0]))


def test_consistency_by_hand():
    clean = Gaussian(torch.tensor([[0.0], [2.0]]), torch.zeros(2, 1))  # variance of the means: 2
    moved = Gaussian(torch.tensor([[1.0], [2.0]]), torch.zeros(2, 1))
    found = metrics.consistency(clean, moved)
    assert found["kl"].tolist() == [0.5, 0.0]
    assert found["w2"].tolist() == [1.0, 0.0]
    assert found["w2_ratio"].tolist() == [0.5, 0.0]


def test_a_collapsed_code_has_no_ratio_that_is_not_a_number():
    q = Gaussian(torch.zeros(4, 2), torch.zeros(4, 2))
    assert metrics.consistency(q, q)["w2_ratio"].tolist() == [0.0] * 4


def test_means_of_unrelated_inputs_are_apart_by_twice_the_variance():
    mean = torch.randn(4000, 3, generator=generator())
    q, other = Gaussian(mean, torch.zeros(4000, 3)), Gaussian(mean.roll(1, 0), torch.zeros(4000, 3))
    assert metrics.consistency(q, other)["w2_ratio"].mean() == pytest.approx(2, abs=0.1)


def test_retrieval_by_hand():
    clean = Gaussian(torch.tensor([[0.0], [1.0], [5.0], [9.0]]), torch.zeros(4, 1))
    moved = Gaussian(torch.tensor([[0.1], [0.2], [5.3], [9.0]]), torch.zeros(4, 1))
    assert metrics.retrieval(clean, moved) == 0.75
