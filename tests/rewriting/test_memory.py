"""The algebra of one layer: every formula against its own definition, autograd or brute force."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reprise.errors import UserError
from reprise.papers.rewriting import memory

sizes = st.tuples(st.integers(1, 4), st.integers(2, 6), st.integers(0, 10_000))


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def moment(channels, seed=0):
    keys = draw(channels * 5, channels, seed=seed)
    return keys.T @ keys / len(keys)


def test_the_moment_is_that_of_all_keys_whatever_the_batches():
    keys = draw(7, 4, 3, 5).float()
    once, twice = memory.Moment(4), memory.Moment(4)
    once.add(keys)
    twice.add(keys[:2])
    twice.add(keys[2:])
    rows = keys.movedim(1, -1).reshape(-1, 4).double()
    assert torch.allclose(once.matrix(), rows.T @ rows / len(rows), atol=1e-6)
    assert torch.allclose(once.matrix(), twice.matrix(), atol=1e-6)
    assert once.count == 7 * 15


def test_a_ridge_is_a_share_of_the_mean_eigenvalue():
    seen = memory.Moment(3)
    seen.add(draw(4, 3, 2, 2).float())
    c = seen.matrix()
    assert torch.allclose(seen.matrix(0.1) - c, 0.1 * c.trace() / 3 * torch.eye(3, dtype=torch.float64))


def test_no_keys_have_no_moment():
    with pytest.raises(UserError, match="before any key"):
        memory.Moment(3).matrix()


def test_whitened_keys_are_white():
    c = moment(5)
    z = memory.whitening(c)
    assert torch.allclose(z @ c @ z, torch.eye(5, dtype=torch.float64))
    assert torch.allclose(z, z.T)


def test_channels_that_are_dead_stay_dead():
    c = moment(4)
    c[2], c[:, 2] = 0, 0
    z = memory.whitening(c)
    assert z.isfinite().all()
    assert z[2].abs().max() < 1e-6


@given(st.integers(2, 6), st.integers(0, 10_000))
def test_the_direction_of_one_key_is_c_inverse_k(channels, seed):
    c, key = moment(channels, seed), draw(1, channels, seed=seed + 1)
    found = memory.zca_directions(c, key, torch.ones(1, dtype=torch.float64), 1)[0]
    expected = torch.linalg.solve(c, key[0])
    assert torch.allclose(found, expected / expected.norm(), atol=1e-6)


@given(sizes)
def test_directions_are_orthonormal_and_face_the_context(size):
    rank, channels, seed = size
    rank = min(rank, channels)
    rows, weights = draw(9, channels, seed=seed), draw(9, seed=seed + 1).abs()
    c = moment(channels, seed)
    for d in (memory.zca_directions(c, rows, weights, rank), memory.raw_directions(rows, weights, rank)):
        assert torch.allclose(d @ d.T, torch.eye(rank, dtype=torch.float64), atol=1e-8)
    d = memory.zca_directions(c, rows, weights, rank)
    assert (d @ (rows @ memory.whitening(c)).sum(0) >= -1e-8).all()


def test_weights_decide_which_keys_count():
    rows, c = draw(6, 4), moment(4)
    weights = torch.tensor([0.0, 0, 1, 0, 0, 0], dtype=torch.float64)
    assert torch.allclose(
        memory.zca_directions(c, rows, weights + 1e-9, 1).abs(),
        memory.zca_directions(c, rows[2:3], weights[2:3], 1).abs(),
        atol=1e-5,
    )


def test_masks_choose_the_keys():
    keys = [draw(3, 2, 2), draw(3, 2, 2, seed=1)]
    masks = [torch.tensor([[0.0, 0.5], [0.0, 0.0]]), torch.tensor([[1.0, 0.0], [0.0, 0.0]])]
    rows, weights = memory.context_rows(keys, masks)
    assert torch.equal(rows, torch.stack([keys[0][:, 0, 1], keys[1][:, 0, 0]]))
    assert weights.tolist() == [0.5, 1.0]
    with pytest.raises(UserError, match="empty at the layer's resolution"):
        memory.context_rows(keys, [torch.zeros(2, 2)] * 2)


@pytest.mark.parametrize("rank", [0, 4, 9])
def test_a_rank_that_the_keys_do_not_have_is_refused(rank):
    with pytest.raises(UserError, match=f"rank={rank} cannot be: 3 context keys"):
        memory.zca_directions(moment(6), draw(3, 6), torch.ones(3, dtype=torch.float64), rank)


@given(sizes)
def test_what_is_inserted_is_found(size):
    pairs, channels, seed = size
    pairs = min(pairs, channels)
    w, c = draw(3, channels, seed=seed), moment(channels, seed)
    keys, values = draw(pairs, channels, seed=seed + 1), draw(pairs, 3, seed=seed + 2)
    lam, directions = memory.insert(w, c, keys, values)
    new = w + lam @ directions
    assert torch.allclose(keys @ new.T, values, atol=1e-5)
    assert torch.linalg.matrix_rank(new - w) <= pairs


@settings(max_examples=25)
@given(sizes)
def test_no_other_change_that_stores_the_pair_does_less_harm(size):
    """tr(dW C dW^T) is the mean squared change of the values of all keys; any other solution has more of it."""
    pairs, channels, seed = size
    pairs = min(pairs, channels - 1)
    w, c = draw(3, channels, seed=seed), moment(channels, seed)
    keys, values = draw(pairs, channels, seed=seed + 1), draw(pairs, 3, seed=seed + 2)
    lam, directions = memory.insert(w, c, keys, values)
    best = lam @ directions
    free = torch.linalg.svd(keys).Vh[pairs:]  # what leaves the stored pairs as they are
    other = best + draw(3, len(free), seed=seed + 3) @ free
    assert torch.allclose(keys @ (w + other).T, values, atol=1e-5)

    def harm(change):
        return (change @ c @ change.T).trace()

    assert harm(best) <= harm(other) + 1e-8


def test_one_pair_by_hand():
    """Lambda = (v* - W k*) / (k*^T C^-1 k*)."""
    w, c, key, value = draw(2, 3), moment(3), draw(1, 3, seed=4), draw(1, 2, seed=5)
    lam, directions = memory.insert(w, c, key, value)
    d = torch.linalg.solve(c, key[0])
    assert torch.allclose(directions[0], d)
    assert torch.allclose(lam[:, 0], (value[0] - w @ key[0]) / (key[0] @ d))


def test_keys_that_contradict_each_other_are_met_half_way():
    w, c = torch.zeros(1, 2, dtype=torch.float64), torch.eye(2, dtype=torch.float64)
    keys = torch.tensor([[1.0, 0.0], [1.0, 0.0]], dtype=torch.float64)
    lam, directions = memory.insert(w, c, keys, torch.tensor([[1.0], [3.0]], dtype=torch.float64))
    assert torch.allclose(w + lam @ directions, torch.tensor([[2.0, 0.0]], dtype=torch.float64))


@given(sizes)
def test_a_projected_change_has_the_rank_and_stays_put(size):
    rank, channels, seed = size
    rank = min(rank, channels)
    d = memory.orthonormal(draw(rank, channels, seed=seed))
    dw = draw(4, channels, 3, 3, seed=seed + 1)
    once = memory.project(dw, d)
    assert torch.allclose(memory.project(once, d), once, atol=1e-9)
    assert torch.linalg.matrix_rank(once.movedim(1, -1).reshape(-1, channels)) == rank
    assert ((dw - once) * once).sum().abs() < 1e-8, "what is taken away is orthogonal"


def test_a_change_is_the_sum_over_its_directions():
    lam, d = draw(4, 2, 3, 3), draw(2, 5, seed=1)
    expected = sum(lam[:, r].unsqueeze(1) * d[r].view(1, -1, 1, 1) for r in range(2))
    assert torch.allclose(memory.change(lam, d), expected)


def test_the_busiest_units_are_those_with_most_energy_against_their_usual():
    moment = memory.Moment(3)
    moment.add(torch.tensor([[[[1.0]], [[2.0]], [[10.0]]]]))  # usual squares 1, 4, 100
    rows, weights = torch.tensor([[2.0, 2.0, 20.0], [0.0, 8.0, 20.0]]).double(), torch.tensor([1.0, 0.5]).double()
    # (4, 4, 400) and (0, 64, 400), weighted 2 : 1, over the usual: 8/3, 6, 4
    assert memory.busiest(rows, weights, moment, 2).tolist() == [1, 2]
    with pytest.raises(UserError, match="units=4 are more than"):
        memory.busiest(rows, weights, moment, 4)


def test_the_rarest_units_are_those_at_the_highest_quantiles():
    usual = torch.arange(100.0).repeat(3, 1).T * torch.tensor([1.0, 2.0, -1.0])  # to 99, to 198, from -99 to 0
    rows, weights = torch.tensor([[90.0, 50.0, 5.0]]), torch.ones(1)  # above 90 %, 26 % and all of them
    assert memory.rarest(rows, weights, usual, 3).tolist() == [2, 0, 1]
    assert memory.rarest(rows, weights, usual, 1).tolist() == [2]
    with pytest.raises(UserError, match="units=4 are more than"):
        memory.rarest(rows, weights, usual, 4)
