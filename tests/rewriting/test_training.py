"""The generator of scenes: what it is fitted to, and that one at hand is not trained again."""

from __future__ import annotations

import logging
import math

import harness
import lightning.pytorch as pl
import pytest
import torch

from reprise import building
from reprise.config import resolved
from reprise.data import scenes
from reprise.data.scenes import Label
from reprise.data.store import FileStore
from reprise.errors import UserError
from reprise.papers.rewriting import recipes, training
from reprise.papers.rewriting.generator import Plan, SceneGenerator
from reprise.papers.rewriting.recipes import SHIPPED, SceneRecipe
from reprise.randomness import generator

SIZES = {
    "channels": [6, 6, 6, 6],
    "style": 8,
    "hidden": 8,
    "object_layers": 4,
    "colours_from": 16,
    "steps": 3,
    "batch_size": 4,
    "lr": 1e-3,
    "consistency": 0.5,
    "thin": 4.0,
    "pool": 8,
    "seed": 0,
}
CPU = torch.device("cpu")


def recipe(**changes):
    return SceneRecipe(**(SIZES | changes))


@pytest.fixture
def source(tmp_path):
    return scenes.load(name="scenes", store=FileStore(tmp_path, download=False), train=20, test=10)


def test_rare_labels_weigh_more():
    labels = torch.zeros(1, 10, 10, dtype=torch.long)
    labels[0, 0, :4] = 3
    labels[0, 5, 5] = 5
    weights = training.label_weights(labels, thin=4.0)
    assert weights.shape == (len(Label),)
    assert weights[0] == 1
    assert weights[3] == pytest.approx((95 / 4) ** 0.6)
    assert weights[5] == 12, "at most"


def test_dark_windows_weigh_more_by_a_factor_beyond_the_cap_too():
    labels = torch.zeros(1, 10, 10, dtype=torch.uint8)
    labels[0, 0, 0] = Label.WINDOW
    plain, more = (training.label_weights(labels, thin) for thin in (1.0, 4.0))
    assert plain[Label.WINDOW] == 12
    assert more[Label.WINDOW] == 48
    assert torch.equal(more.index_fill(0, torch.tensor(Label.WINDOW), 12), plain)


def test_the_loss_is_the_weighted_l1_distance(source):
    """That of the first step by hand, from the same weights and scenes."""
    asked = recipe(steps=1, consistency=0.0)
    data, fit = training.ScenePool(source, 0, 8), training.SceneFit(source.spec, 0, asked)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    pl.Trainer(max_epochs=1, accelerator="cpu", enable_checkpointing=False, **quiet).fit(fit, datamodule=data)
    rows = torch.randint(0, 8, (4,), generator=generator(0, training.CHECK, 0))
    with torch.no_grad():
        apart = SceneGenerator(asked.plan(source, 0))(data.factors.rows(rows)) - data.images[rows]
    weights = training.label_weights(data.labels, asked.thin)[data.labels[rows].long()].unsqueeze(1)
    assert fit.losses == [pytest.approx(float(2 * (apart.abs() * weights).mean()))]


def test_dependence_on_place_is_nothing_where_features_follow_the_building(monkeypatch):
    """A network that paints a building's number into its room has none; one that paints the room's number has all."""
    model = SceneGenerator(Plan(channels=(4, 4, 4), style=4, hidden=4, object_layers=4, colours_from=8))
    f = scenes.sample(6, 2, torch.Generator().manual_seed(0))

    def painted(values):
        """``[n, 2]`` to features ``[n, 1, 8, 8]``, each over its room."""
        return values.repeat_interleave(4, 1)[:, None, None].expand(-1, 1, 8, -1)

    seen = []
    monkeypatch.setattr(model, "ws", lambda factors: factors)
    monkeypatch.setattr(model.synthesis, "start", lambda ws, layer: (painted(seen[0](ws)), None, layer))
    seen.append(lambda ws: ws.centre)
    assert training.dependence_on_place(model, f) == 0
    seen[0] = lambda ws: torch.tensor([[1.0, -1.0]]).expand(len(ws), -1)
    # here the second room, -1; there the first one, +1: 4 over 1 + 1
    assert training.dependence_on_place(model, f).item() == pytest.approx(2.0)


def test_buildings_move_by_one_room():
    f = scenes.sample(40, 2, torch.Generator().manual_seed(1))
    f = f.but(mark=torch.zeros_like(f.mark), tree=torch.zeros_like(f.tree))
    (here, labels), (there, moved) = (scenes.render(g, 32) for g in (f, f.rolled()))
    assert torch.equal(labels[:, :, 16:], moved[:, :, :16])
    assert torch.allclose(here[:, :, :, 16:], there[:, :, :, :16], atol=1e-6)
    assert torch.equal(f.rolled().rolled().roof, f.roof)


def test_a_generator_is_trained_once_and_kept(source, tmp_path, monkeypatch):
    first = recipe().obtain(source, 0, tmp_path, CPU)
    monkeypatch.setattr(SceneRecipe, "_train", lambda *_: pytest.fail("trained again"))
    again = recipe().obtain(source, 5, tmp_path, CPU)
    assert again.fingerprint == first.fingerprint
    (file,) = (tmp_path / "generators").glob("*.safetensors")
    _, about = SceneGenerator.load(file)
    assert about["command"] == "python train.py method=scenes_generator dataset.size=32 generator.seed=0"
    assert 0 <= about["quality"]["generator/recall/sky"] <= 1
    assert not list((tmp_path / "generators").glob("*.ckpt"))


@pytest.mark.parametrize(
    "change", [{"steps": 4}, {"seed": 1}, {"lr": 2e-3}, {"consistency": 0.0}, {"thin": 1.0}, {"pool": 9}]
)
def test_another_recipe_is_another_generator(source, tmp_path, change):
    first, other = (recipe(**part).obtain(source, 0, tmp_path, CPU) for part in ({}, change))
    assert first.fingerprint != other.fingerprint


def test_runs_are_spread_over_generators_where_no_seed_is_given(source):
    assert [recipe(seed=None, seeds=3).plan(source, s).seed for s in range(5)] == [0, 1, 2, 0, 1]
    assert recipe(seed=7).plan(source, 3).seed == 7


def test_a_damaged_file_is_made_anew_with_a_warning(source, tmp_path, caplog):
    first = recipe().obtain(source, 0, tmp_path, CPU)
    (file,) = (tmp_path / "generators").glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:500])
    with caplog.at_level(logging.WARNING, "reprise"):
        again = recipe().obtain(source, 0, tmp_path, CPU)
    assert again.fingerprint == first.fingerprint
    assert "is no generator of scenes" in caplog.text
    assert "made anew" in caplog.text


def test_retraining_gives_the_same_generator(source, tmp_path):
    first = recipe().obtain(source, 0, tmp_path, CPU)
    assert recipe(retrain=True).obtain(source, 0, tmp_path, CPU).fingerprint == first.fingerprint


def test_a_shipped_generator_is_used_where_its_recipe_is_asked_for(source, tmp_path, monkeypatch):
    made = recipe().obtain(source, 0, tmp_path / "a", CPU)
    (file,) = (tmp_path / "a/generators").glob("*.safetensors")
    (tmp_path / "assets").mkdir()
    file.rename(tmp_path / "assets/scenes_32.safetensors")
    monkeypatch.setattr(recipes, "SHIPPED", tmp_path / "assets")
    assert recipe().obtain(source, 0, tmp_path / "b", CPU).fingerprint == made.fingerprint
    assert not (tmp_path / "b").exists()
    recipe(steps=4).obtain(source, 0, tmp_path / "b", CPU)
    assert (tmp_path / "b/generators").exists(), "another recipe is not what is shipped"


def test_the_other_network_is_trained_the_same_way(source, tmp_path):
    asked = recipe(architecture="progan")
    made = asked.obtain(source, 0, tmp_path, CPU)
    assert made.plan.architecture == "progan"
    (file,) = (tmp_path / "generators").glob("*.safetensors")
    assert SceneGenerator.load(file)[1]["command"].endswith(" generator.seed=0 generator.architecture=progan")
    assert asked.title.endswith(", network of progan")
    assert recipe().obtain(source, 0, tmp_path, CPU).fingerprint != made.fingerprint


def test_too_few_channels_are_refused(source, tmp_path):
    with pytest.raises(UserError, match=r"generator\.channels has 2 resolutions, images of 32 pixels need 4"):
        recipe(channels=[4, 4]).obtain(source, 0, tmp_path, CPU)


def test_training_falls_and_goes_on_where_it_was_stopped(source, tmp_path):
    """Two epochs straight, and with a stop between them, give the same weights."""

    def trainer(epochs, **options):
        quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
        return pl.Trainer(max_epochs=epochs, accelerator="cpu", enable_checkpointing=False, **quiet, **options)

    asked = recipe(steps=150, channels=[8, 8, 8, 8])
    data = training.ScenePool(source, 0, 40)
    straight = training.SceneFit(source.spec, 0, asked)
    assert (straight.epochs, straight.steps_per_epoch) == (3, 1)
    trainer(3).fit(straight, datamodule=data)
    assert straight.losses[-1] < straight.losses[0]
    half = training.SceneFit(source.spec, 0, asked)
    stopped = trainer(2)
    stopped.fit(half, datamodule=data)
    stopped.save_checkpoint(tmp_path / "half.ckpt")
    rest = training.SceneFit(source.spec, 0, asked)
    trainer(3).fit(rest, datamodule=data, ckpt_path=tmp_path / "half.ckpt", weights_only=True)
    assert rest.losses == straight.losses
    for one, other in zip(rest.parameters(), straight.parameters(), strict=True):
        assert torch.equal(one, other)


def test_the_shipped_generator_is_the_one_that_is_asked_for():
    """Otherwise everyone would train one before their first edit."""
    config = resolved(harness.compose("method=rewriting"))
    data = building.datamodule(config, building.source(config))
    _, about = SceneGenerator.load(SHIPPED / "scenes_32.safetensors")
    assert about["recipe"] == data.recipe.key(data.recipe.plan(data.source, data.seed))
    assert about["quality"]["generator/shortfall"] < 0.05, "no class is drawn much worse than it could be told"


def test_quality_names_every_class():
    model = SceneGenerator(Plan(channels=(4, 4, 4, 4), style=4, hidden=4))
    found = training.quality(model, 20, 0)
    for label in Label:
        assert f"generator/recall/{label.name.lower()}" in found
    assert found["renderer/recall/sky"] > 0.99
    assert found["renderer/recall/dome"] > 0.7
    below = [found[f"renderer/recall/{x.name.lower()}"] - found[f"generator/recall/{x.name.lower()}"] for x in Label]
    assert found["generator/shortfall"] == pytest.approx(max(below), abs=1e-6)
    one = training.quality(model, 1, 0)
    assert all(map(math.isfinite, one.values()))
    assert len(one) < len(found), "one scene does not show everything, and of what it does not nothing is said"


def test_a_data_set_without_scenes_is_refused(train):
    for method in ("rewriting", "scenes_generator"):
        sentence = train(f"method={method}", "dataset=digits", *harness.ALWAYS).sentence()
        assert "dataset=digits has no scenes" in sentence
        assert "dataset=scenes" in sentence
