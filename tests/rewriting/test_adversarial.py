"""The generator as a GAN: both sides move, the average follows, and what was stopped goes on as if it had not been."""

from __future__ import annotations

import copy

import lightning.pytorch as pl
import pytest
import torch
from contract import no_store
from pydantic import ValidationError

from reprise.data import scenes
from reprise.data.scenes import Label
from reprise.errors import UserError
from reprise.papers.rewriting import adversarial, evaluation, game, training
from reprise.papers.rewriting.adversarial import Game, GANRecipe, SceneGAN, likeness
from reprise.papers.rewriting.datamodule import EditData
from reprise.papers.rewriting.evaluation import segmented
from reprise.papers.rewriting.generator import Plan, SceneGenerator
from reprise.papers.rewriting.recipes import SceneRecipe
from reprise.papers.rewriting.scene_requests import RULES, draw_request
from reprise.papers.rewriting.training import ScenePool

SIZES = {
    "channels": [6, 6, 6, 6],
    "style": 8,
    "hidden": 8,
    "object_layers": 4,
    "colours_from": 16,
    "steps": 4,
    "batch_size": 4,
    "lr": 2e-3,
    "pool": 8,
    "seed": 0,
}
GAME = {"channels": [6, 6, 4, 4], "r1_every": 2, "path_every": 2, "half_life": 20, "adapting": 40}


def recipe(game=None, **changes):
    return GANRecipe(**(SIZES | changes), game=Game(**(GAME | (game or {}))))


@pytest.fixture
def source(tmp_path):
    return scenes.load(name="scenes", store=no_store(tmp_path), train=20, test=10)


@pytest.fixture(autouse=True)
def rounds_of_two(monkeypatch):
    monkeypatch.setattr(training, "ROUND", 2)


def trainer(epochs):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    return pl.Trainer(max_epochs=epochs, accelerator="cpu", enable_checkpointing=False, **quiet)


def trained(source, asked, epochs=None):
    module = SceneGAN(source.spec, 0, asked)
    trainer(epochs or module.epochs).fit(module, datamodule=ScenePool(source, 0, asked.pool))
    return module


def changed(module, name, before):
    return [key for key, value in getattr(module, name).state_dict().items() if not torch.equal(value, before[key])]


@pytest.mark.parametrize("architecture", ["stylegan2", "progan"])
def test_two_steps_move_both_sides_and_the_average(source, architecture, monkeypatch):
    begun, begin = {}, SceneGAN.on_fit_start

    def remembered(self):
        begin(self)
        begun.update(copy.deepcopy(self.state_dict()))

    monkeypatch.setattr(SceneGAN, "on_fit_start", remembered)
    module = trained(source, recipe(steps=2, architecture=architecture))
    black = ("synthesis.rgbs.2.", "synthesis.rgbs.4.")  # coarse resolutions add no colours
    for name, network in (("player", module.player), ("critic", module.critic), ("model", module.model)):
        for key, value in network.named_parameters():
            assert torch.equal(value, begun[f"{name}.{key}"]) == key.startswith(black), f"{name}.{key}"
    logged = set(module.trainer.callback_metrics)
    assert {"train/generator", "train/discriminator", "train/sign", "train/r1", "train/augmented"} <= logged
    assert ("train/path_length" in logged) == (architecture == "stylegan2")


def test_the_saved_generator_is_the_average_of_the_playing_one(source, monkeypatch):
    """Weights after each of four steps, averaged by hand."""
    seen = []
    follow = game.follow
    monkeypatch.setattr(
        adversarial,
        "follow",
        lambda average, model, share: (
            seen.append((model.synthesis.layers["3"].weight.detach().clone(), share)) or follow(average, model, share)
        ),
    )
    module = trained(source, recipe())
    shares = [game.decay(4, 4 * step, 20) for step in range(4)]
    assert [share for _, share in seen] == shares
    expected = 0
    for (weight, _), share in zip(seen, shares, strict=True):
        expected = share * expected + (1 - share) * weight
    assert torch.allclose(module.model.synthesis.layers["3"].weight, expected, atol=1e-6)
    assert not torch.equal(module.player.synthesis.layers["3"].weight, expected)


def test_regularisers_are_taken_now_and_then_and_count_as_often(source, monkeypatch):
    taken = {"r1": 0, "path": 0}

    def counted(name, original):
        def call(*args):
            taken[name] += 1
            return original(*args)

        return call

    for name, function in (("r1", "gradient_penalty"), ("path", "path_penalty")):
        monkeypatch.setattr(adversarial, function, counted(name, getattr(game, function)))
    trained(source, recipe({"path_every": 3}))
    assert taken == {"r1": 2, "path": 2}  # at steps 0 and 2, at steps 0 and 3
    trained(source, recipe({"r1": 0.0, "path": 0.0}))
    assert taken == {"r1": 2, "path": 2}


def test_regularisers_weigh_what_they_should(source, monkeypatch):
    """gamma / 2 times the squared gradient, and 2 times the path penalty, each times the steps between two of them."""
    module = trained(source, recipe({"r1": 0.3, "r1_every": 5, "path": 2.0, "path_every": 3}))
    monkeypatch.setattr(adversarial, "path_penalty", lambda lengths, usual: 7 * lengths.sum() / lengths.sum())
    descended = []
    monkeypatch.setattr(module, "_descend", lambda side, loss: descended.append((side, loss.item())))
    draw = torch.Generator().manual_seed(0)
    told = module._criticise(5, draw) | module._play(3, draw)
    told = {name.removeprefix("train/"): value.item() for name, value in told.items()}
    assert descended == [
        (1, pytest.approx(told["discriminator"] + 0.3 / 2 * 5 * told["r1"])),
        (0, pytest.approx(told["generator"] + 2.0 * 3 * 7)),
    ]
    assert told["r1"] > 0


def test_the_discriminator_sees_nothing_that_is_not_augmented(source, monkeypatch):
    """With images painted over on the way: reals, fakes, and those by which the generator learns."""
    module, seen = trained(source, recipe()), []
    judge = module.critic.forward
    monkeypatch.setattr(module.augment, "forward", lambda x, draw: 0 * x + 3)
    monkeypatch.setattr(module.critic, "forward", lambda x: seen.append(bool((x == 3).all())) or judge(x))
    monkeypatch.setattr(module, "_descend", lambda side, loss: None)
    draw = torch.Generator().manual_seed(0)
    module._criticise(1, draw)
    module._play(1, draw)
    assert seen == [True, True, True]


def test_a_sure_discriminator_brings_augmentation(source, monkeypatch):
    """Of four steps of four reals; all are recognised, so p rises by 16 / 40."""
    monkeypatch.setattr(adversarial.Augmentation, "observe", lambda self, scores: self.seen.add_(torch.ones(2) * 4))
    assert trained(source, recipe()).augment.p.item() == pytest.approx(16 / 40)


@pytest.mark.parametrize("architecture", ["stylegan2", "progan"])
def test_a_game_that_was_stopped_goes_on_where_it_was(source, tmp_path, architecture):
    """Two rounds of two steps, with and without a stop between them."""
    asked = recipe(architecture=architecture)
    straight = trained(source, asked)
    assert (straight.epochs, len(straight.losses)) == (2, 2)
    half = trained(source, asked, epochs=1)
    half.trainer.save_checkpoint(tmp_path / "half.ckpt")
    rest, data = SceneGAN(source.spec, 0, asked), ScenePool(source, 0, 8)
    trainer(2).fit(rest, datamodule=data, ckpt_path=tmp_path / "half.ckpt", weights_only=True)
    assert rest.losses == straight.losses
    assert {"usual_path", "augment.p"} <= set(straight.state_dict())
    for name, value in straight.state_dict().items():
        assert torch.equal(rest.state_dict()[name], value), name
    assert any(not torch.equal(half.state_dict()[name], value) for name, value in straight.state_dict().items()), (
        "something happens after the stop"
    )


def test_a_game_is_played_once_and_its_average_kept(source, tmp_path, monkeypatch):
    made = recipe().obtain(source, 0, tmp_path, torch.device("cpu"))
    monkeypatch.setattr(GANRecipe, "_train", lambda *_: pytest.fail("trained again"))
    assert recipe().obtain(source, 0, tmp_path, torch.device("cpu")).fingerprint == made.fingerprint
    (file,) = (tmp_path / "generators").glob("*.safetensors")
    _, about = SceneGenerator.load(file)
    assert about["command"].startswith("python train.py method=scenes_gan ")
    assert 0 <= about["quality"]["generator/apart"] <= 1


def test_another_game_is_another_generator(source):
    plan = recipe().plan(source, 0)
    changes = (recipe(lr=1e-3), recipe({"r1": 1.0}), recipe({"half_life": 30}), recipe({"channels": [6, 6, 6, 6]}))
    fit = SceneRecipe(**SIZES, consistency=0.0, thin=1.0)
    assert len({other.key(plan) for other in (recipe(), *changes, fit)}) == 6
    assert recipe().title == "GAN on rendered scenes, 4 steps"
    assert recipe(architecture="progan").title == "GAN on rendered scenes, 4 steps, network of progan"


def test_what_cannot_be_played_is_refused(source):
    with pytest.raises(UserError, match=r"generator\.game\.channels has 3 resolutions, images of 32 pixels need 4"):
        recipe({"channels": [4, 4, 4]}).plan(source, 0)
    with pytest.raises(UserError, match=r"generator\.channels has 2 resolutions"):
        recipe(channels=[4, 4]).plan(source, 0)
    with pytest.raises(ValidationError, match="target"):
        Game(channels=[4], target=1.5)
    with pytest.raises(ValidationError, match="GANRecipe"):
        SceneGAN(source.spec, 0, SceneRecipe(**SIZES, consistency=0.0, thin=1.0))


def test_rendered_images_are_segmented_without_their_factors():
    f = scenes.sample(100, 2, torch.Generator().manual_seed(0))
    images, labels = scenes.render(f, 32)
    known = (scenes.segment(f, images) == labels).float().mean()
    found = (segmented(2 * images - 1) == labels).float().mean()
    assert found > known - 0.01
    assert found > 0.9


def test_a_generator_is_as_like_as_what_it_draws(monkeypatch):
    """One that draws what the renderer does is as far from it as chance is; one that draws the ground alone is not."""
    model = SceneGenerator(Plan(channels=(4, 4, 4, 4), style=4, hidden=4))
    images = 2 * scenes.render(scenes.sample(400, 2, torch.Generator().manual_seed(0)), 32)[0] - 1
    monkeypatch.setattr(SceneGenerator, "forward", lambda self, f: 2 * scenes.render(f, 32)[0] - 1)
    found = likeness(model, images, 0)
    assert found["generator/apart"] == pytest.approx(found["renderer/apart"], rel=0.3)
    assert sum(found[f"generator/share/{label.name.lower()}"] for label in Label) == pytest.approx(1, abs=1e-5)
    ground = torch.tensor(scenes.COLOURS[Label.GROUND]).view(1, 3, 1, 1).expand(1, 3, 32, 32) * 0.88
    monkeypatch.setattr(SceneGenerator, "forward", lambda self, f: (2 * ground - 1).expand(len(f), -1, -1, -1))
    found = likeness(model, images, 0)
    assert found["generator/share/ground"] == 1
    assert found["generator/apart"] == pytest.approx(1 - found["renderer/share/ground"], abs=1e-5)


def test_a_gan_is_edited_by_what_a_segmenter_finds_in_its_images(source, monkeypatch):
    """With the renderer in the generator's place, requests and judgement are nearly those of one that was told."""
    monkeypatch.setattr(evaluation, "drawn", lambda model, ws, weights=None: 2 * scenes.render(ws, 32)[0] - 1)
    monkeypatch.setattr(SceneGenerator, "ws", lambda self, f: f)
    rule, f = RULES["dome_to_spire"], source.held
    model = SceneGenerator(Plan(channels=(4, 4, 4, 4), style=4, hidden=4))
    asked = evaluation.trial(model, rule, f, told=False)
    labels = scenes.render(f, 32)[1]
    assert asked.ceiling is asked.truth is None
    assert (asked.there == (labels == Label.DOME)).float().mean() > 0.98
    after = 2 * scenes.render(rule.counterfactual(f), 32)[0] - 1
    found, idle = (evaluation.judge(asked, images, 2) for images in (after, asked.before.images))
    assert found["edit/success"] > 0.4 > idle["edit/success"] == 0
    assert "counterfactual/psnr" not in found
    assert evaluation.bounds(asked, 2) == {}


def test_requests_on_a_gans_images_mark_what_they_show():
    """It draws all scenes mirrored: masks follow the images, not the factors."""
    look = lambda f: scenes.render(f, 32)[1].flip(2)  # noqa: E731 - a stand-in
    request = draw_request(RULES["dome_to_spire"], 2, 32, 4, torch.Generator().manual_seed(0), look)
    for marked, label in ((request.copy, Label.SPIRE), (request.paste, Label.DOME), (request.context[0], Label.DOME)):
        assert (look(marked.factors)[0][marked.mask > 0] == label).all()


def test_what_a_gans_images_do_not_tell_is_not_asked(source):
    with pytest.raises(UserError, match="a GAN's show what they like"):
        EditData(source, 0, recipe(), "reflection", requests=1, contexts=1, moments=5)
