"""Patterns in a matrix: what is written, what its energy is, and that patterns are found again."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reprise.papers.supsup.hopfield import WRITE, energy, hamming, hebbian, storkey, update

quick = settings(max_examples=60, deadline=None, derandomize=True)
both = pytest.mark.parametrize("write", WRITE.values(), ids=list(WRITE))
seeds = st.integers(0, 2**32)


def patterns(count, d, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(2, (count, d), generator=generator).double() * 2 - 1


def written(write, z):
    psi = torch.zeros(z.shape[1], z.shape[1], dtype=z.dtype)
    for one in z:
        psi = write(psi, one)
    return psi


def test_two_patterns_by_hand():
    """d = 2. Storkey: [1, 1] leaves [[0, 1], [1, 0]] / 2; then [1, -1] hears h = [-1, 1] / 2."""
    first, second = torch.tensor([1.0, 1]), torch.tensor([1.0, -1])
    assert hebbian(hebbian(torch.zeros(2, 2), first), second).tolist() == [[1, 0], [0, 1]]
    psi = storkey(torch.zeros(2, 2), first)
    assert psi.tolist() == [[0, 0.5], [0.5, 0]]
    # z z^T - I = [[0, -1], [-1, 0]]; z h^T = [[-1, 1], [1, -1]] / 2, symmetric; all of it by half
    assert storkey(psi, second).tolist() == [[0.5, -0.5], [-0.5, 0.5]]


@quick
@given(seeds, st.integers(1, 6), st.integers(2, 12))
def test_storkey_unit_by_unit(seed, count, d):
    z = patterns(count, d, seed)
    expected = [[0.0] * d for _ in range(d)]
    for p in z.tolist():
        h = [sum(expected[i][k] * p[k] for k in range(d)) for i in range(d)]
        expected = [
            [expected[i][j] + (p[i] * p[j] - (i == j) - p[i] * h[j] - h[i] * p[j]) / d for j in range(d)]
            for i in range(d)
        ]
    torch.testing.assert_close(written(storkey, z), torch.tensor(expected, dtype=torch.float64))


@quick
@given(seeds, st.integers(1, 5), st.integers(2, 20))
def test_hebbian_energy_has_a_closed_form(seed, count, d):
    """E(z) = - sum_k (z_k . z)^2 / 2d."""
    z, other = patterns(count, d, seed), patterns(1, d, seed + 1)[0]
    assert float(energy(written(hebbian, z), other)) == pytest.approx(-float((z @ other).square().sum()) / (2 * d))


def test_orthogonal_patterns_have_closed_forms():
    """Rows of a Hadamard matrix: h = - k z / d after k writes, so the next is Hebbian times 1 + 2 k / d, less I / d."""
    z = torch.ones(1, 1, dtype=torch.float64)
    for _ in range(4):
        z = torch.cat([torch.cat([z, z], 1), torch.cat([z, -z], 1)])
    d, k = 16, 5
    scale = torch.tensor([1 + 2 * j / d for j in range(k)], dtype=torch.float64)
    expected = (z[:k].T * scale) @ z[:k] / d - k * torch.eye(d, dtype=torch.float64) / d
    psi = written(storkey, z[:k])
    torch.testing.assert_close(psi, expected)
    for j in range(k):
        assert float(energy(psi, z[j])) == pytest.approx(-(d * (1 + 2 * j / d) - k) / 2)
        assert float(energy(written(hebbian, z[:k]), z[j])) == pytest.approx(-d / 2)
    assert float(energy(psi, z[k])) == pytest.approx(k / 2)


@both
@quick
@given(seeds, st.integers(1, 5), st.integers(2, 20))
def test_what_is_written_is_symmetric_and_the_gradient_of_the_energy_follows(write, seed, count, d):
    psi = written(write, patterns(count, d, seed))
    torch.testing.assert_close(psi, psi.T)
    z = torch.randn(d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).requires_grad_()
    (gradient,) = torch.autograd.grad(energy(psi, z), z)
    torch.testing.assert_close(gradient, -(psi @ z).detach())


@both
@quick
@given(seeds)
def test_few_patterns_are_fixed_and_found_from_nearby(write, seed):
    """Five of 400 units: far below the capacity of 0.14 d."""
    z = patterns(5, 400, seed)
    psi = written(write, z)
    assert torch.equal(torch.stack([update(psi, one) for one in z]), z)
    assert torch.equal(update(psi, -z[0]), -z[0])  # the negative of a pattern has the same energy
    damaged = z.clone()
    damaged[:, :60] *= -1
    assert torch.equal(torch.stack([update(psi, update(psi, one)) for one in damaged]), z)


def test_far_too_many_patterns_are_not_fixed():
    z = patterns(60, 40)
    psi = written(hebbian, z)
    assert not any(torch.equal(update(psi, one), one) for one in z)


@both
@quick
@given(seeds, st.integers(1, 30), st.integers(2, 15))
def test_one_unit_after_another_never_raises_the_energy(write, seed, count, d):
    psi, z = written(write, patterns(count, d, seed)), patterns(1, d, seed + 1)[0]
    for unit in range(d):
        after = update(psi, z, unit)
        assert int(hamming(after, z)) <= 1
        assert torch.equal(after[torch.arange(d) != unit], z[torch.arange(d) != unit])
        assert float(energy(psi, after)) <= float(energy(psi, z)) + 1e-9
        z = after


def test_a_unit_that_hears_nothing_stays():
    z = torch.tensor([1.0, -1, -1])
    assert torch.equal(update(torch.diag(torch.tensor([-9.0, 0, 9])), z), z)


def test_hamming_counts_places():
    a = torch.tensor([[True, False, True], [False, False, False]])
    assert hamming(a, torch.tensor([True, True, True])).tolist() == [1, 3]
    assert hamming(a[:, None], a).tolist() == [[0, 2], [2, 0]]
