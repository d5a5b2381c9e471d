"""Where a generator comes from: shipped with the suite, trained for an earlier run, or trained now."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import filelock
import lightning.pytorch as pl
import torch

from reprise.building import quiet_lightning
from reprise.callbacks import LastCheckpoint, Progress
from reprise.checks import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, checked
from reprise.config import fingerprint
from reprise.data.scenes import Scenes
from reprise.errors import UserError
from reprise.papers.rewriting.generator import Architecture, Plan, SceneGenerator

if TYPE_CHECKING:
    from reprise.papers.rewriting.training import SceneFit

log = logging.getLogger("reprise")

ROUND = 50  # optimiser steps between two reports
SHIPPED = Path(__file__).parent / "assets"


class SceneRecipe:
    """How a generator of scenes is made by regression from their content to their images. It is no GAN.

    Args:
        channels: of each resolution from 4x4 on; as many of them count as the images' size asks for.
        style, hidden, object_layers, colours_from: see `Plan`.
        steps, batch_size, lr: of Adam, the rate falling to 0 along a cosine after a short rise.
        consistency: weight of the demand that features of a building do not depend on where it stands. A network
            trained on photographs meets its subjects everywhere; here each building has a room of its own, and without
            it each room its own code, so that an edit of one would leave the others as they are.
        thin: further weight of dark windows in the loss; at 32 pixels they are one wide, and blur before all else.
        pool: rendered scenes that it is fitted to.
        seed: of weights and order; ``None`` = that of the run modulo ``seeds``.
        seeds: how many generators the runs of a table are spread over.
        retrain: train even where one is at hand.
        architecture: whose synthesis network it is, ``stylegan2`` or ``progan``.

    Attributes:
        told: whether the generator is told what is in a scene, so that its images show what the factors say.
    """

    told = True

    @checked
    def __init__(
        self,
        channels: list[PositiveInt],
        style: PositiveInt,
        hidden: PositiveInt,
        object_layers: PositiveInt,
        colours_from: PositiveInt,
        steps: PositiveInt,
        batch_size: PositiveInt,
        lr: PositiveFloat,
        consistency: NonNegativeFloat,
        thin: PositiveFloat,
        pool: PositiveInt,
        seed: NonNegativeInt | None = None,
        seeds: PositiveInt = 3,
        retrain: bool = False,
        architecture: Architecture = "stylegan2",
    ) -> None:
        self.channels, self.style, self.hidden = channels, style, hidden
        self.object_layers, self.colours_from = object_layers, colours_from
        self.steps, self.batch_size, self.lr = steps, batch_size, lr
        self.consistency, self.thin, self.pool = consistency, thin, pool
        self.seed, self.seeds, self.retrain, self.architecture = seed, seeds, retrain, architecture

    @property
    def title(self) -> str:
        """For tables."""
        return f"regression to rendered scenes, {self.steps} steps (not a GAN){self.network}"

    @property
    def network(self) -> str:
        """The end of the title, where the network is not the usual one."""
        return "" if self.architecture == "stylegan2" else f", network of {self.architecture}"

    def plan(self, source: Scenes, run_seed: int) -> Plan:
        """Sizes for a data set.

        Raises:
            UserError: too few channels for its images.
        """
        size = source.spec.shape[-1]
        levels = size.bit_length() - 2
        if len(self.channels) < levels:
            raise UserError(
                f"generator.channels has {len(self.channels)} resolutions, images of {size} pixels need {levels}: add "
                "some."
            )
        return Plan(
            channels=tuple(self.channels[:levels]),
            style=self.style,
            hidden=self.hidden,
            buildings=source.buildings,
            object_layers=self.object_layers,
            colours_from=self.colours_from,
            seed=run_seed % self.seeds if self.seed is None else self.seed,
            architecture=self.architecture,
        )

    def key(self, plan: Plan) -> str:
        """Identity of a trained generator: what it is and how it was trained."""
        fit = [self.steps, self.batch_size, self.lr, self.consistency, self.thin, self.pool]
        return fingerprint([plan.identity, *fit])

    def obtain(self, source: Scenes, run_seed: int, cache_dir: Path, device: torch.device) -> SceneGenerator:
        """The generator, trained only if none is at hand; trained ones are kept in ``cache_dir`` for other runs."""
        plan = self.plan(source, run_seed)
        key = self.key(plan)
        shipped = SHIPPED / f"scenes_{source.spec.shape[-1]}.safetensors"
        if not self.retrain and (found := _same(shipped, key)):
            return found
        with self._place(cache_dir, key) as path:
            if not self.retrain and (found := _same(path, key)):
                return found
            log.info("training the generator of scenes (seed %s); later runs use it from %s", plan.seed, path)
            return self._train(source, run_seed, path, device)

    def keep(self, model: SceneGenerator, cache_dir: Path, save: Callable[[Path], Path]) -> None:
        """Put a trained generator where other runs look for it, unless there is one."""
        key = self.key(model.plan)
        with self._place(cache_dir, key) as path:
            if _same(path, key) is None:
                save(path)

    @contextmanager
    def _place(self, cache_dir: Path, key: str) -> Iterator[Path]:
        """Where the generator of this key is kept, for one process at a time."""
        path = cache_dir / "generators" / f"{key}.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(path.with_suffix(".lock")):
            yield path

    def training(self, source: Scenes, run_seed: int) -> SceneFit:
        """What trains it."""
        from reprise.papers.rewriting.training import SceneFit

        return SceneFit(source.spec, run_seed, self)

    def quality(self, model: SceneGenerator, source: Scenes, seed: int) -> dict[str, float]:
        """How well a generator of this kind draws as many new scenes as the data set holds back."""
        from reprise.papers.rewriting.training import quality

        return quality(model, len(source.test), seed)

    def _train(self, source: Scenes, run_seed: int, path: Path, device: torch.device) -> SceneGenerator:
        from reprise.papers.rewriting.training import ScenePool

        quiet_lightning()
        checkpoint = LastCheckpoint(path.with_suffix(".ckpt"))
        module = self.training(source, run_seed)
        data = ScenePool(source, run_seed, self.pool)
        trainer = pl.Trainer(
            accelerator=device.type,
            devices=1,
            max_epochs=module.epochs,
            logger=False,
            callbacks=[checkpoint, Progress()],
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(module, datamodule=data, ckpt_path=checkpoint.to_resume(), weights_only=True)
        module.final_metrics(data)
        module.save(path)
        checkpoint.path.unlink(missing_ok=True)
        return SceneGenerator.load(path)[0]


def _same(path: Path, key: str) -> SceneGenerator | None:
    """The generator in a file, if it is the one that is wanted; a damaged file is reported and counts as none."""
    if not path.exists():
        return None
    try:
        found, about = SceneGenerator.load(path)
    except UserError as error:
        log.warning("%s It is made anew.", error)
        return None
    return found if about.get("recipe") == key else None
