"""The renderer: what is drawn follows from the factors and from nothing else."""

from __future__ import annotations

import pytest
import torch
from contract import check_contract, no_store, sentence

from reprise.data import scenes
from reprise.data.scenes import Label, Roof
from reprise.errors import UserError


def draw(count=64, buildings=2, seed=0):
    return scenes.sample(count, buildings, torch.Generator().manual_seed(seed))


def test_images_and_labels_have_their_shapes_and_ranges():
    for size, buildings in ((32, 2), (64, 3)):
        x, labels = scenes.render(draw(8, buildings), size)
        assert x.shape == (8, 3, size, size)
        assert labels.shape == (8, size, size)
        assert x.min() >= 0
        assert x.max() <= 1


def test_the_same_factors_give_the_same_scene():
    f = draw()
    once, again = scenes.render(f, 32), scenes.render(draw(), 32)
    assert torch.equal(once[0], again[0])
    alone = scenes.render(f.rows(slice(3, 4)), 32)
    assert torch.equal(once[0][3:4], alone[0])
    assert torch.equal(once[1][3:4], alone[1])


def test_everything_appears():
    _, labels = scenes.render(draw(256), 32)
    assert labels.unique().tolist() == list(range(len(Label)))


def test_another_roof_changes_nothing_but_the_roof():
    f = draw(200)
    _, before = scenes.render(f, 32)
    _, after = scenes.render(f.but(roof=torch.where(f.roof == Roof.DOME, Roof.SPIRE, f.roof)), 32)
    assert not (after == Label.DOME).any()
    changed = before != after
    assert set(before[changed].unique().tolist()) <= {Label.DOME, Label.SKY, Label.SPIRE}
    has_dome = (f.roof == Roof.DOME).any(1)
    assert not changed[~has_dome].any()
    assert (before[has_dome] == Label.DOME).flatten(1).any(1).float().mean() > 0.95, "nothing hides most domes"


def test_counterfactual_trees_grow_on_buildings():
    f = draw(50)
    _, labels = scenes.render(f.but(roof=torch.full_like(f.roof, Roof.TREE), tree=torch.zeros_like(f.tree)), 32)
    assert (labels == Label.TREE).flatten(1).any(1).all()


def test_the_watermark_is_where_it_should_be():
    f = draw(60)
    _, labels = scenes.render(f, 64)
    marked = (labels == Label.WATERMARK).float()
    rows = torch.arange(64).view(1, 64, 1)
    assert not marked[f.mark == 0].any()
    for place, upper in enumerate(scenes.MARK_TOP, start=1):
        there = marked[f.mark == place]
        assert there.flatten(1).any(1).all()
        places = (there * rows).sum((1, 2)) / there.sum((1, 2)) / 64
        assert ((places > upper) & (places < upper + scenes.MARK[1])).all()


def test_lit_windows_shine_on_the_ground_and_the_rule_can_be_inverted():
    f = draw(200)
    f = f.but(mark=torch.zeros_like(f.mark))

    def seen(factors, label):
        return (scenes.render(factors, 32)[1] == label).flatten(1).any(1)

    shines = seen(f, Label.REFLECTION)
    assert torch.equal(shines, f.lit.any(1))
    inverted = seen(f.but(mirrored=torch.zeros_like(f.mirrored)), Label.REFLECTION)
    assert torch.equal(inverted, (f.windows & ~f.lit).any(1))


def test_a_building_without_windows_is_dark():
    f = draw(500)
    assert not (f.lit & ~f.windows).any()
    assert not ((scenes.render(f.but(windows=f.windows & False, lit=f.lit & False), 32)[1]) == Label.WINDOW).any()


def test_latents_tell_the_factors_and_are_balanced():
    f = draw(20_000)
    whole, objects = scenes.latents(f)
    assert whole.shape == (20_000, 3)
    for z in (whole, objects):
        assert z.mean(0).abs().max() < 0.35, "kinds that are drawn more or less often than others"
    continuous = torch.cat([whole, objects[:, :10]], 1)
    assert (continuous.mean(0).abs() < 0.03).all()
    assert ((continuous.std(0) - 1).abs() < 0.03).all()
    roof = objects[:, 10:16].view(-1, 2, 3)
    assert torch.equal(roof.argmax(2), f.roof)


def test_scenes_differ_in_every_factor():
    f = draw(40)
    changed = {
        **{name: -getattr(f, name) for name in ("sky", "light", "ground", "tint", "centre", "width", "height")},
        "tree": ~f.tree,
        "mark": (f.mark + 1) % 3,
        "roof": (f.roof + 1) % 3,
    }
    x, _ = scenes.render(f, 32)
    for name, value in changed.items():
        assert (scenes.render(f.but(**{name: value}), 32)[0] - x).abs().flatten(1).max(1).values.min() > 0.001, name


def test_the_renderers_own_images_are_segmented_but_for_their_edges():
    f = draw(200)
    x, labels = scenes.render(f, 64)
    found = scenes.segment(f, x)
    inner = torch.nn.functional.max_pool2d(labels.float().unsqueeze(1), 3, 1, 1).squeeze(1) == labels
    inner &= -torch.nn.functional.max_pool2d(-labels.float().unsqueeze(1), 3, 1, 1).squeeze(1) == labels
    assert (found == labels)[inner].float().mean() > 0.995
    for label in Label:
        there = labels == label
        assert (found == labels)[there].float().mean() > 0.5, label


def test_a_flat_image_of_one_colour_is_that_class():
    f = draw(3)
    for label in (Label.DOME, Label.SPIRE, Label.TREE):
        image = scenes._paint(f, torch.full((3, 8, 8), int(label)))
        assert (scenes.segment(f, image) == label).all()


def test_the_data_set_keeps_the_contract_and_the_content(tmp_path):
    source = scenes.load(name="scenes", store=no_store(tmp_path), train=30, test=20)
    check_contract(source)
    assert source.buildings == 2
    assert torch.allclose(scenes.render(source.held, 32)[0], source.test.x)
    assert torch.equal(source.train.y, source.factors.roof[:, 0])
    again, other = (scenes.load(name="scenes", store=no_store(tmp_path), train=30, test=20, seed=s) for s in (0, 1))
    assert torch.equal(again.train.x, source.train.x)
    assert not torch.equal(other.train.x, source.train.x)
    assert not torch.equal(source.train.x[:20], source.test.x)


@pytest.mark.parametrize("wrong", [{"size": 48}, {"buildings": 5}])
def test_scenes_that_cannot_be_drawn_are_refused(tmp_path, wrong):
    with pytest.raises(UserError) as error:
        scenes.load(name="scenes", store=no_store(tmp_path), **wrong)
    sentence(error, f"dataset.{next(iter(wrong))}=")
