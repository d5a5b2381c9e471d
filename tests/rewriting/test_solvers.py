"""All routes to the change of a layer: the cheap ones are the plain ones, and each finds what can be found."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from reprise.errors import UserError
from reprise.papers.rewriting import solvers
from reprise.papers.rewriting.memory import change, orthonormal, project
from reprise.papers.rewriting.request import Box
from reprise.papers.rewriting.solvers import finished
from reprise.papers.rewriting.stylegan2 import StyledLayer

BOXES = (Box(2, 1, 6, 6), Box(0, 3, 3, 8))


def goal(upsample=False, reachable=False, rank=2):
    """Two images of random keys; a target that some change of the rank gives exactly, or any."""
    g = torch.Generator().manual_seed(3)
    torch.manual_seed(3)
    layer = StyledLayer(6, 5, 4, 16 if upsample else 8, upsample)
    torch.nn.init.normal_(layer.bias)
    torch.nn.init.constant_(layer.noise_strength, 0.1)
    key = torch.randn(2, 6, 8, 8, generator=g)
    scales = 1 + 0.3 * torch.randn(2, 6, generator=g)
    d = orthonormal(torch.randn(rank, 6, generator=g))
    with torch.no_grad():
        value = layer.value_of(key, scales)
        if reachable:
            lam = torch.randn(5, rank, 3, 3, generator=g)
            target = layer.value_of(key, scales, layer.weight + change(lam, d))
        else:
            target = value + torch.randn(value.shape, generator=g)
    boxes = tuple(Box(2 * b.top, 2 * b.left, 2 * b.bottom, 2 * b.right) for b in BOXES) if upsample else BOXES
    return solvers.Goal(layer, key, scales, target, boxes), d


@pytest.mark.parametrize("upsample", [False, True])
def test_the_cheap_form_is_the_plain_one(upsample):
    asked, d = goal(upsample)
    lam = torch.randn(5, 2, 3, 3)
    plain = asked.layer.value_of(asked.key, asked.scales, asked.layer.weight + change(lam, d))
    assert torch.allclose(solvers._LowRank(asked, d).value(lam), plain, atol=1e-4)


def test_the_loss_counts_the_boxes_alone():
    asked, _ = goal()
    value = asked.target.clone()
    value[0, :, 0, 0] += 100  # outside the first image's box
    assert asked.loss_of(value) == 0
    value[1, :, 0, 3] += 1  # inside the second's: 5 channels of 5 * (20 + 15) numbers
    assert asked.loss_of(value).item() == pytest.approx(5 / (5 * (20 + 15)))


@pytest.mark.parametrize("upsample", [False, True])
def test_lambda_reaches_what_can_be_reached(upsample):
    asked, d = goal(upsample, reachable=True)
    found = finished(solvers.solve_lambda(asked, d, steps=600, lr=0.05))
    assert found.losses[-1] < 0.05 * found.losses[0]
    assert asked.loss(asked.layer.weight + found.dw).item() == pytest.approx(found.losses[-1], rel=0.2)


@pytest.mark.parametrize("rank", [1, 2, 4])
def test_every_change_lies_in_the_span_and_has_its_rank(rank):
    asked, d = goal(rank=rank, reachable=True)
    for found in (
        finished(solvers.solve_lambda(asked, d, steps=30, lr=0.05)),
        finished(solvers.adam_project(asked, d, steps=25, lr=0.05)),
        finished(solvers.least_squares(asked, d)),
    ):
        assert torch.allclose(project(found.dw, d), found.dw, atol=1e-4)
        flat = found.dw.movedim(1, -1).reshape(-1, 6)
        assert torch.linalg.matrix_rank(flat, atol=1e-4) == rank
        assert torch.allclose(change(found.lam, found.directions), found.dw, atol=1e-6)


def test_the_papers_algorithm_projects_when_it_should():
    """Between projections the weight may leave the span; after every tenth step and the last one it is in it."""
    asked, d = goal()
    for steps in (1, 11, 14):
        dw = finished(solvers.adam_project(asked, d, steps=steps, lr=0.05)).dw
        assert torch.allclose(project(dw, d), dw, atol=1e-5)
    once = finished(solvers.adam_project(asked, d, steps=12, lr=0.05, project_gradient=True)).dw
    assert not torch.allclose(once, finished(solvers.adam_project(asked, d, steps=12, lr=0.05)).dw)


def test_without_directions_every_change_is_allowed():
    asked, d = goal()
    free = finished(solvers.adam_project(asked, None, steps=200, lr=0.05))
    bound = finished(solvers.solve_lambda(asked, d, steps=200, lr=0.05))
    assert free.losses[-1] < bound.losses[-1]
    assert free.lam is None
    assert torch.linalg.matrix_rank(free.dw.movedim(1, -1).reshape(-1, 6)) == 6


def test_more_directions_fit_no_worse():
    losses = []
    for rank in (1, 2, 4, 6):
        asked, _ = goal()
        d = orthonormal(torch.eye(6)[:rank])
        losses.append(finished(solvers.solve_lambda(asked, d, steps=400, lr=0.05)).losses[-1])
    assert losses == sorted(losses, reverse=True)


def test_least_squares_reach_what_can_be_reached():
    asked, d = goal(reachable=True)
    found = finished(solvers.least_squares(asked, d, rounds=30, ridge=0.0))
    start = asked.loss(asked.layer.weight).item()
    assert found.losses[-1] < 0.02 * start


def test_least_squares_are_for_layers_that_do_not_upsample():
    asked, d = goal(upsample=True)
    with pytest.raises(UserError, match="do not upsample"):
        finished(solvers.least_squares(asked, d))


def test_activations_are_undone():
    asked, _ = goal()
    layer = asked.layer
    inner = layer.convolve(asked.key, asked.scales)
    assert torch.allclose(layer.undone(layer.finish(inner)), inner, atol=1e-5)


def test_progress_is_told():
    asked, d = goal()
    told = []
    finished(solvers.solve_lambda(asked, d, steps=3, lr=0.05), lambda step, loss: told.append((step, loss)))
    assert [step for step, _ in told] == [0, 1, 2]
    assert all(loss > 0 for _, loss in told)


def test_a_search_can_be_judged_on_the_way():
    """What was found after some steps stays as it was while the search goes on."""
    asked, d = goal(reachable=True)
    for search in (solvers.solve_lambda, solvers.adam_project, solvers.learn_direction):
        steps = list(search(asked, d, steps=21, lr=0.05))
        early = steps[5].dw
        assert not torch.equal(early, steps[-1].dw)
        assert torch.equal(early, list(search(asked, d, steps=21, lr=0.05))[5].dw)
        assert asked.loss(asked.layer.weight + steps[-1].dw) < asked.loss(asked.layer.weight + early)


def test_a_direction_that_is_learned_fits_better_than_a_given_one():
    """The target follows from a change along other directions than those it starts from."""
    asked, true = goal(reachable=True, rank=1)
    other = orthonormal(torch.randn(1, 6, generator=torch.Generator().manual_seed(5)))
    given = finished(solvers.solve_lambda(asked, other, steps=400, lr=0.05))
    learned = finished(solvers.learn_direction(asked, other, steps=400, lr=0.05))
    assert learned.losses[-1] < 0.5 * given.losses[-1]
    assert torch.allclose(learned.directions @ learned.directions.T, torch.eye(1), atol=1e-5)
    assert (learned.directions @ true.T).abs() > 0.95
    assert asked.loss(asked.layer.weight + learned.dw).item() == pytest.approx(learned.losses[-1], rel=0.3, abs=1e-3)


@pytest.mark.parametrize("upsample", [False, True])
@pytest.mark.parametrize("boxes", [BOXES, (Box(0, 0, 2, 2), Box(6, 6, 8, 8)), (Box(0, 0, 8, 8), Box(3, 3, 4, 4))])
def test_a_cropped_goal_is_the_same_goal(upsample, boxes):
    """Values within the boxes do not depend on what was cut off, at the border of the image or within it."""
    asked, d = goal(upsample)
    scale = 2 if upsample else 1
    places = tuple(Box(*(scale * x for x in (b.top, b.left, b.bottom, b.right))) for b in boxes)
    asked = dataclasses.replace(asked, boxes=places)
    small = solvers.cropped(asked)
    assert small.key.shape[-2:] <= asked.key.shape[-2:]
    weight = asked.layer.weight + change(torch.randn(5, 2, 3, 3), d)
    assert small.loss(weight).item() == pytest.approx(asked.loss(weight).item(), abs=1e-5)
    one, other = (finished(solvers.solve_lambda(g, d, steps=5, lr=0.05)).dw for g in (asked, small))
    assert torch.allclose(one, other, atol=1e-4)
    assert solvers.cropped(small).key.shape == small.key.shape


def test_a_small_box_needs_little_of_a_large_map():
    asked, _ = goal()
    small = solvers.cropped(dataclasses.replace(asked, boxes=(Box(3, 3, 4, 5), Box(4, 4, 5, 5))))
    assert small.key.shape == (2, 6, 3, 4)
