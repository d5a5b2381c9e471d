from __future__ import annotations

import pytest
import torch

from reprise.data import scenes
from reprise.data.scenes import Label, Roof
from reprise.errors import UserError
from reprise.papers.rewriting.scene_requests import RULES, draw_request, largest_piece, rule_of


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("name", [name for name, rule in RULES.items() if not rule.both])
@pytest.mark.parametrize("size", [32, 64])
def test_masks_mark_what_they_should(name, size):
    rule = RULES[name]
    request = draw_request(rule, 2, size, contexts=5, generator=seeded())

    def labels(marked):
        return scenes.render(marked.factors, size)[1][0]

    assert len(request.context) == 5
    for marked in request.context:
        assert marked.mask.sum() >= 6
        assert (labels(marked)[marked.mask > 0] == rule.source).all()
    there = request.paste.mask > 0
    then = scenes.render(rule.counterfactual(request.paste.factors), size)[1][0]
    assert there.any()
    if rule.covered:
        changes = (labels(request.paste) != then).nonzero()
        grown = [changes.amin(0) - size // 16, changes.amax(0) + size // 16]
        box = torch.stack([there.nonzero().amin(0), there.nonzero().amax(0)])
        assert torch.equal(box, torch.stack(grown).clamp(0, size - 1)), "a box around what changes"
    else:
        assert (labels(request.paste) != then)[there].all(), "it marks what changes"
    assert (labels(request.paste)[there] == rule.source).any()
    if rule.covered:
        assert torch.equal(request.copy.mask, request.paste.mask)
        assert not (labels(request.copy) == rule.source).any(), "what is copied shows what is behind"
    elif rule.copied is None:
        assert request.copy is None
    else:
        assert (labels(request.copy)[request.copy.mask > 0] == rule.copied).all()


@pytest.mark.parametrize("seed", range(6))
def test_where_a_rule_goes_both_ways_a_scene_and_its_donor_change_places(seed):
    request = draw_request(RULES["reflection"], 2, 32, contexts=5, generator=seeded(seed))
    (copied, pasted), mask = ((p.factors for p in (request.copy, request.paste)), request.paste.mask > 0)
    assert torch.equal(request.copy.mask, request.paste.mask)
    assert request.context == ()
    assert torch.equal(copied.lit, pasted.windows & ~pasted.lit)
    shown, wanted = (scenes.render(f, 32)[1][0] for f in (pasted, pasted.but(mirrored=~pasted.mirrored)))
    assert torch.equal(mask, shown != wanted)
    assert (scenes.render(copied, 32)[1][0][mask] == wanted[mask]).all(), "the donor shows what is wanted"


def test_both_turns_are_drawn():
    lit = set()
    for seed in range(4):
        paste = draw_request(RULES["reflection"], 2, 32, contexts=5, generator=seeded(seed)).paste
        scene = scenes.render(paste.factors, 32)[1][0]
        lit |= set(scene[paste.mask > 0].tolist())
    assert lit == {Label.GROUND, Label.REFLECTION}


def test_all_of_the_context_is_marked_and_one_piece_is_copied():
    request = draw_request(RULES["dome_to_spire"], 2, 32, 8, seeded(3))
    for marked in request.context:
        assert marked.mask.sum() == (scenes.render(marked.factors, 32)[1][0] == Label.DOME).sum()
    for marked in (request.copy, request.paste):
        assert torch.equal(largest_piece(marked.mask > 0), marked.mask > 0)


def test_requests_follow_the_seed_and_scenes_are_not_used_twice():
    one, same, other = (draw_request(RULES["flat_to_dome"], 2, 32, 4, seeded(s)) for s in (1, 1, 2))
    assert torch.equal(one.copy.mask, same.copy.mask)
    assert not torch.equal(one.copy.factors.sky, other.copy.factors.sky)
    skies = [marked.factors.sky.item() for marked in (one.copy, one.paste, *one.context)]
    assert len(set(skies)) == 6


def test_counterfactuals_change_the_rule_everywhere_and_nothing_else():
    f = scenes.sample(200, 2, seeded())
    for rule in (rule for rule in RULES.values() if not rule.both):
        _, before = scenes.render(f, 32)
        _, after = scenes.render(rule.counterfactual(f), 32)
        assert not (after == rule.source).any(), rule.name
        without = ~(before == rule.source).flatten(1).any(1)
        hidden = without & (before != after).flatten(1).any(1)  # an object all of which lies behind another
        assert hidden.float().mean() < 0.02, rule.name


def test_reflections_and_ground_change_places_below_windows_alone():
    f = scenes.sample(200, 2, seeded())
    before, after = (scenes.render(g, 32)[1] for g in (f, RULES["reflection"].counterfactual(f)))
    changed = before != after
    assert set(before[changed].tolist()) == set(after[changed].tolist()) == {Label.GROUND, Label.REFLECTION}
    assert not changed[~f.windows.any(1)].any()
    assert not (after == Label.REFLECTION)[(f.lit == f.windows).all(1)].any()


def test_lit_windows_stay_when_dark_ones_go():
    f = scenes.sample(200, 2, seeded())
    rule = RULES["windows"]
    lit = [(scenes.render(g, 32)[1] == Label.LIT_WINDOW).sum() for g in (f, rule.counterfactual(f))]
    assert lit[0] == lit[1] > 0


def test_pieces_are_connected():
    mask = torch.tensor([[1, 1, 0, 0], [0, 0, 0, 1], [1, 0, 0, 1], [0, 0, 0, 1]], dtype=torch.bool)
    assert largest_piece(mask).nonzero().tolist() == [[1, 3], [2, 3], [3, 3]]
    assert not largest_piece(torch.zeros(3, 3, dtype=torch.bool)).any()


def test_unknown_rules_and_too_many_contexts_are_refused():
    with pytest.raises(UserError, match="dome_to_spire"):
        rule_of("dome_to_moon")
    with pytest.raises(UserError, match="contexts=4000 are more than"):
        draw_request(RULES["dome_to_spire"], 2, 32, 4000, seeded())
    assert rule_of("windows").title == "windows removed"
    assert Roof.TREE not in scenes.sample(500, 2, seeded()).roof
