"""Fitting the scenes' generator to the renderer: a regression, not a game, and labelled so wherever it is used."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from reprise.callbacks import steps_loader
from reprise.checks import PositiveInt, checked
from reprise.data import scenes
from reprise.data.base import DataSpec, Source
from reprise.data.scenes import Factors, Label, Scenes
from reprise.errors import UserError
from reprise.papers.rewriting.generator import SceneGenerator
from reprise.papers.rewriting.metrics import recall
from reprise.papers.rewriting.recipes import ROUND, SceneRecipe
from reprise.randomness import generator
from reprise.schedules import cosine

POOL, CHECK = 1, 2  # what randomness is for
RARE = 0.6  # power of how rare a label is; windows are small and few, and blur first
FIT = 2.0  # weight of the distance to the rendered image, beside that of generator.consistency


class ScenePool(pl.LightningDataModule):
    """Scenes drawn and rendered once, on the device as one tensor.

    Args:
        source: scenes of the same kind.
        seed: of the run; decides nothing here.
        count: scenes.
        pool_seed: of their factors.

    Raises:
        UserError: the data set has no scenes.
    """

    @checked
    def __init__(self, source: Source, seed: int, count: PositiveInt, pool_seed: int = 0) -> None:
        super().__init__()
        self.source = scenes_of(source)
        self.spec, size = source.spec, source.spec.shape[-1]
        self.factors = scenes.sample(count, self.source.buildings, generator(pool_seed, POOL))
        parts = [scenes.render(self.factors.rows(slice(i, i + 500)), size) for i in range(0, count, 500)]
        images, labels = (torch.cat(part) for part in zip(*parts, strict=True))
        self.images = 2 * images - 1
        self.labels = labels.byte()
        self.protocol = {"scenes": count, "size": size, "buildings": self.source.buildings}

    def train_dataloader(self) -> DataLoader:
        """Numbers of rounds."""
        return steps_loader(self.trainer.lightning_module.steps_per_epoch)


def scenes_of(source: Source) -> Scenes:
    """The data set as scenes.

    Raises:
        UserError: it has none.
    """
    if not isinstance(source, Scenes):
        raise UserError(
            f"dataset={source.spec.name} has no scenes whose content is known, which is what this method's edits are "
            "judged by: use dataset=scenes."
        )
    return source


def label_weights(labels: Tensor, thin: float) -> Tensor:
    """Weights of pixels by label ``[labels]``: the rarer the higher, up to twelve times the commonest before ``thin``.

    Args:
        labels: ``[n, s, s]``.
        thin: factor on that of dark windows.
    """
    share = torch.bincount(labels.flatten(), minlength=len(Label)).float() / labels.numel()
    weight = (share.max() / share.clamp_min(1e-6)).pow(RARE).clamp_max(12.0)
    weight[Label.WINDOW] *= thin
    return weight


class SceneFit(pl.LightningModule):
    """Adam on the weighted l1 distance to the rendered images; a squared one would blur what is thin.

    Args:
        spec: the scenes.
        seed: of the run, from which the generator's may follow.
        generator: how it is made.
    """

    tasks, kinds, single_device = ("classification",), ("image",), True
    title, method = "generator of scenes", "scenes_generator"
    progress_metrics: Sequence[str] = ("train/loss", "train/dependence_on_place")

    @checked
    def __init__(self, spec: DataSpec, seed: int, generator: SceneRecipe) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.spec, self.seed, self.recipe = spec, seed, generator
        rounds = math.ceil(generator.steps / ROUND)
        self.epochs = min(10, rounds)  # one checkpoint each
        self.steps_per_epoch = math.ceil(rounds / self.epochs)
        self.losses: list[float] = []

    @property
    def condition(self) -> dict[str, Any]:
        """Beside the data, what must be equal for two runs to be compared."""
        return {"generator": self.recipe.title}

    def setup(self, stage: str) -> None:
        """Make the network for the data."""
        self.model = SceneGenerator(self.recipe.plan(self.trainer.datamodule.source, self.seed))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam."""
        return torch.optim.Adam(self.model.parameters(), lr=self.recipe.lr, betas=(0.9, 0.99), fused=True)

    def on_fit_start(self) -> None:
        """Put the images on the device, with what they show and how much it counts."""
        data: ScenePool = self.trainer.datamodule
        self.factors = data.factors.to(self.device)
        self.images, self.labels = data.images.to(self.device), data.labels.to(self.device)
        self.weights = label_weights(data.labels, self.recipe.thin).to(self.device)

    def steps_of(self, number: int) -> range:
        """The steps of a round of this epoch; none once all are done."""
        first = (self.current_epoch * self.steps_per_epoch + number) * ROUND
        return range(first, min(first + ROUND, self.recipe.steps))

    def training_step(self, number: int) -> None:
        """Some steps."""
        steps = self.steps_of(number)
        if not steps:
            return
        optimizer = self.optimizers(use_pl_optimizer=False)
        draw = generator(self.model.plan.seed, CHECK, steps.start)
        total = torch.zeros(2, device=self.device)
        for step in steps:
            rise = min(1.0, (step + 1) / 100)
            optimizer.param_groups[0]["lr"] = self.recipe.lr * rise * cosine(step, self.recipe.steps)
            rows = torch.randint(0, len(self.images), (self.recipe.batch_size,), generator=draw).to(self.device)
            factors = self.factors.rows(rows)
            apart = self.model(factors) - self.images[rows]
            weights = self.weights[self.labels[rows].long()].unsqueeze(1)
            fit = FIT * (apart.abs() * weights).mean()
            moved = dependence_on_place(self.model, factors) if self.recipe.consistency else fit.new_zeros(())
            optimizer.zero_grad(set_to_none=True)
            (fit + self.recipe.consistency * moved).backward()
            optimizer.step()
            total += torch.stack([fit, moved]).detach()
        means = (total / len(steps)).tolist()
        self.losses.append(means[0])
        self.log_dict(dict(zip(self.progress_metrics, means, strict=True)), batch_size=1)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Also keep the losses so far."""
        checkpoint["losses"] = self.losses

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take them up again."""
        self.losses = list(checkpoint["losses"])

    def final_metrics(self, datamodule: pl.LightningDataModule) -> dict[str, float]:
        """How well it draws."""
        self.model.eval()
        self.judged = self.recipe.quality(self.model, datamodule.source, self.model.plan.seed)
        return self.judged

    def artifacts(self, run_dir: Path) -> list[Path]:
        """Write the generator, and a figure of what it draws."""
        from reprise.papers.rewriting import artifacts

        self.save(run_dir / "generator.safetensors")
        if len(self.losses) == math.ceil(self.recipe.steps / ROUND):  # not where the trainer cut it short
            self.recipe.keep(self.model, self.trainer.datamodule.cache_dir, self.save)
        return artifacts.drawn_and_rendered(run_dir, self.model)

    def save(self, path: Path) -> Path:
        """Write the generator with how it was made."""
        return self.model.cpu().save(path, self.about())

    def about(self) -> dict[str, Any]:
        """How it was made: the recipe's key, the command, the losses of every fifth round, and how well it draws."""
        plan = self.model.plan
        command = f"python train.py method={self.method} dataset.size={self.model.size} generator.seed={plan.seed}"
        if plan.architecture != "stylegan2":
            command += f" generator.architecture={plan.architecture}"
        log = [round(loss, 4) for loss in self.losses[4::5]]
        return {"recipe": self.recipe.key(plan), "command": command, "train/loss": log, "quality": self.judged}


def dependence_on_place(model: SceneGenerator, factors: Factors) -> Tensor:
    """How much the last features that are told of objects differ between a building here and one room further.

    Mean squared difference of its inner columns against their mean square, scenes without a watermark, which does not
    move along; trees stand between the rooms.
    """
    plain = factors.but(mark=torch.zeros_like(factors.mark))
    layer = model.plan.object_layers
    here, there = (model.synthesis.start(model.ws(f), layer + 1)[0] for f in (plain, plain.rolled()))
    room = here.shape[-1] // model.plan.buildings
    here, there = (x.unflatten(-1, (-1, room))[..., room // 4 : room - room // 4] for x in (here, there))
    here, there = here[..., 1:, :], there[..., :-1, :]
    return (here - there).square().mean() / (here.square().mean() + there.square().mean()).detach()


@torch.no_grad()
def quality(model: SceneGenerator, count: int, seed: int) -> dict[str, float]:
    """How the generator draws scenes that it was not fitted to, beside the renderer's own images.

    Returns:
        ``generator/mae`` on 0..1; for each class that is there ``generator/recall/<class>`` and
        ``renderer/recall/<class>``: the share of its true pixels that the segmenter finds in either image; and
        ``generator/shortfall``: how far the former is below the latter for the class where that is most.
    """
    factors: Factors = scenes.sample(count, model.plan.buildings, generator(seed, CHECK)).to(model.device)
    parts = [factors.rows(slice(i, i + 100)) for i in range(0, count, 100)]
    truth, labels = (torch.cat(x) for x in zip(*(scenes.render(part, model.size) for part in parts), strict=True))
    drawn = torch.cat([model(part) for part in parts])
    drawn = ((drawn + 1) / 2).clamp(0, 1)
    found = {"generator/mae": float((drawn - truth).abs().mean())}
    there = labels.unique()
    shares = [recall(scenes.segment(factors, images), labels, len(Label))[there] for images in (drawn, truth)]
    for name, known in zip(("generator", "renderer"), shares, strict=True):
        for label, share in zip(there.tolist(), known.tolist(), strict=True):
            found[f"{name}/recall/{Label(label).name.lower()}"] = share
    found["generator/shortfall"] = float((shares[1] - shares[0]).max())
    return found
