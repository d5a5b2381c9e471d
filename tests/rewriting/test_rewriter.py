"""From a request to an edit, on a network with random weights."""

from __future__ import annotations

import pytest
import torch

from reprise.data import scenes
from reprise.errors import UserError
from reprise.papers.rewriting import rewriter as module
from reprise.papers.rewriting.edits import EditStack
from reprise.papers.rewriting.generator import Plan, SceneGenerator
from reprise.papers.rewriting.memory import Moment, busiest, project
from reprise.papers.rewriting.request import Box, Marked, Request
from reprise.papers.rewriting.rewriter import Recipe, Rewriter, feature_paste

SMALL = Plan(channels=(6, 8, 6), style=8, hidden=8, object_layers=3, colours_from=4)


@pytest.fixture
def generator():
    return SceneGenerator(SMALL).eval()


@pytest.fixture
def rewriter(generator):
    def sample(count):
        with torch.no_grad():
            return generator.ws(scenes.sample(count, 2, torch.Generator().manual_seed(7)))

    return Rewriter(generator.synthesis, sample, images=20, fingerprint=generator.fingerprint)


def block(top, left, size=16, side=6):
    mask = torch.zeros(size, size)
    mask[top : top + side, left : left + side] = 1
    return mask


@pytest.fixture
def request_(rewriter):
    ws = rewriter.sample(5)
    return Request(
        Marked(ws[0], block(2, 2)), Marked(ws[1], block(8, 8)), tuple(Marked(w, block(8, 8)) for w in ws[2:])
    )


def test_the_moment_is_that_of_the_sampled_images_and_taken_once(rewriter, monkeypatch):
    keys = rewriter.synthesis.key(4, rewriter.sample(20))[0].detach()
    expected = Moment(8)
    expected.add(keys)
    assert torch.allclose(rewriter.moment(4).matrix(), expected.matrix(), atol=1e-6)
    monkeypatch.setattr(rewriter, "sample", lambda count: pytest.fail("sampled again"))
    assert rewriter.moment(4).count == 20 * 8 * 8


def test_large_maps_are_seen_a_few_at_a_time(rewriter, monkeypatch):
    expected = rewriter.moment(5).matrix()
    rewriter._moments.clear()
    monkeypatch.setattr(module, "CELLS", 3 * 16 * 16)
    seen = []
    assert torch.allclose(rewriter.moment(5, lambda n, of: seen.append((n, of))).matrix(), expected, atol=1e-6)
    assert seen == [(n, 20) for n in (*range(3, 20, 3), 20)]


def test_who_watches_the_moment_can_give_up(rewriter):
    def stop(seen, images):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rewriter.moment(4, stop)
    assert rewriter.moment(4).count == 20 * 8 * 8


@pytest.mark.parametrize("layer", [3, 4, 5, 6])
def test_the_goal_is_the_layers_own_value_with_the_copy_in_it(rewriter, request_, layer):
    goal = rewriter.goal([request_], layer)
    own = rewriter.synthesis.start(request_.paste.ws.unsqueeze(0), layer + 1)[0]
    copied = rewriter.synthesis.start(request_.copy.ws.unsqueeze(0), layer + 1)[0]
    (box,) = goal.boxes
    outside = torch.ones_like(own, dtype=torch.bool)
    outside[:, :, box.top : box.bottom, box.left : box.right] = False
    assert torch.allclose(goal.target[outside], own[outside], atol=1e-6)
    size = own.shape[-1]
    assert (box.height, box.width) == ((3, 3) if size == 8 else (6, 6))
    source = Box(size // 8, size // 8, size // 8 + box.height, size // 8 + box.width)
    assert torch.allclose(box.of(goal.target), source.of(copied), atol=1e-6)
    # the weight as it is gives the value as it is
    assert torch.allclose(goal.layer.value_of(goal.key, goal.scales), own, atol=1e-6)


@pytest.mark.parametrize("solver", ["lambda", "adam_project", "closed_form"])
def test_an_edit_moves_the_image_towards_the_request(rewriter, request_, generator, solver):
    recipe = Recipe(layer=4, solver=solver, steps=150)
    edit, found = rewriter.edit([request_], recipe, name="test")
    assert found.losses[-1] < found.losses[0]
    assert (edit.layer, edit.name, edit.fingerprint) == (4, "test", generator.fingerprint)
    assert torch.allclose(project(edit.dw, edit.directions), edit.dw, atol=1e-4)
    stack = EditStack(generator.synthesis, generator.fingerprint)
    stack.push(edit)
    before, after = stack.before_and_after(request_.paste.ws.unsqueeze(0))
    assert not torch.allclose(before, after)


def test_a_free_change_fits_at_least_as_well_and_is_no_edit(rewriter, request_):
    edit, free = rewriter.edit([request_], Recipe(layer=4, solver="full_rank", steps=150, lr=0.05))
    assert edit is None
    assert free.losses[-1] < rewriter.edit([request_], Recipe(layer=4, steps=150))[1].losses[-1]


def test_several_requests_make_one_rule(rewriter, request_):
    ws = rewriter.sample(9)
    other = Request(Marked(ws[7], block(2, 2)), Marked(ws[8], block(9, 3)))
    edit, _ = rewriter.edit([request_, other], Recipe(layer=5, rank=2, steps=20))
    assert edit.directions.shape == (2, 8)


def test_directions_differ_with_and_without_whitening(rewriter, request_):
    zca, raw = (rewriter.directions(request_.contexts, Recipe(layer=4, directions=d)) for d in ("zca", "raw"))
    assert (zca @ raw.T).abs() < 0.999


def test_pasting_features_everywhere_gives_the_other_image_from_there_on(rewriter):
    """With the styles of the image, and the whole value of another: the later layers see that one."""
    ws = rewriter.sample(4)
    value = rewriter.synthesis.start(ws.flip(0), 7)[0]  # after the last layer
    pasted = feature_paste(rewriter.synthesis, 6, ws, value, torch.ones(4, 16, 16))
    assert pasted.shape == (4, 3, 16, 16)
    untouched = feature_paste(rewriter.synthesis, 4, ws, torch.zeros(4, 8, 8, 8), torch.zeros(4, 8, 8))
    assert torch.allclose(untouched, rewriter.synthesis(ws), atol=1e-6)


@pytest.mark.parametrize("layer", [1, 7, 40])
def test_layers_that_are_not_there_are_refused(rewriter, request_, layer):
    for act in (rewriter.moment, lambda n: rewriter.goal([request_], n)):
        with pytest.raises(UserError, match=f"layer={layer} cannot be edited"):
            act(layer)


def test_a_rank_above_the_channels_is_refused(rewriter, request_):
    with pytest.raises(UserError, match="rank=9 cannot be"):
        rewriter.edit([request_], Recipe(layer=4, rank=9))


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"rank": 0}, {"ridge": -1}, {"lr": 0}, {"solver": "sgd"}])
def test_recipes_that_cannot_be_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Recipe(**({"layer": 4} | wrong))


@pytest.fixture
def removal(request_):
    return Request(None, request_.paste, request_.context)


def test_a_removal_asks_for_the_value_without_the_units(rewriter, removal):
    recipe = Recipe(layer=5, units=3)
    goal = rewriter.removal([removal], recipe)
    rows, weights = rewriter.rows(removal.contexts, 5)
    units = busiest(rows, weights, rewriter.moment(5), 3)
    key = goal.key.clone()
    key[:, units] = 0
    assert torch.allclose(goal.target, goal.layer.value_of(key, goal.scales))
    assert goal.boxes == (Box(8, 8, 14, 14),)
    assert not torch.allclose(goal.target, goal.layer.value_of(goal.key, goal.scales))


def test_a_second_removal_starts_where_the_first_one_ended(rewriter, removal):
    found = {n: list(rewriter.search([removal], Recipe(layer=6, units=2, steps=30, repeats=n))) for n in (1, 2)}
    assert [len(steps) for steps in found.values()] == [30, 60]
    assert torch.equal(found[1][-1].dw, found[2][29].dw)
    assert len(found[2][-1].losses) == 60
    weight = rewriter.synthesis.layers["6"].weight.detach() + found[1][-1].dw
    again = rewriter.removal([removal], Recipe(layer=6, units=2), weight)
    assert again.loss(again.layer.weight).item() == pytest.approx(found[2][30].losses[30])


def test_more_units_than_channels_are_refused(rewriter, removal):
    with pytest.raises(UserError, match="units=9 are more than the layer's 8"):
        rewriter.edit([removal], Recipe(layer=4, units=9))
