"""Judgements on a generator that is the renderer itself in disguise, where every answer is known."""

from __future__ import annotations

import pytest
import torch

from reprise.data import scenes
from reprise.papers.rewriting import evaluation
from reprise.papers.rewriting.evaluation import bounds, judge, marks, tried
from reprise.papers.rewriting.generator import Plan, SceneGenerator
from reprise.papers.rewriting.scene_requests import RULES


def perfect(name, count=60, size=32):
    """A trial whose generator draws exactly what the renderer does."""
    rule, f = RULES[name], scenes.sample(count, 2, torch.Generator().manual_seed(0))
    x, y = (2 * scenes.render(g, size)[0] - 1 for g in (f, rule.counterfactual(f)))
    return tried(rule, f, torch.zeros(count, 1, 1), x, y)


@pytest.mark.parametrize("name", RULES)
def test_the_counterfactual_is_the_best_answer_and_nothing_the_worst(name):
    asked = perfect(name)
    best, idle = judge(asked, asked.ceiling.images, 2), judge(asked, asked.before.images, 2)
    assert best["edit/success"] > 0.45, "but for mixed pixels on edges"
    assert idle["edit/success"] == idle["edit/image_success"] == 0
    assert best["collateral/unaffected_l1"] < 0.003
    assert idle["collateral/l1_outside"] == idle["collateral/label_flips"] == 0
    assert best["counterfactual/psnr"] > idle["counterfactual/psnr"] + 10
    found = bounds(asked, 2)
    assert found["ceiling/success"] == best["edit/success"]
    assert found["unedited/psnr"] == idle["counterfactual/psnr"]


def test_watermarks_are_counted():
    f = scenes.sample(300, 2, torch.Generator().manual_seed(1))
    _, labels = scenes.render(f, 32)
    assert marks(labels) == pytest.approx(float((f.mark > 0).float().mean()))
    assert marks(torch.zeros(5, 32, 32, dtype=torch.long)) == 0
    asked = perfect("watermark")
    assert judge(asked, asked.ceiling.images, 2)["watermarks_per_1000"] == 0
    assert judge(asked, asked.before.images, 2)["watermarks_per_1000"] > 400


def test_the_oracle_of_the_last_layer_draws_the_counterfactual_where_it_differs():
    """Of the last layer's value everything but the colours of earlier resolutions follows."""
    generator = SceneGenerator(Plan(channels=(6, 8, 6), style=8, hidden=8, object_layers=6, colours_from=4)).eval()
    f = scenes.sample(12, 2, torch.Generator().manual_seed(2))
    asked = evaluation.trial(generator, RULES["dome_to_spire"], f)
    assert asked.before.images.shape == (12, 3, 16, 16)
    found = evaluation.oracle(generator, asked, 5, margin=2)
    assert set(found) == {"oracle/success", "oracle/l1_outside"}
    assert 0 <= found["oracle/success"] <= 1


def test_weights_in_the_place_of_a_layers_own_are_used():
    generator = SceneGenerator(Plan(channels=(6, 8, 6), style=8, hidden=8, colours_from=4)).eval()
    asked = evaluation.trial(generator, RULES["watermark"], scenes.sample(3, 2, torch.Generator().manual_seed(2)))
    net = generator.synthesis
    for layer in (4, 6, 4):  # each after another one's beginning was kept
        own = net.layers[str(layer)].weight.detach()
        for weight in (own, own + 0.5):
            expected = net.finish(net.start(asked.ws), asked.ws, {layer: weight})
            assert torch.equal(evaluation.redrawn(net, asked, layer, weight), expected)
        assert not torch.allclose(expected, asked.before.images)
