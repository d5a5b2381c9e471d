"""What the paper compares its method with: all weights tuned on one example, units ablated, an edit transferred."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from reprise.checks import NonNegativeInt, PositiveFloat, PositiveInt, checked
from reprise.data import scenes
from reprise.data.base import DataSpec
from reprise.errors import UserError
from reprise.papers.rewriting import evaluation
from reprise.papers.rewriting.blending import Blend, transferred
from reprise.papers.rewriting.datamodule import EditData
from reprise.papers.rewriting.evaluation import Trial
from reprise.papers.rewriting.memory import rarest
from reprise.papers.rewriting.module import SceneEdit, check_channels
from reprise.papers.rewriting.request import bounding_box, pasted

QUANTILES = 100  # images of whose keys the quantiles are taken


@dataclass(frozen=True)
class Tuned:
    """Weights of the whole synthesis network."""

    state: dict[str, Tensor]
    losses: list[float] = field(default_factory=list)


class FinetuneAll(SceneEdit):
    """Adam on all weights of the synthesis network, for one image with the copy pasted into its pixels.

    The paper's baseline adds a perceptual distance, whose network has weights that the suite does not ship.

    Args:
        spec, seed, margin, stops: see `SceneEdit`.
        steps, lr: of Adam.
    """

    title = "all weights tuned"

    @checked
    def __init__(
        self,
        spec: DataSpec,
        seed: int,
        steps: PositiveInt,
        lr: PositiveFloat,
        margin: NonNegativeInt,
        stops: NonNegativeInt,
    ) -> None:
        super().__init__(spec, seed, margin, stops)
        self.steps, self.lr = steps, lr

    def check(self, data: EditData) -> None:
        """There is something to copy."""
        check_copies(data, "finetune_all")

    def length(self, data: EditData) -> int:
        """Steps of Adam."""
        return self.steps

    def search(self, data: EditData) -> Iterator[Tuned]:
        """Mean absolute distance within the pasted boxes."""
        net = copy.deepcopy(data.generator.synthesis).requires_grad_(True)
        optimizer = torch.optim.Adam(net.parameters(), lr=self.lr)
        ws = torch.stack([request.paste.ws for request in data.requests])
        with torch.no_grad():
            copies = net(torch.stack([request.copy.ws for request in data.requests]))
            places = zip(copies, net(ws), data.requests, strict=True)
            goals = [pasted(copied, asked.copy.mask, into, asked.paste.mask) for copied, into, asked in places]
        losses: list[float] = []
        for _ in range(self.steps):
            with torch.enable_grad():
                images = net(ws)
                parts = [box.of(x - goal).abs().flatten() for x, (goal, box) in zip(images, goals, strict=True)]
                loss = torch.cat(parts).mean()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
            yield Tuned({name: value.detach().clone() for name, value in net.state_dict().items()}, losses)

    def drawn(self, data: EditData, found: Tuned, asked: Trial) -> Tensor:
        """By the tuned network."""
        net = copy.deepcopy(data.generator.synthesis)
        net.load_state_dict(found.state)
        return torch.cat([net(part) for part in asked.ws.split(evaluation.AT_ONCE)])


@dataclass(frozen=True)
class Ablated:
    """Numbers of input units that are switched off."""

    units: Tensor
    losses: list[float] = field(default_factory=list)


class UnitAblation(SceneEdit):
    """GAN dissection: the units that are the rarest in the context are switched off, everywhere and for every image.

    Args:
        spec, seed, margin: see `SceneEdit`.
        layer: whose input units.
        units: how many.
    """

    title = "units ablated"

    @checked
    def __init__(
        self, spec: DataSpec, seed: int, layer: PositiveInt, units: PositiveInt, margin: NonNegativeInt
    ) -> None:
        super().__init__(spec, seed, margin, stops=0)
        self.layer, self.units = layer, units

    def check(self, data: EditData) -> None:
        """Something is to go, and the layer has the units."""
        if data.rule.copied is not None:
            raise UserError(
                f"method=unit_ablation can only take things away, and edit={data.rule.name} puts one in the place of "
                "another: choose edit=watermark or edit=windows, or another method."
            )
        check_channels("units", self.units, self.layer, data.inputs(self.layer))

    def length(self, data: EditData) -> int:
        """There is nothing to search for."""
        return 1

    def search(self, data: EditData) -> Iterator[Ablated]:
        """Rank the units."""
        contexts = [context for request in data.requests for context in request.contexts]
        rows, weights = data.rewriter.rows(contexts, self.layer)
        with torch.no_grad():
            keys, _ = data.generator.synthesis.key(self.layer, data.rewriter.sample(QUANTILES))
        yield Ablated(rarest(rows, weights, keys.movedim(1, -1).flatten(0, -2), self.units))

    def drawn(self, data: EditData, found: Ablated, asked: Trial) -> Tensor:
        """Without the weights that read the units."""
        weight = data.generator.synthesis.layers[str(self.layer)].weight.clone()
        weight[:, found.units] = 0
        return evaluation.redrawn(data.generator.synthesis, asked, self.layer, weight)

    def more_metrics(self, data: EditData) -> dict[str, float]:
        """Where, and how many."""
        return {"edit/layer": self.layer, "edit/units": self.units}


@dataclass(frozen=True)
class Nothing:
    """No weight is changed."""

    losses: list[float] = field(default_factory=list)


class CorrespondenceBlend(SceneEdit):
    """The edit of one image transferred to all others, pixel by pixel, where the renderer says that it belongs.

    Args:
        spec, seed, margin: see `SceneEdit`.
        blend: ``poisson``, ``laplacian`` or ``plain``.
    """

    title = "edit transferred"

    @checked
    def __init__(self, spec: DataSpec, seed: int, blend: Blend, margin: NonNegativeInt) -> None:
        super().__init__(spec, seed, margin, stops=0)
        self.blend = blend

    def check(self, data: EditData) -> None:
        """There is something to copy, and it is known where it belongs."""
        check_copies(data, "correspondence_blend")
        if data.rule.both or data.rule.copied is None or not data.recipe.told:
            raise UserError(
                "method=correspondence_blend lays one thing wherever the renderer says that it belongs, which it knows "
                "of generator=scenes and of edits that put one thing in the place of another."
            )

    def length(self, data: EditData) -> int:
        """There is nothing to search for."""
        return 1

    def search(self, data: EditData) -> Iterator[Nothing]:
        """Nothing."""
        yield Nothing()

    def drawn(self, data: EditData, found: Nothing, asked: Trial) -> Tensor:
        """With the first request's copy in every place."""
        copy = data.requests[0].copy
        box = bounding_box(copy.mask > 0, "copy")
        image = (data.generator.synthesis(copy.ws.unsqueeze(0))[0] + 1) / 2
        size = data.generator.size
        there, then = (scenes.render(factors, size)[1] for factors in (asked.factors, asked.other))
        places = (then == int(data.rule.target)) & (there != then)
        patch, mask = box.of(image).clamp(0, 1).permute(1, 2, 0), box.of(copy.mask) > 0.5
        before = ((asked.before.images + 1) / 2).clamp(0, 1).permute(0, 2, 3, 1)
        done = transferred(*(part.cpu().numpy() for part in (before, places, patch, mask)), self.blend)
        return 2 * torch.from_numpy(done).permute(0, 3, 1, 2).to(asked.before.images) - 1


def check_copies(data: EditData, method: str) -> None:
    """Refuse a removal.

    Raises:
        UserError: the rule copies nothing.
    """
    if not data.rule.copies:
        raise UserError(
            f"method={method} lays a copy over what is to change, and edit={data.rule.name} only takes something away: "
            "choose edit=dome_to_spire, or method=rewriting, finetune_layer or unit_ablation."
        )
