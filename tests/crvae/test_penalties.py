import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from torch.distributions import Normal, kl_divergence

from reprise.papers.crvae.model import Gaussian, Level
from reprise.papers.crvae.penalties import Consistency, InfoNCE, Triplet, wasserstein2

pairs = st.tuples(st.integers(1, 5), st.integers(1, 4), st.integers(0, 10_000))


def levels(n, d, seed, samples=1, count=1):
    g = torch.Generator().manual_seed(seed)

    def draw(k):
        return torch.randn(k, n, d, generator=g, dtype=torch.float64)

    return [Level(Gaussian(draw(samples), draw(samples)), None, draw(samples)) for _ in range(count)]


def normal(level):
    return Normal(level.posterior.mean, (0.5 * level.posterior.log_variance).exp())


@given(pairs)
def test_directions_are_torchs(sizes):
    n, d, seed = sizes
    augmented, clean = levels(n, d, seed), levels(n, d, seed + 1)
    there = kl_divergence(normal(augmented[0]), normal(clean[0])).sum(-1)[0]
    back = kl_divergence(normal(clean[0]), normal(augmented[0])).sum(-1)[0]
    assert torch.allclose(Consistency("paper")(augmented, clean), there)
    assert torch.allclose(Consistency("reverse")(augmented, clean), back)
    assert torch.allclose(Consistency("symmetric")(augmented, clean), (there + back) / 2)


@given(pairs)
def test_equal_posteriors_are_consistent(sizes):
    n, d, seed = sizes
    for direction in ("paper", "reverse", "symmetric", "w2"):
        assert Consistency(direction)(levels(n, d, seed), levels(n, d, seed)).abs().max() < 1e-12


def test_the_papers_formula_by_hand():
    """An over-confident clean posterior is what costs: it stands in the denominator."""
    wide = [Level(Gaussian(torch.zeros(1, 1, 1), torch.log(torch.full((1, 1, 1), 4.0))), None, torch.zeros(1, 1, 1))]
    sharp = [Level(Gaussian(torch.ones(1, 1, 1), torch.zeros(1, 1, 1)), None, torch.zeros(1, 1, 1))]
    expected = 0.5 * (0 - torch.log(torch.tensor(4.0)) + 4 + 1 - 1)
    assert torch.allclose(Consistency("paper")(wide, sharp), expected)
    assert Consistency("paper")(wide, sharp) > Consistency("paper")(sharp, wide)


def test_wasserstein_by_hand():
    a = Gaussian(torch.tensor([3.0, 0.0]), torch.log(torch.tensor([4.0, 1.0])))
    b = Gaussian(torch.tensor([0.0, 0.0]), torch.log(torch.tensor([1.0, 1.0])))
    assert wasserstein2(a, b).item() == pytest.approx(9 + 1)


def test_levels_are_summed_and_samples_averaged():
    augmented, clean = levels(2, 3, 0, samples=4, count=2), levels(2, 3, 1, samples=4, count=2)
    each = [kl_divergence(normal(a), normal(c)).sum(-1).mean(0) for a, c in zip(augmented, clean, strict=True)]
    assert torch.allclose(Consistency()(augmented, clean), each[0] + each[1])


MOVES = {"none": (True, True), "clean": (True, False), "augmented": (False, True)}


@pytest.mark.parametrize(("held", "moves"), MOVES.items())
def test_a_stopped_gradient_holds_one_view(held, moves):
    leaves = [torch.randn(1, 2, 3, requires_grad=True) for _ in range(2)]
    views = [[Level(Gaussian(mean, torch.zeros(1, 2, 3)), None, mean)] for mean in leaves]
    Consistency(stop_gradient=held)(*views).sum().backward()
    assert tuple(leaf.grad is not None and bool((leaf.grad != 0).any()) for leaf in leaves) == moves


def flat(*means):
    mean = torch.tensor(means).view(1, len(means), -1)
    return [Level(Gaussian(mean, torch.zeros_like(mean)), None, mean)]


def test_triplet_by_hand():
    # distances to the view: 1 and 0; to the other input: 4 each
    clean, augmented = flat([0.0], [2.0]), flat([1.0], [2.0])
    assert Triplet(margin=4.0)(augmented, clean).tolist() == [1.0, 0.0]
    assert Triplet(margin=3.0)(augmented, clean).tolist() == [0.0, 0.0]


def test_infonce_by_hand():
    clean, augmented = flat([1.0, 0.0], [0.0, 2.0]), flat([3.0, 0.0], [0.0, 1.0])  # cosines 1 with one's own, else 0
    expected = torch.log(1 + torch.exp(torch.tensor(-1 / 0.5)))
    assert torch.allclose(InfoNCE(temperature=0.5)(augmented, clean), expected.expand(2))


def test_infonce_is_worse_with_the_wrong_view():
    clean = flat([1.0, 0.0], [0.0, 1.0])
    assert InfoNCE()(flat([0.0, 1.0], [1.0, 0.0]), clean).min() > InfoNCE()(clean, clean).max()


@pytest.mark.parametrize(
    ("penalty", "wrong"),
    [(Triplet, {"margin": -1}), (InfoNCE, {"temperature": 0}), (Consistency, {"direction": "both"})],
)
def test_wrong_arguments_are_refused(penalty, wrong):
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        penalty(**wrong)
