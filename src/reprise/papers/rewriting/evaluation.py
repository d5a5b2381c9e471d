"""How an edit is judged on scenes it never saw: success, collateral, and what could be reached at all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from reprise.data import scenes
from reprise.data.scenes import Factors, Label
from reprise.papers.rewriting.generator import SceneGenerator
from reprise.papers.rewriting.metrics import Labelled, collateral, grown, psnr, success
from reprise.papers.rewriting.network import Network, State
from reprise.papers.rewriting.request import Marked, Request, at_size, pasted
from reprise.papers.rewriting.rewriter import feature_paste
from reprise.papers.rewriting.scene_requests import Rule, connected

AT_ONCE = 100
NEARLY = 0.9  # of the best layer's success


@dataclass(frozen=True)
class Trial:
    """Unseen images for a rule: as they are, as they would be, and what the generator makes of both.

    A generator that was never told what is in a scene (a GAN) draws what it likes of one: its images are labelled by
    what a segmenter finds in them, and of what would be there nothing is known.

    Attributes:
        factors, other: scenes and their counterfactuals.
        ws: styles of the former ``[n, slots, style]``.
        look: labels images ``[n, 3, s, s]`` in -1..1 of the scenes.
        before: what the unedited generator draws.
        ceiling: what it draws of the counterfactuals (what the renderer does, where the generator cannot know them): no
            edit can be expected to do better. ``None`` where nothing is known.
        truth: the counterfactuals as the renderer draws them, in -1..1, or ``None``.
        there: pixels ``[n, s, s]`` that should change: those that show the source; where a rule goes both ways, those
            that are drawn as the renderer does and that it paints otherwise in the counterfactual.
        met: tells of labels ``[n, s, s]`` which of them are what is wanted there.
        without: scenes ``[n]`` in which nothing should change.
        target: images with a copy laid over them, where no more is known than what was marked; there are no scenes and
            no labels then.
        begun: by layer, what comes before it, see `redrawn`.
    """

    rule: Rule | None
    factors: Factors | None
    other: Factors | None
    ws: Tensor
    look: Callable[[Tensor], Tensor] | None
    before: Labelled
    ceiling: Labelled | None
    truth: Tensor | None
    there: Tensor
    met: Callable[[Tensor], Tensor] | None
    without: Tensor
    target: Tensor | None = None
    begun: dict[int, list[State]] = field(default_factory=dict)


@torch.no_grad()
def trial(generator: SceneGenerator, rule: Rule, factors: Factors, told: bool = True) -> Trial:
    """Prepare the judgement of a rule on some scenes; ``told``: whether the generator heeds all factors."""
    ws = generator.ws(factors)
    if not told:
        return unknown(rule, factors, ws, drawn(generator, ws))
    ceiling = drawn(generator, generator.ws(rule.counterfactual(factors))) if rule.drawable else None
    return tried(rule, factors, ws, drawn(generator, ws), ceiling)


def tried(rule: Rule, factors: Factors, ws: Tensor, images: Tensor, ceiling: Tensor | None) -> Trial:
    """The same with images that are drawn already; ``ceiling``: of the counterfactuals, ``None`` = the renderer's."""
    size, other = images.shape[-1], rule.counterfactual(factors)
    labels = scenes.render(factors, size)[1]
    rendered, then = scenes.render(other, size)

    def look(shown: Tensor) -> Tensor:
        return scenes.segment(factors, ((shown + 1) / 2).clamp(0, 1))

    truth, before = 2 * rendered - 1, Labelled(images, look(images))
    if rule.both:
        with_source = labels != then
        there, met = with_source & (before.labels == labels), then.eq
    else:
        there, with_source, met = before.labels == int(rule.source), labels == int(rule.source), rule.met
    best = truth if ceiling is None else ceiling
    without = ~with_source.flatten(1).any(1)
    return Trial(rule, factors, other, ws, look, before, Labelled(best, look(best)), truth, there, met, without)


def unknown(rule: Rule, factors: Factors, ws: Tensor, images: Tensor) -> Trial:
    """The same for images that show what they like."""
    before = Labelled(images, segmented(images))
    there = before.labels == int(rule.source)
    without = ~there.flatten(1).any(1)
    return Trial(rule, factors, factors, ws, segmented, before, None, None, there, rule.met, without)


@torch.no_grad()
def of_marks(net: Network, requests: Sequence[Request], others: Tensor) -> Trial:
    """The same for images of which nothing is known but what was marked in them.

    Args:
        others: styles of images without marks ``[m, slots, style]``.
    """
    ws = torch.cat([torch.stack([request.paste.ws for request in requests]), others])
    images = torch.cat([net(part) for part in ws.split(AT_ONCE)])
    there, target = torch.zeros_like(images[:, 0], dtype=torch.bool), images.clone()
    for row, request in enumerate(requests):
        if request.copy:
            copied = net(request.copy.ws.unsqueeze(0))[0]
            target[row], box = pasted(copied, request.copy.mask, images[row], request.paste.mask)
            box.of(there[row])[:] = True
        else:
            there[row] = request.paste.mask > 0
    before = Labelled(images, torch.zeros_like(there, dtype=torch.long))
    return Trial(None, None, None, ws, None, before, None, None, there, None, ~there.flatten(1).any(1), target)


def segmented(images: Tensor) -> Tensor:
    """Labels ``[n, s, s]`` of images ``[n, 3, s, s]`` in -1..1 whose light and tints nobody knows: the middle ones."""
    factors = scenes.sample(len(images), 1, torch.Generator().manual_seed(0)).to(images.device)
    middle = torch.zeros_like(factors.sky)
    factors = factors.but(sky=middle, light=middle, tint=middle)
    return scenes.segment(factors, ((images + 1) / 2).clamp(0, 1))


@torch.no_grad()
def drawn(generator: SceneGenerator, ws: Tensor) -> Tensor:
    """Images of styles."""
    return torch.cat([generator.synthesis(part) for part in ws.split(AT_ONCE)])


@torch.no_grad()
def redrawn(net: Network, asked: Trial, layer: int, weight: Tensor) -> Tensor:
    """Images of a trial's scenes by its own network with a layer's weight replaced.

    What comes before the layer is kept in the trial for the next weight.
    """
    parts = asked.ws.split(AT_ONCE)
    if layer not in asked.begun:
        asked.begun.clear()
        asked.begun[layer] = [net.start(part, layer) for part in parts]
    states = zip(asked.begun[layer], parts, strict=True)
    return torch.cat([net.finish(state, part, {layer: weight}) for state, part in states])


def judge(asked: Trial, images: Tensor, margin: int) -> dict[str, float]:
    """Metrics of edited images ``[n, 3, s, s]`` of a trial's scenes.

    Args:
        margin: pixels around what should change that do not count as collateral.
    """
    if asked.target is not None:
        return _of_marks(asked, images, margin)
    after = Labelled(images, asked.look(images))
    found = success(asked.there, asked.met(after.labels))
    found |= collateral(asked.before, after, asked.there, margin, asked.without)
    if asked.truth is not None:
        found["counterfactual/psnr"] = psnr(images, asked.truth)
    if asked.rule.source is Label.WATERMARK:
        found["watermarks_per_1000"] = 1000 * marks(after.labels)
    return found


def _of_marks(asked: Trial, images: Tensor, margin: int) -> dict[str, float]:
    """How much of the way to the pasted image is left, and what else changed."""
    found = collateral(asked.before, Labelled(images, asked.before.labels), asked.there, margin, asked.without)
    del found["collateral/label_flips"]
    apart, first = ((asked.target - shown).abs().mean(1)[asked.there].mean() for shown in (images, asked.before.images))
    if first > 0:  # for a removal there is no target
        found["edit/left"] = float(apart / first)
    return found


def bounds(asked: Trial, margin: int) -> dict[str, float]:
    """The same of the unedited generator (what is measured when nothing is done) and of the ceiling."""
    reached = judge(asked, asked.ceiling.images, margin) if asked.ceiling else {}
    idle = judge(asked, asked.before.images, margin)
    names = {"edit/success": "success", "edit/image_success": "image_success", "counterfactual/psnr": "psnr"}
    found = {f"ceiling/{short}": reached[name] for name, short in names.items() if name in reached}
    for name in ("counterfactual/psnr", "watermarks_per_1000"):
        if name in idle:
            found[f"unedited/{name.removeprefix('counterfactual/')}"] = idle[name]
    return found


def marks(labels: Tensor) -> float:
    """Share of images in which more than half of the watermark's pixels show it, in either of its places."""
    size = labels.shape[-1]
    template = scenes.sample(2, 1, torch.Generator().manual_seed(0))
    template = template.but(mark=torch.tensor([1, 2]))
    places = (scenes.render(template, size)[1] == Label.WATERMARK).to(labels.device)  # [2, s, s]
    shown = (labels == Label.WATERMARK).float()
    shares = torch.einsum("nhw,phw->np", shown, places.float()) / places.flatten(1).sum(1)
    return float((shares > 0.5).any(1).float().mean())


@torch.no_grad()
def oracle(
    generator: SceneGenerator, asked: Trial, layer: int, margin: int, copy: Marked | None = None
) -> dict[str, float]:
    """What a layer can do: its value replaced by the right one where it should change, weights untouched.

    The right one is the counterfactual's or a donor's; where the generator can draw neither, it is the copied thing's,
    laid over every place, and where nothing is copied, nothing is said. Later layers keep the scene's own styles. A
    layer whose oracle fails holds another rule than the one that is wanted: no change of its weights will do.
    """
    if asked.target is not None:
        return {}
    images, right, differs = [], right_one(asked), asked.there
    if asked.truth is not None:
        differs = scenes.render(asked.factors, generator.size)[1] != scenes.render(asked.other, generator.size)[1]
    if right is None and copy is None:
        return {}
    for first in range(0, len(asked.ws), AT_ONCE):
        part = slice(first, first + AT_ONCE)
        if right is not None:
            value = generator.synthesis.start(generator.ws(right.rows(part)), layer + 1)[0]
            masks = [at_size(mask, value.shape[-1]) > 0 for mask in grown(differs[part], 1)]
            alpha = torch.stack(masks).float()
        else:
            value, alpha = _laid_over(generator, asked.ws[part], layer, copy, differs[part])
        images.append(feature_paste(generator.synthesis, layer, asked.ws[part], value, alpha))
    found = judge(asked, torch.cat(images), margin)
    return {"oracle/success": found.get("edit/success", 0.0), "oracle/l1_outside": found["collateral/l1_outside"]}


def right_one(asked: Trial) -> Factors | None:
    """Scenes that show what is wanted where it is wanted, if the generator can draw such."""
    if asked.truth is None:
        return None
    return asked.other if asked.rule.drawable else asked.rule.donor and asked.rule.donor(asked.factors)


def _laid_over(
    generator: SceneGenerator, ws: Tensor, layer: int, copy: Marked, places: Tensor
) -> tuple[Tensor, Tensor]:
    """Values of a layer with a copied thing's in every connected place, and where they differ from the layer's own."""
    copied = generator.synthesis.start(copy.ws.unsqueeze(0), layer + 1)[0][0]
    values = generator.synthesis.start(ws, layer + 1)[0].clone()
    size, alpha = values.shape[-1], torch.zeros(len(ws), *values.shape[-2:], device=ws.device)
    mask = at_size(copy.mask, size)
    for row, place in enumerate(places):
        pieces, count = connected(place)
        for number in range(1, count + 1):
            there = at_size(pieces == number, size)
            values[row], box = pasted(copied, mask, values[row], there)
            alpha[row, box.top : box.bottom, box.left : box.right] = 1
    return values, alpha


def best_layer(scan: list[dict[str, float]]) -> int:
    """Of the layers whose oracle does nearly what the best one's does, the last: it disturbs the least."""
    most = max(row["oracle/success"] for row in scan)
    return int(max(row["layer"] for row in scan if row["oracle/success"] >= NEARLY * most))
