"""Edit requests on scenes, with exact masks, and what every scene would be if the rule had changed.

A request is drawn as a user would choose it: some image with the thing to copy, one with the place to paste it, and a
few more in which the same context is marked. Pixels come from the renderer, so that no stray one spoils a mask.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from reprise.data import scenes
from reprise.data.scenes import Factors, Label, Roof
from reprise.errors import UserError
from reprise.papers.rewriting.request import bounding_box

TRIED = 400  # scenes among which those of a request are found
FEWEST = 6  # pixels of a thing that is worth copying, at 32 pixels a side; more at larger sides, by their area


@dataclass(frozen=True)
class SceneMask:
    """One scene and a mask ``[size, size]`` on it."""

    factors: Factors
    mask: Tensor


@dataclass(frozen=True)
class SceneRequest:
    """Copy, paste and context, before any generator has drawn them; a removal may go without a copy."""

    copy: SceneMask | None
    paste: SceneMask
    context: tuple[SceneMask, ...]


@dataclass(frozen=True)
class Rule:
    """What an edit is to change in all scenes.

    Attributes:
        name: on the command line.
        title: for people.
        source, target: labels of the pixels that change, and of what they become; for a removal the target is what lies
            behind, which differs from pixel to pixel, and ``None`` here.
        counterfactual: the scenes as they would be.
        copied: label of what is copied, ``None`` for a removal.
        drawable: whether the generator was ever shown what the rule makes; if not, what it could draw at most is taken
            from the renderer.
        donor: scenes that it can draw and that show, where something is to change, what is wanted there; ``None`` = the
            counterfactuals, if it can draw those.
        both: whether the rule goes both ways, so that what shows the target is to become the source where the
            counterfactual has it so.
        covered: whether a removal copies what lies behind from an image that does not show the source.
    """

    name: str
    title: str
    source: Label
    target: Label | None
    counterfactual: Callable[[Factors], Factors]
    copied: Label | None
    drawable: bool = True
    donor: Callable[[Factors], Factors] | None = None
    both: bool = False
    covered: bool = False

    @property
    def copies(self) -> bool:
        """Whether a request for it has something to copy."""
        return self.copied is not None or self.covered

    def met(self, labels: Tensor) -> Tensor:
        """Which labels are what the source is to become, for a rule that goes one way."""
        return labels != int(self.source) if self.target is None else labels == int(self.target)


def _roofs(source: Roof, target: Roof) -> Callable[[Factors], Factors]:
    return lambda f: f.but(roof=torch.where(f.roof == source, int(target), f.roof))


RULES = {
    rule.name: rule
    for rule in (
        Rule("dome_to_spire", "dome -> spire", Label.DOME, Label.SPIRE, _roofs(Roof.DOME, Roof.SPIRE), Label.SPIRE),
        Rule("dome_to_tree", "dome -> tree", Label.DOME, Label.TREE, _roofs(Roof.DOME, Roof.TREE), Label.TREE, False),
        Rule("flat_to_dome", "flat -> dome", Label.FLAT_ROOF, Label.DOME, _roofs(Roof.FLAT, Roof.DOME), Label.DOME),
        Rule(
            "watermark",
            "watermark removed",
            Label.WATERMARK,
            None,
            lambda f: f.but(mark=torch.zeros_like(f.mark)),
            None,
        ),
        Rule(
            "watermark_covered",
            "watermark covered",
            Label.WATERMARK,
            None,
            lambda f: f.but(mark=torch.zeros_like(f.mark)),
            None,
            covered=True,
        ),
        Rule(
            "windows",
            "windows removed",
            Label.WINDOW,
            Label.WALL,
            lambda f: f.but(windows=f.windows & f.lit, lit=f.lit),
            None,
        ),
        Rule(
            "reflection",
            "reflection inverted",
            Label.REFLECTION,
            Label.GROUND,
            lambda f: f.but(mirrored=~f.mirrored),
            Label.REFLECTION,
            False,
            lambda f: f.but(lit=f.windows & ~f.lit),
            both=True,
        ),
    )
}


def rule_of(name: str) -> Rule:
    """A rule by its name.

    Raises:
        UserError: there is none.
    """
    if name not in RULES:
        raise UserError(f"method.datamodule.edit={name} is not known: choose one of {', '.join(RULES)}.")
    return RULES[name]


def draw_request(
    rule: Rule,
    buildings: int,
    size: int,
    contexts: int,
    generator: torch.Generator,
    shown: Callable[[Factors], Tensor] | None = None,
) -> SceneRequest:
    """A request for a rule: different scenes for the copy, the paste and each context.

    What is copied is a single object (the largest connected piece of a label). The paste is marked where one object and
    what is to replace it differ, as someone would who paints where the new thing shall stand; what is to be removed is
    marked alone, and where it is to be covered, by a box around it. Contexts are all pixels of the source in an image.
    Scenes with a watermark are left out unless it is what the request is about. Where a rule goes both ways, a scene's
    own donor is copied, in place, or the scene into its donor; nothing else is marked (the paper's procedure for
    reflections).

    Args:
        shown: labels ``[n, size, size]`` of what a generator that does not heed all factors draws of scenes; what would
            be there if the rule were another nobody knows then, and the paste is all of an object.

    Raises:
        UserError: too few suitable scenes, which a tiny image or very many contexts can cause.
    """
    factors = scenes.sample(TRIED, buildings, generator)
    if rule.source is not Label.WATERMARK:
        factors = factors.but(mark=torch.zeros_like(factors.mark))
    labels = shown(factors) if shown else scenes.render(factors, size)[1]
    fewest = max(2, FEWEST * size * size // 1024)
    if rule.both:
        return _exchange(rule, factors, size, fewest, generator)
    whole = labels == int(rule.source)
    having = (whole.flatten(1).sum(1) >= fewest).nonzero().ravel().tolist()
    if len(having) < contexts + 1:
        raise UserError(
            f"method.datamodule.contexts={contexts} are more than the {max(0, len(having) - 1)} scenes with enough of "
            "it: lower them."
        )
    paste, *rest = having[: contexts + 1]
    chosen = tuple(SceneMask(factors.rows(slice(row, row + 1)), whole[row].float()) for row in rest)
    if rule.covered:
        return SceneRequest(*_covering(factors, whole, paste), chosen)
    scene, marked = factors.rows(slice(paste, paste + 1)), whole[paste]
    if not shown:
        marked = labels[paste] != scenes.render(rule.counterfactual(scene), size)[1][0]
    place = SceneMask(scene, largest_piece(marked).float())
    if rule.copied is None:  # nothing is copied to remove a thing: the mask says what goes
        return SceneRequest(None, place, chosen)
    things = labels == int(rule.copied)
    for row in range(TRIED):
        piece = largest_piece(things[row])
        if row not in having[: contexts + 1] and piece.sum() >= fewest:
            return SceneRequest(SceneMask(factors.rows(slice(row, row + 1)), piece.float()), place, chosen)
    raise UserError(f"no scene of {size} pixels has a {rule.copied.name.lower()} that is large enough to copy.")


def _covering(factors: Factors, whole: Tensor, paste: int) -> tuple[SceneMask, SceneMask]:
    """What is behind a thing, copied from the first scene that does not show it, and the scene that does.

    The box is a sixteenth of the image wider than the thing on every side: its blurred rim is to go with it.
    """
    size = whole.shape[-1]
    box, rim = bounding_box(whole[paste], "paste"), size // 16
    mask = torch.zeros(size, size)
    mask[max(0, box.top - rim) : box.bottom + rim, max(0, box.left - rim) : box.right + rim] = 1
    clean = int((~whole.flatten(1).any(1)).long().argmax())
    if whole[clean].any():
        raise UserError("every image shows what is to be covered, so that nothing shows what is behind it.")
    return tuple(SceneMask(factors.rows(slice(row, row + 1)), mask) for row in (clean, paste))


def _exchange(rule: Rule, factors: Factors, size: int, fewest: int, generator: torch.Generator) -> SceneRequest:
    """A scene and its donor, one copied into the other wherever the rule changes something; a coin says which."""
    labels = scenes.render(factors, size)[1]
    differs = labels != scenes.render(rule.counterfactual(factors), size)[1]
    row = int((differs.flatten(1).sum(1) >= fewest).long().argmax())
    scene, mask = factors.rows(slice(row, row + 1)), differs[row].float()
    pair = [SceneMask(rule.donor(scene), mask), SceneMask(scene, mask)]
    turn = int(torch.randint(0, 2, (), generator=generator))
    return SceneRequest(pair[turn], pair[1 - turn], ())


def connected(mask: Tensor) -> tuple[Tensor, int]:
    """The connected pieces of a mask ``[s, s]``, numbered from 1, and how many there are; neighbours share a side."""
    from scipy.ndimage import label

    pieces, count = label(mask.cpu().numpy())
    return torch.from_numpy(pieces).to(mask.device), count


def largest_piece(mask: Tensor) -> Tensor:
    """The largest connected piece of a mask ``[s, s]``."""
    pieces, count = connected(mask)
    if not count:
        return torch.zeros_like(mask)
    sizes = torch.bincount(pieces.flatten())
    sizes[0] = 0
    return pieces == int(sizes.argmax())
