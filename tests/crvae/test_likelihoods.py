import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from linear_gaussian import generator

from reprise.errors import UserError
from reprise.papers.crvae.likelihoods import Bernoulli, DiscretisedLogistic, GaussianPixels, binarise


def test_bernoulli_by_hand():
    x = torch.tensor([1.0, 0.0]).view(1, 1, 1, 2)
    theta = torch.tensor([0.0, math.log(3)]).view(1, 1, 1, 1, 1, 2)  # on with probability 1/2 and 3/4
    assert Bernoulli().log_prob(x, theta).item() == pytest.approx(math.log(1 / 2) + math.log(1 / 4))
    assert Bernoulli().mean(theta).flatten().tolist() == pytest.approx([0.5, 0.75])


def test_bernoulli_is_torchs_to_the_derivative():
    x = torch.rand(4, 1, 3, 3, generator=generator(), dtype=torch.float64).round()
    theta = (5 * torch.randn(2, 4, 1, 1, 3, 3, generator=generator(1), dtype=torch.float64)).requires_grad_()
    theirs = (
        -torch.nn.functional.binary_cross_entropy_with_logits(
            theta.squeeze(2), x.expand(2, -1, -1, -1, -1), reduction="none"
        )
        .flatten(2)
        .sum(2)
    )
    ours = Bernoulli().log_prob(x, theta)
    assert torch.allclose(ours, theirs)
    weights = torch.randn(2, 4, generator=generator(2), dtype=torch.float64)
    expected = torch.autograd.grad((weights * theirs).sum(), theta)[0]
    assert torch.allclose(torch.autograd.grad((weights * ours).sum(), theta)[0], expected)


@pytest.mark.parametrize("logit", [-200.0, 0.0, 200.0])
def test_bernoulli_of_certain_pixels_does_not_overflow(logit):
    theta = torch.full((1, 1, 1, 1, 1, 1), logit, requires_grad=True)
    found = Bernoulli().log_prob(torch.ones(1, 1, 1, 1), theta)
    assert found.item() == pytest.approx(min(logit, 0) if logit else -math.log(2))
    found.sum().backward()
    assert theta.grad.item() == pytest.approx(1 - torch.sigmoid(torch.tensor(logit)).item())


def test_bernoulli_sums_to_one_over_all_images():
    images = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 4).view(16, 1, 2, 2)
    theta = torch.randn(3, 1, 1, 1, 2, 2, generator=generator()).expand(3, 16, 1, 1, 2, 2)
    assert torch.allclose(Bernoulli().log_prob(images, theta).exp().sum(1), torch.ones(3))


@given(st.floats(-2, 3), st.floats(-8, 4))
def test_the_discretised_logistic_sums_to_one_over_the_grey_levels(mean, log_scale):
    levels = (torch.arange(256, dtype=torch.float64) / 255).view(256, 1, 1, 1)
    theta = torch.tensor([mean - 0.5, log_scale], dtype=torch.float64).view(1, 1, 2, 1, 1, 1).expand(1, 256, 2, 1, 1, 1)
    assert DiscretisedLogistic().log_prob(levels, theta).exp().sum().item() == pytest.approx(1)


def test_the_discretised_logistic_is_the_difference_of_sigmoids():
    x, mean, scale = 100 / 255, 0.3, 0.2
    theta = torch.tensor([mean - 0.5, math.log(scale)], dtype=torch.float64).view(1, 1, 2, 1, 1, 1)
    high, low = (1 / (1 + math.exp(-(x + side / 510 - mean) / scale)) for side in (1, -1))
    found = DiscretisedLogistic().log_prob(torch.tensor([[[[x]]]], dtype=torch.float64), theta)
    assert found.item() == pytest.approx(math.log(high - low))


def test_the_discretised_logistic_has_gradients_everywhere():
    x = (torch.arange(256) / 255).view(1, 1, 16, 16)
    theta = torch.zeros(1, 1, 2, 1, 16, 16)
    theta[:, :, 1] = -7
    theta.requires_grad_()
    DiscretisedLogistic().log_prob(x, theta).sum().backward()
    assert theta.grad.isfinite().all()


@pytest.mark.parametrize("sigma", [0.3, "learned"])
def test_gaussian_pixels_are_torchs(sigma):
    likelihood = GaussianPixels(sigma)
    x = torch.rand(2, 3, 4, 4, generator=generator())
    theta = torch.randn(5, 2, likelihood.parameters, 3, 4, 4, generator=generator(1))
    scale = sigma if sigma != "learned" else (0.5 * theta[:, :, 1]).exp()
    expected = torch.distributions.Normal(theta[:, :, 0] + 0.5, scale).log_prob(x).flatten(2).sum(2)
    assert torch.allclose(likelihood.log_prob(x, theta), expected, atol=1e-4)


def test_binarised_pixels_are_on_as_often_as_they_are_bright():
    x = torch.tensor([0.0, 0.3, 1.0]).expand(20_000, 3)
    drawn = binarise(x, generator())
    assert set(drawn.unique().tolist()) == {0.0, 1.0}
    share = drawn.mean(0).tolist()
    assert (share[0], share[2]) == (0.0, 1.0)
    assert share[1] == pytest.approx(0.3, abs=4 * (0.3 * 0.7 / 20_000) ** 0.5)
    assert torch.equal(drawn, binarise(x, generator()))


@pytest.mark.parametrize("likelihood", [Bernoulli(), DiscretisedLogistic()])
@pytest.mark.parametrize("bad", [-0.1, 1.5, math.nan])
def test_values_outside_the_range_are_refused(likelihood, bad):
    with pytest.raises(UserError, match="scale it to 0"):
        likelihood.check(torch.tensor([0.5, bad]))


def test_a_density_over_all_numbers_takes_them():
    GaussianPixels().check(torch.tensor([-3.0, 7.0]))
    with pytest.raises(UserError, match="not numbers"):
        GaussianPixels().check(torch.tensor([math.inf]))
