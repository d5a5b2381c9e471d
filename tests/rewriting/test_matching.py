"""Matches of keys by hand, and layers chosen by what they do to images."""

from __future__ import annotations

import pytest
import torch
from studio import PLAN, torch_box

from reprise.data import scenes
from reprise.papers.rewriting.choosing import Candidate, choose, tried, tries
from reprise.papers.rewriting.generator import SceneGenerator
from reprise.papers.rewriting.matching import match_maps, query_direction
from reprise.papers.rewriting.request import Marked, Request
from reprise.papers.rewriting.rewriter import Recipe, Rewriter


def test_a_query_is_the_weighted_mean_key_through_c():
    c = torch.diag(torch.tensor([1.0, 4.0], dtype=torch.float64))
    rows = torch.tensor([[1.0, 0.0], [3.0, 8.0]], dtype=torch.float64)
    weights = torch.tensor([1.0, 3.0], dtype=torch.float64)
    # mean key (2.5, 6), C^-1 of it (2.5, 1.5), its product with the mean 6.25 + 9 = 15.25
    assert torch.allclose(query_direction(c, rows, weights), torch.tensor([2.5, 1.5], dtype=torch.float64) / 15.25)


@pytest.fixture(scope="module")
def generator():
    return SceneGenerator(PLAN).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def ws(generator):
    return generator.ws(scenes.sample(12, 2, torch.Generator().manual_seed(7)))


def test_a_map_is_the_product_with_each_key(generator, ws):
    direction = torch.arange(8, dtype=torch.float64)
    keys = generator.synthesis.key(4, ws[:2])[0]
    found = match_maps(generator.synthesis, 4, ws[:2], direction)
    assert found.shape == (2, 8, 8)
    assert found[1, 3, 5].item() == pytest.approx(float(keys[1, :, 3, 5].double() @ direction), rel=1e-4)


@pytest.fixture(scope="module")
def rewriter(generator, ws):
    return Rewriter(generator.synthesis, lambda count: ws[:count], images=12)


@pytest.fixture(scope="module")
def request_(ws):
    return Request(Marked(ws[0], torch_box(2, 2, 6, 6)), Marked(ws[1], torch_box(8, 8, 6, 6)))


def test_a_score_weighs_harm_twice():
    assert Candidate(4, 1, fit=0.5, change=0.125).score == 0.75


def test_a_candidate_is_judged_on_images(generator, rewriter, request_, ws):
    recipe = Recipe(6, steps=30)
    found = tried(rewriter, [request_], recipe, ws[4:])
    edit, _ = rewriter.edit([request_], recipe)
    net = generator.synthesis
    weights = {6: net.layers["6"].weight + edit.dw}
    before, after = (net.finish(net.start(ws), ws, w) for w in ({}, weights))
    target = before[0][:, 2:8, 2:8]
    was = (before[1][:, 8:14, 8:14] - target).abs().mean()
    left = (after[1][:, 8:14, 8:14] - target).abs().mean()
    assert found.fit == pytest.approx(float(left / was), rel=1e-3)
    assert found.change == pytest.approx(float((after - before)[4:].abs().mean() / was), rel=1e-3)


def test_a_removal_is_judged_by_its_layer(rewriter, request_, ws):
    removal = Request(None, request_.paste)
    recipe = Recipe(6, steps=30, units=3)
    found = tried(rewriter, [removal], recipe, ws[4:])
    _, solution = rewriter.edit([removal], recipe)
    assert found.fit == pytest.approx(solution.losses[-1] / solution.losses[0])
    assert found.change > 0


def test_the_best_comes_first_and_progress_is_told(rewriter, request_, ws):
    recipes = list(tries(Recipe(4, steps=500), (5, 6), (1, 2)))
    assert [(r.layer, r.rank, r.steps) for r in recipes] == [(5, 1, 60), (5, 2, 60), (6, 1, 60), (6, 2, 60)]
    seen = []
    found = choose(rewriter, [request_], recipes, ws[4:], lambda n, of: seen.append((n, of)))
    assert seen == [(0, 4), (1, 4), (2, 4), (3, 4)]
    scores = [one.score for one in found]
    assert scores == sorted(scores)
    assert len({(one.layer, one.rank) for one in found}) == 4


def test_short_searches_are_no_longer_than_the_real_one():
    assert next(tries(Recipe(4, steps=7), (5,), (1,))).steps == 7
