"""Fitting the scenes' generator to the renderer: a regression, not a game, and labelled so wherever it is used."""

from __future__ import annotations

import math
from collections.abc import Sequence

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from reprise.callbacks import steps_loader
from reprise.checks import PositiveFloat, PositiveInt, checked
from reprise.data import scenes
from reprise.data.scenes import Factors, Label
from reprise.papers.rewriting.generator import Plan, SceneGenerator
from reprise.papers.rewriting.metrics import recall
from reprise.randomness import generator
from reprise.schedules import cosine

ROUND = 50  # optimiser steps between two reports
POOL, CHECK = 1, 2  # what randomness is for


class ScenePool(pl.LightningDataModule):
    """Scenes drawn and rendered once, on the device as one tensor.

    Args:
        buildings: of a scene.
        size: pixels of a side.
        count: scenes.
        seed: of their factors.
    """

    @checked
    def __init__(self, buildings: PositiveInt, size: PositiveInt, count: PositiveInt, seed: int) -> None:
        super().__init__()
        self.factors = scenes.sample(count, buildings, generator(seed, POOL))
        parts = [scenes.render(self.factors.rows(slice(i, i + 500)), size) for i in range(0, count, 500)]
        images, labels = (torch.cat(part) for part in zip(*parts, strict=True))
        self.images = 2 * images - 1
        self.weights = pixel_weights(labels)

    def train_dataloader(self) -> DataLoader:
        """Numbers of rounds."""
        return steps_loader(self.trainer.lightning_module.steps_per_epoch)


def pixel_weights(labels: Tensor) -> Tensor:
    """Weights ``[n, 1, s, s]``: by the root of how rare a pixel's label is, at most eight times the common one's."""
    share = torch.bincount(labels.flatten(), minlength=len(Label)).float() / labels.numel()
    weight = (share.max() / share.clamp_min(1e-6)).sqrt().clamp_max(8.0)
    return weight[labels].unsqueeze(1)


class SceneFit(pl.LightningModule):
    """Adam on the weighted l1 and squared distance to the rendered images.

    Args:
        plan: of the generator.
        steps: optimiser steps.
        batch_size: scenes per step.
        lr: of Adam, falling to 0 along a cosine after a short rise.
    """

    title = "scenes' generator"
    progress_metrics: Sequence[str] = ("train/loss",)

    @checked
    def __init__(self, plan: Plan, steps: PositiveInt, batch_size: PositiveInt = 32, lr: PositiveFloat = 3e-3) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.model = SceneGenerator(plan)
        self.steps, self.batch_size, self.lr = steps, batch_size, lr
        self.steps_per_epoch, self.epochs = math.ceil(steps / ROUND), 1

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam."""
        return torch.optim.Adam(self.model.parameters(), lr=self.lr, betas=(0.9, 0.99), fused=True)

    def training_step(self, number: int) -> None:
        """Some steps."""
        data: ScenePool = self.trainer.datamodule
        optimizer = self.optimizers(use_pl_optimizer=False)
        first, last = number * ROUND, min((number + 1) * ROUND, self.steps)
        draw = generator(self.model.plan.seed, CHECK, first)
        total = torch.zeros((), device=self.device)
        for step in range(first, last):
            rise, fall = min(1.0, (step + 1) / 100), cosine(step, self.steps)
            optimizer.param_groups[0]["lr"] = self.lr * rise * fall
            rows = torch.randint(0, len(data.images), (self.batch_size,), generator=draw)
            apart = self.model(data.factors.rows(rows)) - data.images[rows]
            loss = ((apart.abs() + apart.square()) * data.weights[rows]).mean()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            total += loss.detach()
        self.log("train/loss", total / max(1, last - first), batch_size=1)


@torch.no_grad()
def quality(model: SceneGenerator, count: int, seed: int) -> dict[str, float]:
    """How the generator draws scenes that it was not fitted to, beside the renderer's own images.

    Returns:
        ``generator/mae`` on 0..1, and for each class ``generator/recall/<class>`` and ``renderer/recall/<class>``: the
        share of its true pixels that the segmenter finds in either image.
    """
    factors: Factors = scenes.sample(count, model.plan.buildings, generator(seed, CHECK))
    truth, labels = scenes.render(factors, model.size)
    drawn = torch.cat([model(factors.rows(slice(i, i + 100))) for i in range(0, count, 100)])
    drawn = ((drawn + 1) / 2).clamp(0, 1)
    found = {"generator/mae": float((drawn - truth).abs().mean())}
    for name, images in (("generator", drawn), ("renderer", truth)):
        shares = recall(scenes.segment(factors, images), labels, len(Label))
        for label in Label:
            found[f"{name}/recall/{label.name.lower()}"] = float(shares[label])
    return found
