"""Masks from scores, the gradient that passes through them, and how many weights a layer may keep."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch.nn import functional as F

from reprise.papers.supsup.masks import EdgePopup, MaskSearch, Threshold, budget, initial_scores, largest
from reprise.papers.supsup.networks import FullyConnected, fan_in, signed_constants
from reprise.papers.supsup.residual import GemResNet18, ResNet50

quick = settings(max_examples=80, deadline=None, derandomize=True)
CUDA = pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"))
SEARCHES = [Threshold(), EdgePopup(density=0.5)]
both = pytest.mark.parametrize("search", SEARCHES, ids=lambda s: type(s).__name__)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=rng(seed), dtype=torch.float64)


class OneLargest(MaskSearch):
    """The smallest search there can be, to try what all share."""

    name = "one"

    def kept(self, scores):
        return scores == scores.flatten(1).amax(1).view(-1, *[1] * (scores.dim() - 1))


def test_a_threshold_by_hand():
    scores = torch.tensor([[[0.3, -0.1], [0.0, -0.0]], [[-2.0, 1e-30], [-1e-30, 5]]])
    assert Threshold().kept(scores).tolist() == [[[True, False], [True, True]], [[False, True], [False, True]]]


def test_edge_popup_by_hand():
    """Two tasks of a 4x4 layer at density 0.75: f = 0.75 * 8 / 16 = 3/8, six weights of sixteen."""
    scores = torch.tensor([1, -9, 2, -8, 3, -7, 4, -6, 5, 0, -5.5, 6.5, 0.1, 0.2, 0.3, 0.4])
    first = [i in (1, 3, 5, 11, 7, 10) for i in range(16)]
    kept = EdgePopup(density=0.75).kept(torch.stack([scores, scores.flip(0)]).view(2, 4, 4))
    assert kept.flatten(1).tolist() == [first, first[::-1]]


def test_of_equal_scores_the_first_are_kept():
    scores = torch.tensor([[[2.0, -2], [7, 2], [-2, 1]], [[0, 0], [0, 0], [0, 0]]])
    kept = EdgePopup(density=99.0).kept(scores)  # f = 1/2: three of six
    assert kept.tolist() == [
        [[True, True], [True, False], [False, False]],
        [[True, True], [True, False], [False, False]],
    ]


@st.composite
def layers(draw):
    """Scores ``[T, out, in]`` with many ties, or none, or all alike, and a density."""
    tasks, out, into = draw(st.integers(1, 3)), draw(st.integers(1, 7)), draw(st.integers(1, 7))
    one = draw(st.floats(-1, 1, width=32))
    few, many = st.integers(-3, 3).map(float), st.floats(-(2.0**99), 2.0**99, width=32)
    value = draw(st.sampled_from([few, many, st.just(one)]))
    count = tasks * out * into
    scores = torch.tensor(draw(st.lists(value, min_size=count, max_size=count)), dtype=torch.float32)
    return scores.view(tasks, out, into), draw(st.floats(0.01, 8))


@pytest.mark.parametrize("device", ["cpu", CUDA])
@quick
@given(layer=layers())
def test_edge_popup_keeps_exactly_its_budget_the_largest_first_then_the_earliest(device, layer):
    scores, density = layer
    keep = budget(tuple(scores.shape[1:]), density)
    kept = EdgePopup(density=density).kept(scores.to(device)).flatten(1)
    assert kept.sum(1).tolist() == [keep] * len(scores)
    for row, mask in zip(scores.flatten(1).tolist(), kept, strict=True):
        best = sorted(range(len(row)), key=lambda i: (-abs(row[i]), i))[:keep]
        assert mask.nonzero().flatten().tolist() == sorted(best)


@pytest.mark.parametrize("device", ["cpu", CUDA])
@pytest.mark.parametrize("rank", [1, 2, 40, 97])
def test_the_value_of_a_rank_is_that_of_a_sorted_row(device, rank):
    values = torch.rand(3, 97, generator=rng()).to(device)
    assert torch.equal(largest(values, rank), values.sort(1, descending=True).values[:, rank - 1 : rank])


def test_scores_are_left_as_they_are():
    scores = torch.randn(2, 5, 4, generator=rng()).requires_grad_()
    before = scores.detach().clone()
    for search in SEARCHES:
        assert not search.kept(scores).requires_grad
        search.weights([scores], [torch.ones(5, 4)])
    assert torch.equal(scores.detach(), before)


@both
def test_the_mask_as_numbers_is_the_mask(search):
    scores = torch.randn(2, 6, 3, 2, 2, generator=rng())
    mask = search.mask(scores)
    assert mask.dtype == scores.dtype
    assert torch.equal(mask, search.kept(scores).float())
    assert mask.any()
    assert not mask.all()


@both
def test_each_task_has_the_mask_that_it_has_alone(search):
    scores = torch.randn(3, 6, 5, generator=rng())
    together = search.kept(scores)
    assert all(torch.equal(together[t : t + 1], search.kept(scores[t : t + 1])) for t in range(3))


@pytest.mark.parametrize(
    ("density", "kept"), [(1, 2_868), (2, 5_736), (4, 11_212), (8, 21_944), (16, 42_670), (32, 81_394)]
)
def test_what_gems_resnet_keeps(density, kept):
    shapes = GemResNet18().bind((3, 32, 32), 5).shapes
    assert sum(budget(shape, density) for shape in shapes) == kept
    if density == 8:
        masks = [EdgePopup(density=density).kept(s[None]) for s in initial_scores(shapes, rng())]
        assert sum(int(mask.sum()) for mask in masks) == kept


@pytest.mark.parametrize(("density", "kept"), [(4, 204_596), (8, 402_968), (16, 795_696), (32, 1_566_816)])
def test_what_resnet_50_keeps(density, kept):
    assert sum(budget(shape, density) for shape in ResNet50().bind((3, 224, 224), 10).shapes) == kept


def test_budgets_by_hand():
    assert budget((3, 5), 1) == 8  # 8/15 is capped at one half of 15, and int((1 - f) N) are dropped
    assert budget((4, 4, 2, 2), 1) == 8  # 8/64
    assert budget((4, 4, 2, 2), 2) == 16
    assert budget((4, 4), 1e-30) == 0


@quick
@given(st.integers(1, 300), st.integers(1, 300), st.sampled_from([(), (3, 3), (7, 7)]), st.floats(1e-3, 64))
def test_a_budget_is_the_share_rounded_up_and_no_more_than_half(out, into, window, density):
    shape = (out, into, *window)
    total = math.prod(shape)
    share = min(0.5, density * (out + into) / total)
    assert share * total - 1e-6 <= budget(shape, density) <= min(share * total + 1 + 1e-6, (total + 1) // 2)
    assert budget(shape, 2 * density) >= budget(shape, density)


def test_a_density_too_small_for_one_weight_keeps_none():
    assert not EdgePopup(density=1e-30).kept(randn(2, 4, 4)).any()


def test_density_is_checked():
    with pytest.raises(ValidationError, match="density"):
        EdgePopup(density=0)


@pytest.mark.parametrize("search", [*SEARCHES, OneLargest()], ids=lambda s: type(s).__name__)
def test_masked_weights_and_the_straight_through_gradient(search):
    """Forward W * M; backward the gradient by M of W * M, with M a leaf, to kept and dropped weights alike.

    Where the mask goes by |S| the gradient is that of |S|.
    """
    frozen = [randn(4, 3), randn(2, 4, 2, 2, seed=1)]
    scores = [randn(3, *w.shape, seed=2 + i).requires_grad_() for i, w in enumerate(frozen)]
    aims = [randn(*s.shape, seed=5 + i) for i, s in enumerate(scores)]
    found = search.weights(scores, frozen)
    leaves = [search.kept(s).double().requires_grad_() for s in scores]
    expected = [w * m for w, m in zip(frozen, leaves, strict=True)]

    def loss(masked):
        return sum((w.sin() * aim).sum() for w, aim in zip(masked, aims, strict=True))

    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    for mine, leaf, s in zip(
        torch.autograd.grad(loss(found), scores), torch.autograd.grad(loss(expected), leaves), scores, strict=True
    ):
        torch.testing.assert_close(mine, leaf * s.sign() if isinstance(search, EdgePopup) else leaf)
        assert mine.all()


def test_a_gradient_by_hand():
    """L = w~ . (10, 20, 30), so dL/dS = W * (10, 20, 30), the dropped weight included."""
    scores = torch.tensor([[[1.0, -1, 2]]], requires_grad=True)
    (masked,) = Threshold().weights([scores], [torch.tensor([[0.5, -0.5, -0.5]])])
    assert masked.tolist() == [[[0.5, 0, -0.5]]]
    (masked * torch.tensor([10.0, 20, 30])).sum().backward()
    assert scores.grad.tolist() == [[[5, -10, -15]]]


def test_a_step_of_edge_popup_is_the_papers_update():
    """S_uv <- S_uv - lr dL/dI_v Z_u W_uv, summed over the batch (Ramanujan et al. 2020), in both layers.

    That is for scores above 0; where the mask goes by |S|, the same step is taken by |S|.
    """
    network, search, rate = FullyConnected(hidden=[5]).bind((4,), 3), EdgePopup(density=1.0), 0.3
    frozen = [w.double() for w in signed_constants(network.shapes, 0)]
    scores = [s[None].double().requires_grad_() for s in initial_scores(network.shapes, rng())]
    before = [s.detach().clone() for s in scores]
    x, y = randn(7, 4), torch.arange(7) % 3
    optimizer = torch.optim.SGD(scores, lr=rate)
    F.cross_entropy(network(search.weights(scores, frozen), x[None])[0], y).backward()
    optimizer.step()

    first, last = (w * search.kept(s)[0] for w, s in zip(frozen, before, strict=True))
    I_1 = (x @ first.T).requires_grad_()  # inputs of the hidden units
    Z_1 = I_1.relu()
    I_2 = Z_1 @ last.T
    by_I_1, by_I_2 = torch.autograd.grad(F.cross_entropy(I_2, y), [I_1, I_2])
    for s, old, W, Z, by_I in zip(scores, before, frozen, (x, Z_1), (by_I_1, by_I_2), strict=True):
        expected = [
            [
                float(old[0, v, u] - old[0, v, u].sign() * rate * (by_I[:, v] * Z.detach()[:, u]).sum() * W[v, u])
                for u in range(W.shape[1])
            ]
            for v in range(W.shape[0])
        ]
        torch.testing.assert_close(s.detach()[0], torch.tensor(expected, dtype=torch.float64))


def test_a_weight_that_would_help_moves_into_the_mask_whatever_the_sign_of_its_score():
    """L = -w~ . 1 with positive weights: all would help, so every |S| must grow."""
    scores = torch.tensor([[[-0.1, 0.1, -0.4, 0.5], [0.2, -0.3, 0.1, -0.2]]], requires_grad=True)
    (masked,) = EdgePopup(density=0.5).weights([scores], [torch.ones(2, 4)])
    (-masked).sum().backward()
    assert ((scores - 0.05 * scores.grad).abs() > scores.abs()).all()


def test_scores_start_evenly_within_one_over_the_root_of_the_fan_in():
    shapes = [(200, 100), (30, 16, 3, 3)]
    for scores, shape in zip(initial_scores(shapes, rng(1)), shapes, strict=True):
        bound = 1 / fan_in(shape) ** 0.5
        assert scores.shape == shape
        assert 0.999 * bound < scores.abs().max() <= bound
        assert scores.mean().item() == pytest.approx(0, abs=5 * bound / (3 * scores.numel()) ** 0.5)
        assert scores.std().item() == pytest.approx(bound / 3**0.5, rel=0.03)
        assert (scores >= 0).float().mean().item() == pytest.approx(0.5, abs=2.5 / scores.numel() ** 0.5)


def test_starting_scores_follow_from_the_generator():
    first, again, other = (initial_scores([(5, 4), (3, 5)], rng(seed)) for seed in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first, other, strict=True))
