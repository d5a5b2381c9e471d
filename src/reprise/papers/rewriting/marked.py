"""A generator of the user's, and an edit request in a file: nothing but the images and their marks is known."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from torch import Tensor
from torch.utils.data import DataLoader

from reprise.callbacks import steps_loader
from reprise.checks import Fraction, PositiveInt, checked
from reprise.data.base import Source
from reprise.errors import UserError
from reprise.papers.rewriting import choosing, editable, request_json
from reprise.papers.rewriting.editable import Editable
from reprise.papers.rewriting.evaluation import Trial, of_marks
from reprise.papers.rewriting.request import Request
from reprise.papers.rewriting.rewriter import Recipe
from reprise.papers.rewriting.session import RewriteSession

log = logging.getLogger("reprise")

OTHERS = 32  # images without marks that are looked at, at 256 pixels and below
PIXELS = OTHERS * 256**2  # of all of them, where they are larger


class CheckpointRecipe:
    """A generator in a file.

    Args:
        path: of a checkpoint of StyleGAN2 or ProGAN, or of a generator of scenes; ``None`` = that of the suite.
        psi, trust: see `reprise.papers.rewriting.checkpoints.read`.
    """

    told = False

    @checked
    def __init__(self, path: Path | None = None, psi: Fraction = 0.5, trust: bool = False) -> None:
        self.path, self.psi, self.trust = path and path.expanduser(), psi, trust

    def load(self) -> Editable:
        """The generator."""
        return editable.load(self.path, self.psi, self.trust)


@dataclass(frozen=True)
class Asked:
    """What a file asks for; stands where a rule of scenes does."""

    name: str
    title: str
    copied: bool | None
    both: bool = False

    @property
    def copies(self) -> bool:
        """Whether there is something to copy."""
        return bool(self.copied)


class MarkedData(pl.LightningDataModule):
    """A request in a file and the generator whose images it marks.

    It is judged on the images that were marked and on some others. What the pasted place should look like is taken from
    the copy, laid over the image; what else there should be nobody knows.

    Args:
        source, seed: not used.
        generator: in a file.
        request: JSON as the paper's tool and the editor write it.
        moments: numbered images whose keys give C.

    Raises:
        UserError: no request, or one that does not fit the generator; a generator that is not in a file.
    """

    @checked
    def __init__(self, source: Source, seed: int, generator: Any, request: Path | None, moments: PositiveInt) -> None:
        super().__init__()
        if not isinstance(generator, CheckpointRecipe):
            raise UserError("edit=request marks images of a generator in a file: add generator=checkpoint.")
        if request is None:
            raise UserError("method.datamodule.request= is missing: name the JSON file of an edit request.")
        self.spec, self.recipe, self.moments = source.spec, generator, moments
        self.generator, self.marks = generator.load(), request_json.read(request.expanduser())
        self.rule = Asked("request", request.stem, True if self._requests()[0].copy else None)
        for what, mark, found in self._session().masks():
            for warning in found.warnings:
                log.warning("%s in image %d: %s", what, mark.number, warning)
        self.protocol: dict[str, Any] = {
            "edit": request.stem,
            "generator": self.generator.title,
            "weights": self.generator.fingerprint,
        }

    def _session(self) -> RewriteSession:
        session = RewriteSession(self.generator)
        session.mark(self.marks)
        return session

    def _requests(self) -> list[Request]:
        session = self._session()
        return [session.request()] if self.marks.copy else session.removals()

    def inputs(self, layer: int) -> int:
        """Input channels of a layer.

        Raises:
            UserError: there is no such layer.
        """
        rewriter = self.generator.rewriter()
        rewriter.check_layer(layer)
        return rewriter.channels(layer)

    def upsamples(self, layer: int) -> bool:
        """Whether a layer's value is larger than its key."""
        return self.generator.synthesis.layers[str(layer)].ratio > 1

    def train_dataloader(self) -> DataLoader:
        """Numbers of rounds."""
        return steps_loader(self.trainer.lightning_module.steps_per_epoch)

    def setup(self, stage: str) -> None:
        """Put everything on the device, and draw the images on which the edit is judged."""
        self.generator = self.generator.on(self.trainer.strategy.root_device)
        self.rewriter, self.requests = self.generator.rewriter(self.moments), self._requests()
        marked = {mark.number for _, mark in self.marks.named()}
        free = [number for number in range(self.generator.images) if number not in marked]
        size = self.generator.synthesis.size
        self.others = self.generator.sample(free[: max(2, min(OTHERS, PIXELS // size**2))])
        self.trial: Trial = of_marks(self.generator.synthesis, self.requests, self.others)

    @property
    def chooses(self) -> bool:
        """Always: short searches do."""
        return True

    def choose(self, recipe: Recipe, margin: int) -> tuple[list[dict[str, float]], int]:
        """How well a short search in each layer meets the request against what else it changes, and the best layer."""
        recipes = list(choosing.tries(recipe, self.generator.synthesis.numbers, [recipe.rank]))
        for tried in recipes:
            tried.units = min(tried.units, self.rewriter.channels(tried.layer))
        found = choosing.choose(self.rewriter, self.requests, recipes, self.others, lambda *_: None)
        return [vars(one) | {"score": one.score} for one in found], found[0].layer

    def oracle(self, layer: int, margin: int) -> dict[str, float]:
        """Nothing is known."""
        return {}

    def frechet(self, images: Tensor) -> dict[str, float]:
        """Nothing is known."""
        return {}

    def quality(self) -> dict[str, float]:
        """Nothing is known."""
        return {}
