"""The scenes' generator trained as a GAN: it sees rendered images, but is never told what is in them.

It is fed factors as its latent, so that every image has nominal ones; nothing ties what it draws to them. What an image
shows is therefore what the segmenter finds in it, never what its factors say. Meant for a GPU.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from reprise.checks import Fraction, NonNegativeFloat, PositiveInt, checked
from reprise.config import fingerprint
from reprise.data import scenes
from reprise.data.base import DataSpec
from reprise.data.scenes import Factors, Label, Scenes
from reprise.errors import UserError
from reprise.papers.rewriting.discriminator import Augmentation, Discriminator
from reprise.papers.rewriting.evaluation import segmented
from reprise.papers.rewriting.game import (
    decay,
    discriminator_loss,
    follow,
    generator_loss,
    gradient_penalty,
    path_lengths,
    path_penalty,
)
from reprise.papers.rewriting.generator import Plan, SceneGenerator
from reprise.papers.rewriting.recipes import SceneRecipe
from reprise.papers.rewriting.training import SceneFit, ScenePool
from reprise.randomness import derived_seed, generator

WEIGHTS, PLAY, JUDGE = 3, 4, 5  # what randomness is for
JUDGED = 300  # images whose labels are compared with as many rendered ones'
ADAPTED = 4  # steps between two settings of the augmentation's probability


class Game:
    """What the generator plays against.

    Args:
        channels: of the discriminator at each resolution from 4x4 on; as many of them count as the images' size needs.
        r1: gamma, weight of the squared gradient of the discriminator at reals, half of which is the penalty.
        r1_every: steps between two times that it is taken, which then counts as often.
        path: weight of the path length penalty, for networks whose styles scale features; 0 = none.
        path_every: steps between two times that it is taken, which then counts as often.
        half_life: images after which half of the averaged weights is forgotten.
        target: of the mean sign of logits on reals, by which the augmentation is adapted.
        adapting: reals over which its probability can go from 0 to 1.
    """

    @checked
    def __init__(
        self,
        channels: list[PositiveInt],
        r1: NonNegativeFloat = 0.1,
        r1_every: PositiveInt = 16,
        path: NonNegativeFloat = 2.0,
        path_every: PositiveInt = 4,
        half_life: PositiveInt = 10_000,
        target: Fraction = 0.6,
        adapting: PositiveInt = 100_000,
    ) -> None:
        self.channels, self.r1, self.r1_every, self.path, self.path_every = channels, r1, r1_every, path, path_every
        self.half_life, self.target, self.adapting = half_life, target, adapting


class GANRecipe(SceneRecipe):
    """How a generator of scenes is made by playing against a discriminator.

    Args:
        game: what is played.
        sizes: all others of `SceneRecipe` but ``consistency`` and ``thin``; ``steps``, ``batch_size`` and ``lr`` are
            both networks'.
    """

    told = False

    @checked
    def __init__(self, game: Game, **sizes: Any) -> None:
        super().__init__(consistency=0.0, thin=1.0, **sizes)
        self.game = game

    @property
    def title(self) -> str:
        """For tables."""
        return f"GAN on rendered scenes, {self.steps} steps{self.network}"

    def plan(self, source: Scenes, run_seed: int) -> Plan:
        """Sizes for a data set.

        Raises:
            UserError: too few channels of either network for its images.
        """
        plan = super().plan(source, run_seed)
        if len(self.game.channels) < len(plan.channels):
            raise UserError(
                f"generator.game.channels has {len(self.game.channels)} resolutions, images of "
                f"{source.spec.shape[-1]} pixels need {len(plan.channels)}: add some."
            )
        return plan

    def key(self, plan: Plan) -> str:
        """Identity of a trained generator: what it is and how it was trained."""
        return fingerprint([plan.identity, self.steps, self.batch_size, self.lr, self.pool, vars(self.game)])

    def training(self, source: Scenes, run_seed: int) -> SceneGAN:
        """What trains it."""
        return SceneGAN(source.spec, run_seed, self)

    def quality(self, model: SceneGenerator, source: Scenes, seed: int) -> dict[str, float]:
        """How alike its images and rendered ones are."""
        return likeness(model, 2 * source.train.x - 1, seed)


class SceneGAN(SceneFit):
    """Adam on both sides of the game, one step of each in turn.

    The generator that is saved and edited is the running average of the one that plays.

    Args:
        spec: the scenes.
        seed: of the run, from which the generator's may follow.
        generator: how it is made.
    """

    title, method = "GAN of scenes", "scenes_gan"
    progress_metrics = ("train/generator", "train/discriminator", "train/augmented")

    @checked
    def __init__(self, spec: DataSpec, seed: int, generator: GANRecipe) -> None:
        super().__init__(spec, seed, generator)
        self.game = generator.game

    def setup(self, stage: str) -> None:
        """Make the networks for the data."""
        super().setup(stage)
        plan = self.model.plan
        self.model.requires_grad_(False)
        self.player = SceneGenerator(plan)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derived_seed(plan.seed, WEIGHTS))
            self.critic = Discriminator(self.game.channels[: len(plan.channels)])
        self.augment = Augmentation(self.game.target, self.game.adapting)
        self.register_buffer("usual_path", torch.zeros(()))

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """Adam without momentum for each side."""
        sides = (self.player.parameters(), self.critic.parameters())
        return [torch.optim.Adam(side, lr=self.recipe.lr, betas=(0.0, 0.99), fused=True) for side in sides]

    def on_fit_start(self) -> None:
        """Put the images on the device."""
        self.images = self.trainer.datamodule.images.to(self.device)

    def training_step(self, number: int) -> None:
        """Some steps."""
        steps = self.steps_of(number)
        if not steps:
            return
        draw = generator(self.model.plan.seed, PLAY, steps.start, device=self.device)
        told: dict[str, list[Tensor]] = {}
        for step in steps:
            for name, value in (self._criticise(step, draw) | self._play(step, draw)).items():
                told.setdefault(name, []).append(value.detach())
            share = decay(self.recipe.batch_size, step * self.recipe.batch_size, self.game.half_life)
            follow(self.model, self.player, share)
        means = {name: float(torch.stack(values).mean()) for name, values in told.items()}
        self.losses.append(means["train/generator"])
        self.log_dict(means | {"train/augmented": float(self.augment.p)}, batch_size=1)

    def _criticise(self, step: int, draw: torch.Generator) -> dict[str, Tensor]:
        """A step of the discriminator."""
        batch, game = self.recipe.batch_size, self.game
        rows = torch.randint(0, len(self.images), (batch,), generator=draw, device=self.device)
        real, lazy = self.images[rows], step % game.r1_every == 0 and game.r1 > 0
        with torch.no_grad():
            fake = self.player(self._factors(draw))
        real_scores = self.critic(self.augment(real.requires_grad_(lazy), draw))
        loss = discriminator_loss(real_scores, self.critic(self.augment(fake, draw)))
        told = {"train/discriminator": loss, "train/sign": real_scores.sign().mean()}
        if lazy:
            told["train/r1"] = gradient_penalty(real_scores, real)
            loss = loss + game.r1 / 2 * game.r1_every * told["train/r1"]
        self._descend(1, loss)
        self.augment.observe(real_scores)
        if (step + 1) % ADAPTED == 0:
            self.augment.adapt()
        return told

    def _play(self, step: int, draw: torch.Generator) -> dict[str, Tensor]:
        """A step of the generator."""
        game = self.game
        ws = self.player.ws(self._factors(draw))
        images = self.player.synthesis(ws)
        self.critic.requires_grad_(False)
        loss = generator_loss(self.critic(self.augment(images, draw)))
        told = {"train/generator": loss}
        if step % game.path_every == 0 and game.path > 0 and self.player.synthesis.modulated:
            lengths = path_lengths(images, ws, draw)
            told["train/path_length"] = lengths.mean()
            loss = loss + game.path * game.path_every * path_penalty(lengths, self.usual_path)
        self._descend(0, loss)
        self.critic.requires_grad_(True)
        return told

    def _descend(self, side: int, loss: Tensor) -> None:
        optimizer = self.optimizers(use_pl_optimizer=False)[side]
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    def _factors(self, draw: torch.Generator) -> Factors:
        return scenes.sample(self.recipe.batch_size, self.player.plan.buildings, draw)

    def final_metrics(self, datamodule: ScenePool) -> dict[str, float]:
        """How alike its images and the renderer's are."""
        self.model.eval()
        self.judged = likeness(self.model, datamodule.images, self.model.plan.seed)
        return self.judged

    def artifacts(self, run_dir: Path) -> list[Path]:
        """Write the generator, and a figure of what it draws."""
        from reprise.papers.rewriting import artifacts

        self.save(run_dir / "generator.safetensors")
        return artifacts.drawn_and_rendered(run_dir, self.model, "Scenes drawn and rendered, which are no pairs")


@torch.no_grad()
def likeness(model: SceneGenerator, images: Tensor, seed: int) -> dict[str, float]:
    """How the segmenter's labels are distributed over a generator's images and over rendered ones.

    Args:
        images: rendered, ``[n, 3, s, s]`` in -1..1; the first are what is compared with, the last are compared, too.
        seed: of the generator's scenes.

    Returns:
        ``generator/apart`` in 0..1, the mean over places of the total variation between labels in its images and in
        rendered ones; ``renderer/apart``, the same of other rendered images, which is what chance gives; and for each
        class ``generator/share/<class>`` and ``renderer/share/<class>`` of all pixels.
    """
    count = min(JUDGED, len(images) // 2)
    factors = scenes.sample(count, model.plan.buildings, generator(seed, JUDGE)).to(model.device)
    drawn = torch.cat([model(factors.rows(slice(i, i + 100))) for i in range(0, count, 100)])
    first, last = images[:count].to(model.device), images[-count:].to(model.device)
    found, real, other = (_by_place(segmented(part)) for part in (drawn, first, last))
    metrics = {"generator/apart": _apart(found, real), "renderer/apart": _apart(other, real)}
    for name, shares in (("generator", found), ("renderer", real)):
        metrics |= {f"{name}/share/{label.name.lower()}": float(shares[..., label].mean()) for label in Label}
    return metrics


def _by_place(labels: Tensor) -> Tensor:
    """Share of each label at each place ``[s, s, labels]``."""
    return torch.nn.functional.one_hot(labels, len(Label)).float().mean(0)


def _apart(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().sum(-1).mean() / 2)
