import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.distributions import Independent, Normal, kl_divergence

from reprise.papers.crvae.model import Gaussian, Level

finite = st.floats(-3, 3, allow_nan=False, width=32)
numbers = st.lists(finite, min_size=3, max_size=3).map(lambda v: torch.tensor(v, dtype=torch.float64))
gaussians = st.builds(Gaussian, numbers, numbers)


def normal(g):
    return Independent(Normal(g.mean, (0.5 * g.log_variance).exp()), 1)


@given(gaussians, gaussians)
def test_kl_is_torchs(a, b):
    assert torch.allclose(a.kl(b), kl_divergence(normal(a), normal(b)))


@given(gaussians)
def test_kl_to_the_standard_normal_is_the_special_case(a):
    zeros = torch.zeros(3, dtype=torch.float64)
    assert torch.allclose(a.kl(), a.kl(Gaussian(zeros, zeros)))
    assert a.kl(a).abs() < 1e-12


@given(gaussians, numbers)
def test_density_is_torchs(a, z):
    assert torch.allclose(a.log_density(z), normal(a).log_prob(z))


@given(gaussians, gaussians, numbers)
def test_log_ratio_is_prior_less_posterior(q, p, z):
    assert torch.allclose(Level(q, p, z).log_ratio(), p.log_density(z) - q.log_density(z))


def test_kl_is_the_mean_log_ratio():
    q = Gaussian(torch.tensor([[[0.5, -1.0]]]), torch.tensor([[[0.3, -0.4]]]))
    z = q.at(torch.randn(200_000, 1, 2, generator=torch.Generator().manual_seed(0)))
    ratio = -Level(q, None, z).log_ratio()
    assert abs(ratio.mean() - q.kl()) < 4 * ratio.std() / len(z) ** 0.5


def test_rows_are_images():
    q = Gaussian(torch.arange(6.0).view(1, 3, 2), torch.zeros(1, 3, 2))
    part = Level(q, None, torch.zeros(4, 3, 2)).rows(slice(1, 3))
    assert part.posterior.mean.tolist() == [[[2.0, 3.0], [4.0, 5.0]]]
    assert part.z.shape == (4, 2, 2)
