"""What an edit is given: a generator, requests on its images, and unseen scenes to be judged on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from torch import Tensor
from torch.utils.data import DataLoader

from reprise.callbacks import steps_loader
from reprise.checks import PositiveInt, checked
from reprise.data.base import Source
from reprise.data.scenes import Factors, Label
from reprise.errors import UserError
from reprise.frechet import Frechet
from reprise.papers.rewriting.evaluation import Trial, best_layer, drawn, oracle, right_one, segmented, trial
from reprise.papers.rewriting.generator import SceneGenerator
from reprise.papers.rewriting.recipes import SceneRecipe
from reprise.papers.rewriting.request import Marked, Request
from reprise.papers.rewriting.rewriter import Recipe, Rewriter
from reprise.papers.rewriting.scene_requests import SceneMask, SceneRequest, draw_request, rule_of
from reprise.papers.rewriting.training import scenes_of
from reprise.randomness import generator as seeded

REQUEST = 11  # what randomness is for
SCANNED = 100  # scenes on which layers are compared
FRECHET, ROOFS = Frechet(), (Label.FLAT_ROOF, Label.DOME, Label.SPIRE)
KEPT = 9  # pairs of a generator and a rule: a sweep's three of each


@dataclass(frozen=True)
class Prepared:
    """What runs of one process that edit the same generator by the same rule have in common.

    ``measured`` is what was found that does not depend on the edit, by what it is and what it depends on.
    """

    generator: SceneGenerator
    rewriter: Rewriter
    trial: Trial
    measured: dict[tuple[Any, ...], dict[str, float]] = field(default_factory=dict)


_prepared: dict[tuple[Any, ...], Prepared] = {}


class EditData(pl.LightningDataModule):
    """A generator, some requests for one rule, and the scenes on which the edit is judged.

    The run's seed decides which scenes the requests are drawn on, and where the recipe leaves it open, which of the
    trained generators is edited. Scenes to judge on are the data set's unseen ones, the same for all runs.

    Args:
        source: scenes.
        seed: of the run.
        generator: how the generator is made; it is trained if none is at hand.
        edit: name of the rule, see `reprise.papers.rewriting.scene_requests.RULES`.
        requests: how many are met with one edit, each with a copy, a paste and contexts of its own.
        contexts: images of each request in which the context is marked.
        moments: training scenes whose keys give C.

    Raises:
        UserError: a generator that is not of scenes, no such rule, or one that needs to know what is in the generator's
            images and cannot; a data set without scenes, or too few scenes for the contexts.
    """

    cache_dir = Path("outputs/cache")

    @checked
    def __init__(
        self,
        source: Source,
        seed: int,
        generator: Any,
        edit: str,
        requests: PositiveInt,
        contexts: PositiveInt,
        moments: PositiveInt,
    ) -> None:
        super().__init__()
        if not isinstance(generator, SceneRecipe):
            raise UserError(
                f"edit={edit} is for generators of scenes; another one is edited by a request of yours: "
                "edit=request method.datamodule.request=my_edit.json."
            )
        self.source, self.seed, self.recipe = scenes_of(source), seed, generator
        self.spec, self.rule, self.moments = source.spec, rule_of(edit), moments
        self.count, self.contexts = requests, contexts
        if generator.told:  # before anything is trained for it
            self.asked = self._drawn()
        elif self.rule.both:
            raise UserError(
                f"edit={edit} needs to know what is in the images, and a GAN's show what they like: use "
                "generator=scenes."
            )
        self.protocol: dict[str, Any] = {
            "edit": self.rule.title,
            "generator": generator.title,
            "images": len(source.test),
        }

    def inputs(self, layer: int) -> int:
        """Input channels of a layer, which is known before the generator is there.

        Raises:
            UserError: there is no such layer.
        """
        channels = self.recipe.plan(self.source, self.seed).channels
        if not 2 <= layer <= 2 * len(channels):
            raise UserError(
                f"layer={layer} cannot be edited: this generator's layers are 2 to {2 * len(channels)}, or auto."
            )
        return channels[(layer - 2) // 2]

    def _drawn(self, shown: Callable[[Factors], Tensor] | None = None) -> list[SceneRequest]:
        size, buildings = self.spec.shape[-1], self.source.buildings
        draws = [seeded(self.seed, REQUEST, number) for number in range(self.count)]
        return [draw_request(self.rule, buildings, size, self.contexts, draw, shown) for draw in draws]

    def upsamples(self, layer: int) -> bool:
        """Whether a layer's value is larger than its key; in ProGAN what doubles comes before the key."""
        return self.recipe.architecture == "stylegan2" and layer % 2 == 1

    def train_dataloader(self) -> DataLoader:
        """Numbers of rounds."""
        return steps_loader(self.trainer.lightning_module.steps_per_epoch)

    def setup(self, stage: str) -> None:
        """Take or train the generator, and put everything on the device."""
        device = self.trainer.strategy.root_device
        generator = self.recipe.obtain(self.source, self.seed, self.cache_dir, device).to(device).eval()
        self._shared = self._prepare(generator.requires_grad_(False))
        self.generator, self.rewriter, self.trial = self._shared.generator, self._shared.rewriter, self._shared.trial
        if not self.recipe.told:
            self.asked = self._drawn(self._shown)
        self.requests = [self._marked(asked) for asked in self.asked]

    def _prepare(self, generator: SceneGenerator) -> Prepared:
        """What an earlier run of this process made for the same, or made now; no edit changes a generator in place."""
        data = self.spec.checksum, len(self.source.train), len(self.source.test)
        where = str(generator.device), str(self.trainer.precision)
        key = (generator.fingerprint, where, data, self.rule.name, self.recipe.told, self.moments)
        found = _prepared.pop(key, None)
        while len(_prepared) >= KEPT:
            del _prepared[next(iter(_prepared))]
        _prepared[key] = found or self._made(generator)  # the latest last
        return _prepared[key]

    def _made(self, generator: SceneGenerator) -> Prepared:
        factors, styles, device = self.source.factors, generator.ws, generator.device

        def sample(count: int) -> Tensor:
            return styles(factors.rows(slice(count)).to(device))

        rewriter = Rewriter(generator.synthesis, sample, self.moments, generator.fingerprint)
        return Prepared(generator, rewriter, trial(generator, self.rule, self.source.held.to(device), self.recipe.told))

    def _once(self, what: tuple[Any, ...], measure: Callable[[], dict[str, float]]) -> dict[str, float]:
        if what not in self._shared.measured:
            self._shared.measured[what] = measure()
        return dict(self._shared.measured[what])

    def _shown(self, factors: Factors) -> Tensor:
        return segmented(drawn(self.generator, self.generator.ws(factors.to(self.generator.device)))).cpu()

    def _marked(self, asked: SceneRequest) -> Request:
        def mark(scene: SceneMask) -> Marked:
            device = self.generator.device
            return Marked(self.generator.ws(scene.factors.to(device))[0], scene.mask.to(device))

        return Request(asked.copy and mark(asked.copy), mark(asked.paste), tuple(map(mark, asked.context)))

    @property
    def chooses(self) -> bool:
        """Whether a layer can be chosen: what a removal should leave must be known for that."""
        return self.recipe.told or self.rule.copies

    def choose(self, recipe: Recipe, margin: int) -> tuple[list[dict[str, float]], int]:
        """What each layer could do at all, on scenes of the training part, and the one to take."""
        asked, found = self.development(SCANNED), []
        for layer in self.generator.synthesis.numbers:
            reached = oracle(self.generator, asked, layer, margin, self.requests[0].copy)
            found.append({"layer": layer} | reached)
        return found, best_layer(found)

    def development(self, count: int) -> Trial:
        """Scenes of the training part to choose a layer on, which leaves the unseen ones unseen."""
        factors = self.source.factors.rows(slice(count)).to(self.generator.device)
        return trial(self.generator, self.rule, factors, self.recipe.told)

    def oracle(self, layer: int, margin: int) -> dict[str, float]:
        """What a layer could do on the scenes to judge on; it depends on the copy where nothing else is right."""
        if right_one(self.trial) is None:
            return oracle(self.generator, self.trial, layer, margin, self.requests[0].copy)
        return self._once(("oracle", layer, margin), lambda: oracle(self.generator, self.trial, layer, margin))

    def frechet(self, images: Tensor) -> dict[str, float]:
        """The Frechet distance of edited images of the trial's scenes to the counterfactual ones, and of the bounds.

        For rules about roofs: the features are those of a classifier of the first one, which need not see other things.
        """
        truth = self.trial.truth
        if truth is None or len(truth) < 2 or self.rule.source not in ROOFS:
            return {}

        def apart(shown: Tensor) -> float:
            real, generated = (((x + 1) / 2).clamp(0, 1) for x in (truth, shown))
            return FRECHET.distance(self.spec, self.source.train, real, generated, self.cache_dir)

        def bounds() -> dict[str, float]:
            shown = {"unedited": self.trial.before.images, "ceiling": self.trial.ceiling.images}
            return {f"{name}/frechet": apart(x) for name, x in shown.items()}

        return {"counterfactual/frechet": apart(images)} | self._once(("frechet",), bounds)

    def quality(self) -> dict[str, float]:
        """How well the generator draws."""
        return self._once(("quality", self.seed), lambda: self.recipe.quality(self.generator, self.source, self.seed))
