"""Edits as runs: to fit is to search for the change, to test is to judge it on scenes it never saw."""

from __future__ import annotations

import math
import time
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import lightning.pytorch as pl
import torch
from torch import Tensor

from reprise.checks import NonNegativeInt, checked
from reprise.data.base import DataSpec
from reprise.errors import UserError
from reprise.papers.rewriting import artifacts, evaluation
from reprise.papers.rewriting.datamodule import EditData
from reprise.papers.rewriting.edits import Edit
from reprise.papers.rewriting.evaluation import Trial
from reprise.papers.rewriting.perceptual import lpips_outside
from reprise.papers.rewriting.rewriter import Recipe
from reprise.papers.rewriting.solvers import UPSAMPLES, Solution

ROUND = 10  # steps of a search between two reports
EARLY, FURTHER = 10, 4  # steps after which a search is judged first, and how many times as many there are to the next


class State(Protocol):
    """Where a search is."""

    losses: list[float]


@dataclass(frozen=True)
class Result:
    """An edit that was judged.

    Attributes:
        metrics: of the run.
        images: edited images of the trial's scenes ``[n, 3, s, s]``.
        trial: the scenes.
        path: after so many steps, success and collateral.
    """

    metrics: dict[str, float]
    images: Tensor
    trial: Trial
    path: list[dict[str, float]]


class SceneEdit(pl.LightningModule):
    """What all ways to change a rule of a generator have in common.

    Args:
        spec: the scenes.
        seed: of the run.
        margin: pixels around what was to change that do not count as collateral.
        stops: how often the search is judged on the way, at four times as many steps each time; 0 = only at its end.
    """

    tasks, kinds, single_device = ("classification",), ("image",), True
    title = "edit"
    progress_metrics = ("train/loss",)
    epochs = 1

    def __init__(self, spec: DataSpec, seed: int, margin: int, stops: int) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.spec, self.seed, self.margin, self.stops = spec, seed, margin, stops
        self.found: Any = None
        self.kept: list[tuple[int, Any]] = []
        self.seconds = 0.0
        self.result: Result | None = None

    @property
    def condition(self) -> dict[str, Any]:
        """Beside the data, what must be equal for two runs to be compared."""
        return {"margin": self.margin}

    @abstractmethod
    def check(self, data: EditData) -> None:
        """Refuse what cannot work, before a generator is trained for it."""

    @abstractmethod
    def length(self, data: EditData) -> int:
        """Steps of the search, in all and at most."""

    @abstractmethod
    def search(self, data: EditData) -> Iterator[State]:
        """Look for the change, step by step."""

    @abstractmethod
    def drawn(self, data: EditData, found: Any, asked: Trial) -> Tensor:
        """Images ``[n, 3, s, s]`` of a trial's scenes with the change."""

    def edits(self, data: EditData) -> list[Edit]:
        """What was found, where it is a change of low rank of one layer."""
        return []

    def configure_optimizers(self) -> None:
        """The search brings its own."""

    def prepare_data(self) -> None:
        """Called before the data is set up."""
        self.check(self.trainer.datamodule)

    def setup(self, stage: str) -> None:
        """Count the steps, now that the data is there."""
        steps = self.length(self.trainer.datamodule)
        self.steps_per_epoch = math.ceil(steps / ROUND)
        points = [EARLY * FURTHER**i for i in range(self.stops)]
        self.judged_after = {point for point in points if point < steps}

    def on_fit_start(self) -> None:
        """Start afresh: a search takes seconds, and one that was interrupted is repeated."""
        self._search = enumerate(self.search(self.trainer.datamodule), start=1)

    def training_step(self, number: int) -> None:
        """Some steps of the search."""
        if self._advance(ROUND) and self.found.losses:
            self.log("train/loss", self.found.losses[-1], batch_size=1)

    def _advance(self, count: int | None) -> bool:
        began, taking = time.perf_counter(), self._moments_seconds()
        moved = False
        while count is None or count > 0:
            step, self.found = next(self._search, (None, self.found))
            if step is None:
                break
            moved, count = True, None if count is None else count - 1
            if step in self.judged_after:
                self.kept.append((step, self.found))
        self.seconds += time.perf_counter() - began - (self._moments_seconds() - taking)
        return moved

    def _moments_seconds(self) -> float:
        """What C has taken so far: another run of this process may have paid for it, so that it counts apart."""
        return sum(self.trainer.datamodule.rewriter.seconds.values())

    @torch.no_grad()
    def final_metrics(self, datamodule: EditData) -> dict[str, float]:
        """Judge what was found, on the way and at the end, beside what could be reached at all."""
        if self.found is None:  # the search had ended when the run was interrupted
            self.on_fit_start()
            with torch.enable_grad():
                self._advance(None)
        asked, path = datamodule.trial, []
        for step, found in (*self.kept, (len(self.found.losses), self.found)):
            images = self.drawn(datamodule, found, asked)
            path.append({"step": step} | evaluation.judge(asked, images, self.margin))
        asked.begun.clear()  # large, and of no use any more
        metrics = path[-1] | evaluation.bounds(asked, self.margin) | self.more_metrics(datamodule)
        del metrics["step"]
        if metrics.get("ceiling/success"):  # not where the segmenter finds nothing of the source
            metrics["edit/of_ceiling"] = metrics["edit/success"] / metrics["ceiling/success"]
        if self.found.losses:
            metrics |= {"edit/first_loss": self.found.losses[0], "edit/loss": self.found.losses[-1]}
        metrics |= {"time/edit_seconds": self.seconds}
        metrics |= lpips_outside(asked.before.images, images, asked.there, self.margin)
        metrics |= datamodule.frechet(images) | datamodule.quality()
        self.result = Result(metrics, images, asked, path)
        return metrics

    def more_metrics(self, data: EditData) -> dict[str, float]:
        """What only some ways have."""
        return {}

    def artifacts(self, run_dir: Path) -> list[Path]:
        """Write the edit and the figures."""
        return artifacts.write(run_dir, self)


class LayerEdit(SceneEdit):
    """The paper's method and all that changes the weight of one layer by its keys and values.

    Args:
        spec, seed, margin, stops: see `SceneEdit`.
        recipe: how the change is found; its layer may be ``auto``, which is then the one whose oracle does best on
            development scenes.
    """

    title = "rewriting"

    @checked
    def __init__(
        self, spec: DataSpec, seed: int, recipe: Recipe, margin: NonNegativeInt, stops: NonNegativeInt
    ) -> None:
        super().__init__(spec, seed, margin, stops)
        self.recipe = recipe
        self.scan: list[dict[str, float]] = []

    def check(self, data: EditData) -> None:
        """The layer, the rank and the units are the generator's."""
        if self.recipe.layer == "auto":
            if not data.chooses:
                raise UserError(
                    f"method.layer=auto cannot choose where edit={data.rule.name} goes: nobody knows what a GAN's "
                    "images would be without it. Give a number."
                )
            return
        channels = data.inputs(self.recipe.layer)
        if self.recipe.solver == "closed_form" and data.upsamples(self.recipe.layer):
            raise UserError(UPSAMPLES)
        for name, asked in (("rank", self.recipe.rank), ("units", 0 if data.rule.copies else self.recipe.units)):
            check_channels(name, asked, self.recipe.layer, channels)

    def length(self, data: EditData) -> int:
        """A removal is repeated."""
        return self.recipe.steps * (1 if data.rule.copies else self.recipe.repeats)

    def setup(self, stage: str) -> None:
        """Choose a layer where that is left to the suite."""
        super().setup(stage)
        data: EditData = self.trainer.datamodule
        if self.recipe.layer == "auto":
            self.scan, layer = data.choose(self.recipe, self.margin)
            self.used = self.recipe.at(layer)
        else:
            self.used = self.recipe

    def search(self, data: EditData) -> Iterator[Solution]:
        """The recipe's."""
        return data.rewriter.search(data.requests, self.used)

    def drawn(self, data: EditData, found: Solution, asked: Trial) -> Tensor:
        """With the layer's weight changed."""
        weight = data.generator.synthesis.layers[str(self.used.layer)].weight + found.dw
        return evaluation.redrawn(data.generator.synthesis, asked, self.used.layer, weight)

    def edits(self, data: EditData) -> list[Edit]:
        """Lambda and D, where the change has them."""
        return [] if self.found.lam is None else [self.named(data, self.found)]

    def named(self, data: EditData, found: Solution) -> Edit:
        """A change of low rank as an edit of the generator."""
        return Edit(self.used.layer, found.lam, found.directions, data.rewriter.fingerprint, data.rule.title)

    def more_metrics(self, data: EditData) -> dict[str, float]:
        """What this layer could do at all, and which one it is."""
        found = data.oracle(self.used.layer, self.margin)
        if self.used.directions != "raw" and self.used.layer in data.rewriter.seconds:
            found["time/moments_seconds"] = data.rewriter.seconds[self.used.layer]
        return found | {"edit/layer": self.used.layer, "edit/rank": self.used.rank}


def check_channels(name: str, asked: int, layer: int, channels: int) -> None:
    """Refuse more of something than a layer has channels.

    Raises:
        UserError: see above.
    """
    if asked > channels:
        raise UserError(f"{name}={asked} cannot be: layer {layer} has {channels} input channels.")
