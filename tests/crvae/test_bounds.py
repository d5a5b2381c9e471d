import math

import pytest
import torch
from linear_gaussian import LinearGaussian, generator
from pydantic import ValidationError

from reprise.papers.crvae.bounds import ELBO, IWAE, log_mean_exp
from reprise.papers.crvae.model import Gaussian, Level


def seen(model, x, samples, seed=0):
    levels = model.levels(x, model.noise(samples, len(x), generator(seed)))
    return model.likelihood.log_prob(x, model.decode([level.z for level in levels])), levels


def level(mean, log_variance, z):
    shape = (1, 1, -1)
    return Level(
        Gaussian(torch.tensor(mean).view(shape), torch.tensor(log_variance).view(shape)), None, torch.tensor(z)
    )


def test_elbo_by_hand():
    levels = [level([1.0], [0.0], [[[1.0]], [[3.0]]])]  # KL(N(1, 1) || N(0, 1)) = 1/2
    bound = ELBO(samples=2, beta=4.0)(torch.tensor([[-1.0], [-3.0]]), levels)
    assert bound.reconstruction.tolist() == [-2.0]
    assert bound.kl.tolist() == [0.5]
    assert bound.elbo.tolist() == [-2.5]
    assert bound.value.tolist() == [-4.0]


def test_kl_is_summed_over_levels():
    levels = [level([1.0], [0.0], [[[0.0]]]), level([2.0], [0.0], [[[0.0]]])]
    assert ELBO()(torch.zeros(1, 1), levels).kl.tolist() == [2.5]


def test_iwae_by_hand():
    # q = N(1, 1), samples 1 and 3: log p(z) - log q(z) = ((z - 1)^2 - z^2) / 2 = -1/2, -5/2
    levels = [level([1.0], [0.0], [[[1.0]], [[3.0]]])]
    bound = IWAE(samples=2)(torch.tensor([[-1.0], [-3.0]]), levels)
    assert bound.value.item() == pytest.approx(math.log((math.exp(-1.5) + math.exp(-5.5)) / 2))
    assert bound.elbo.tolist() == [-2.5]


def test_iwae_gradient_is_that_of_the_normalised_weights():
    """d/dtheta log mean w = sum of softmax(log w) times d log w."""
    log_px = torch.tensor([[-1.0], [-3.0], [-2.0]], requires_grad=True)
    levels = [level([0.3], [0.1], [[[0.5]], [[-1.0]], [[2.0]]])]
    IWAE(samples=3)(log_px, levels).value.sum().backward()
    weights = (log_px + levels[0].log_ratio()).detach().softmax(0)
    assert torch.allclose(log_px.grad, weights)


@pytest.mark.parametrize("samples", [1, 2, 7])
def test_with_the_exact_posterior_every_iwae_bound_is_the_likelihood(samples):
    model = LinearGaussian([2.0, 1.0], 5)
    x = model.draw(6)
    assert torch.allclose(IWAE(samples)(*seen(model, x, samples)).value, model.log_px(x))


def test_the_bound_grows_with_the_samples_and_stays_below_the_likelihood():
    model = LinearGaussian([2.0, 1.0], 5, wider=2.0)
    x = model.draw(4000)
    means = [IWAE(k)(*seen(model, x, k)).value.mean() for k in (1, 4, 32)]
    assert means[0] < means[1] < means[2] < model.log_px(x).mean()


def test_one_importance_sample_has_the_elbos_expectation():
    model = LinearGaussian([2.0, 1.0], 5, wider=1.5)
    x = model.draw(20_000)
    log_px, levels = seen(model, x, 1)
    gap = IWAE(1)(log_px, levels).value - ELBO()(log_px, levels).value
    assert abs(gap.mean()) < 4 * gap.std() / len(x) ** 0.5


def test_log_mean_exp_does_not_overflow():
    assert log_mean_exp(torch.tensor([1000.0, 1000.0])).item() == 1000.0


@pytest.mark.parametrize(("bound", "wrong"), [(ELBO, {"beta": -1.0}), (ELBO, {"samples": 0}), (IWAE, {"samples": 0})])
def test_wrong_arguments_are_refused(bound, wrong):
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        bound(**wrong)
