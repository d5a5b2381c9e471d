"""Rendered street scenes: images whose every pixel is known, and what each would be had one thing been different.

A scene is drawn from factors (light, buildings with independent roofs, trees, windows, a watermark). The renderer is a
pure function of them, so that a change of one factor gives the counterfactual image, and labels are exact.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, fields, replace
from enum import IntEnum
from typing import Any

import torch
from torch import Tensor

from reprise.checks import NonNegativeInt, PositiveInt, checked
from reprise.data.base import DataSpec, Source, Split
from reprise.data.store import FileStore, sha256_of_arrays
from reprise.errors import UserError
from reprise.randomness import generator as seeded

SIDES = (32, 64, 128)  # pixels
BUILDINGS = (1, 2, 4)  # of a scene
CHUNK = 500  # scenes that are rendered at once
OVERSAMPLED = 2  # rays per pixel and side
WINDOWS = (1, 2)  # rows and columns of a building
GLYPHS = ("10101110", "11101000", "10101110")  # bits of the watermark, row by row
MARK = (0.56, 0.17)  # width and height of the watermark, in shares of the image
MARK_TOP = (0.36, 0.82)  # its upper edge in the middle and at the bottom


class Label(IntEnum):
    """What a pixel shows."""

    SKY = 0
    GROUND = 1
    WALL = 2
    FLAT_ROOF = 3
    DOME = 4
    SPIRE = 5
    TREE = 6
    WINDOW = 7
    LIT_WINDOW = 8
    REFLECTION = 9
    WATERMARK = 10


class Roof(IntEnum):
    """What stands on a building. No scene is drawn with a tree there; counterfactuals are."""

    FLAT = 0
    DOME = 1
    SPIRE = 2
    TREE = 3


# Red, green and blue in 0..1 before light and tint; chosen so that two of them mixed on an edge rarely give a third.
COLOURS = {
    Label.SKY: (0.45, 0.68, 0.95),
    Label.GROUND: (0.52, 0.38, 0.28),
    Label.WALL: (0.84, 0.80, 0.60),
    Label.FLAT_ROOF: (0.40, 0.26, 0.48),
    Label.DOME: (0.10, 0.74, 0.62),
    Label.SPIRE: (0.70, 0.12, 0.24),
    Label.TREE: (0.14, 0.44, 0.20),
    Label.WINDOW: (0.16, 0.20, 0.42),
    Label.LIT_WINDOW: (1.00, 0.88, 0.30),
    Label.REFLECTION: (0.98, 0.60, 0.25),
    Label.WATERMARK: (1.00, 1.00, 1.00),
}


@dataclass(frozen=True)
class Factors:
    """What is in n scenes of B buildings and B + 1 gaps for trees.

    Attributes:
        sky, light, ground, tint: ``[n]`` in -1..1, of the whole scene: brightness of the sky, of everything but the
            watermark, height of the ground and warmth of the walls.
        centre, width, height: ``[n, B]`` in -1..1, of each building within its own range.
        roof: `Roof` ``[n, B]``.
        windows, lit: ``[n, B]`` bool; a building without windows is never lit.
        tree: ``[n, B + 1]`` bool; tree_size: ``[n, B + 1]`` in -1..1.
        mark: ``[n]`` 0 = no watermark, 1 = in the middle, 2 = at the bottom.
        mirrored: ``[n]`` bool, whether lit windows shine on the ground; False inverts the rule of all scenes drawn:
            the ground then shines below windows that are dark.
    """

    sky: Tensor
    light: Tensor
    ground: Tensor
    tint: Tensor
    centre: Tensor
    width: Tensor
    height: Tensor
    roof: Tensor
    windows: Tensor
    lit: Tensor
    tree: Tensor
    tree_size: Tensor
    mark: Tensor
    mirrored: Tensor

    def __len__(self) -> int:
        return len(self.sky)

    def rows(self, part: Any) -> Factors:
        """Some scenes."""
        return Factors(**{f.name: getattr(self, f.name)[part] for f in fields(self)})

    def to(self, device: torch.device) -> Factors:
        """The same on a device."""
        return Factors(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})

    def rolled(self) -> Factors:
        """The same buildings, each in the room to the left of its own and the first one in the last."""
        names = ("centre", "width", "height", "roof", "windows", "lit")
        return self.but(**{name: getattr(self, name).roll(-1, 1) for name in names})

    def but(self, **changes: Tensor) -> Factors:
        """The counterfactual: the same scenes with some factors changed."""
        return replace(self, **changes)


@dataclass(frozen=True, kw_only=True)
class Scenes(Source):
    """Rendered scenes whose factors are known, too.

    Attributes:
        factors: of the images of ``train``.
        held: of those of ``test``.
    """

    factors: Factors
    held: Factors

    @property
    def buildings(self) -> int:
        """Of a scene."""
        return self.factors.roof.shape[1]


@checked
def load(
    *,
    name: str,
    store: FileStore,
    size: PositiveInt = 32,
    buildings: PositiveInt = 2,
    train: PositiveInt = 2000,
    test: PositiveInt = 300,
    seed: NonNegativeInt = 0,
) -> Scenes:
    """Draw and render scenes ``[N, 3, size, size]`` in 0..1, labelled by the roof of their first building.

    Args:
        size: 32, 64 or 128 pixels.
        buildings: of a scene, 1, 2 or 4.
        train, test: scenes.
        seed: of their factors.

    Raises:
        UserError: a size or a number of buildings that the renderer does not draw well.
    """
    if size not in SIDES:
        raise UserError(f"dataset.size={size} cannot be used: scenes have {', '.join(map(str, SIDES))} pixels a side.")
    if buildings not in BUILDINGS:
        raise UserError(
            f"dataset.buildings={buildings} cannot be used: scenes have {', '.join(map(str, BUILDINGS))} of them."
        )
    return _drawn(name, size, buildings, train, test, seed)


@functools.lru_cache(maxsize=1)  # the runs of a sweep see the same scenes
def _drawn(name: str, size: int, buildings: int, train: int, test: int, seed: int) -> Scenes:
    parts = []
    for number, count in enumerate((train, test)):
        factors = sample(count, buildings, seeded(seed, number))
        images = torch.cat([render(factors.rows(slice(i, i + CHUNK)), size)[0] for i in range(0, count, CHUNK)])
        parts.append((factors, Split(images, factors.roof[:, 0])))
    (factors, images), (held, unseen) = parts
    spec = DataSpec(
        name=name,
        task="classification",
        kind="image",
        shape=(3, size, size),
        classes=("flat", "dome", "spire"),
        origin="embedded",
        licence="Apache-2.0, as this suite",
        source="made up by this suite: street scenes of known content",
        checksum=sha256_of_arrays(images.x.numpy(), images.y.numpy()),
    )
    return Scenes(spec=spec, train=images, test=unseen, factors=factors, held=held)


def sample(count: int, buildings: int, generator: torch.Generator) -> Factors:
    """Factors of so many scenes, all independent of each other but for lit windows, which need windows."""
    device = generator.device

    def uniform(*shape: int) -> Tensor:
        return 2 * torch.rand(count, *shape, generator=generator, device=device) - 1

    def coin(p: float, *shape: int) -> Tensor:
        return torch.rand(count, *shape, generator=generator, device=device) < p

    windows = coin(0.7, buildings)
    return Factors(
        sky=uniform(),
        light=uniform(),
        ground=uniform(),
        tint=uniform(),
        centre=uniform(buildings),
        width=uniform(buildings),
        height=uniform(buildings),
        roof=torch.randint(0, 3, (count, buildings), generator=generator, device=device),
        windows=windows,
        lit=windows & coin(0.5, buildings),
        tree=coin(0.5, buildings + 1),
        tree_size=uniform(buildings + 1),
        mark=torch.randint(0, 3, (count,), generator=generator, device=device),
        mirrored=torch.ones(count, dtype=torch.bool, device=device),
    )


def render(factors: Factors, size: int) -> tuple[Tensor, Tensor]:
    """Draw scenes.

    Args:
        factors: n scenes.
        size: height and width in pixels.

    Returns:
        Images ``[n, 3, size, size]`` in 0..1, each pixel the mean of four rays, and labels ``[n, size, size]``, what
        most of them hit (the one painted last where they are even).
    """
    labels = _trace(factors, size * OVERSAMPLED)
    colours = _paint(factors, labels)
    image = torch.nn.functional.avg_pool2d(colours, OVERSAMPLED)
    rays = labels.unfold(1, OVERSAMPLED, OVERSAMPLED).unfold(2, OVERSAMPLED, OVERSAMPLED).flatten(3)
    votes = (rays.unsqueeze(-1) == rays.unsqueeze(-2)).sum(-1) * len(Label) + rays
    return image, rays.gather(3, votes.argmax(3, keepdim=True)).squeeze(3)


def _trace(f: Factors, side: int) -> Tensor:
    """What every ray hits ``[n, side, side]``, painted from the back to the front."""
    n, buildings = f.roof.shape
    steps = (torch.arange(side, device=f.sky.device) + 0.5) / side
    y, x = steps.view(1, -1, 1), steps.view(1, 1, -1)
    labels = torch.full((n, side, side), int(Label.SKY), device=f.sky.device)

    def put(mask: Tensor, label: Label) -> None:
        labels.masked_fill_(mask, int(label))

    horizon = _column(0.80 + 0.03 * f.ground)
    put(y > horizon, Label.GROUND)
    room = 1 / buildings
    for b in range(buildings):
        centre = _column(room * (b + 0.5 + 0.08 * f.centre[:, b]))
        half = _column(room * (0.27 + 0.04 * f.width[:, b]))
        top = horizon - _column(0.34 + 0.07 * f.height[:, b])
        inside = (x - centre).abs() <= half
        put(inside & (y > top) & (y <= horizon), Label.WALL)
        _roof(put, f.roof[:, b], x - centre, y - top, half)
        _openings(put, f.rows(slice(None)), b, x - centre, y, half, top, horizon)
    for gap in range(buildings + 1):
        at, size = room * min(max(gap, 0.12), buildings - 0.12), _column(0.075 + 0.02 * f.tree_size[:, gap])
        there = _column(f.tree[:, gap])
        crown = ((x - at) / size) ** 2 + ((y - horizon + 2.2 * size) / (1.5 * size)) ** 2 <= 1
        trunk = ((x - at).abs() < 0.2 * size) & (y <= horizon + 0.02) & (y > horizon - size)
        put(there & (crown | trunk), Label.TREE)
    for place, upper in enumerate(MARK_TOP, start=1):
        put(_column(f.mark == place) & _glyphs(x - (1 - MARK[0]) / 2, y - upper), Label.WATERMARK)
    return labels


def _column(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1)


def _roof(put: Any, kind: Tensor, x: Tensor, y: Tensor, half: Tensor) -> None:
    """On top of a wall: ``x`` from its middle, ``y`` from its upper edge downwards."""
    flat = (x.abs() <= 1.1 * half) & (y <= 0) & (y > -0.10)
    dome = ((x / half) ** 2 + (y / (1.1 * half)) ** 2 <= 1) & (y <= 0)
    spire = (y <= 0) & (y > -2.4 * half) & (x.abs() <= half * (1 + y / (2.4 * half)))
    tree = ((x / (0.9 * half)) ** 2 + ((y + 0.9 * half) / (1.1 * half)) ** 2 <= 1) & (y <= 0)
    for shape, roof, label in (
        (flat, Roof.FLAT, Label.FLAT_ROOF),
        (dome, Roof.DOME, Label.DOME),
        (spire, Roof.SPIRE, Label.SPIRE),
        (tree, Roof.TREE, Label.TREE),
    ):
        put(_column(kind == roof) & shape, label)


def _openings(put: Any, f: Factors, b: int, x: Tensor, y: Tensor, half: Tensor, top: Tensor, horizon: Tensor) -> None:
    """Windows, and what shines on the ground before them."""
    rows, columns = WINDOWS
    across = (x / half + 1) / 2 * columns  # 0 to columns over the wall
    down = (y - top) / (horizon - top) * (rows + 0.5)
    hole = (across % 1 > 0.18) & (across % 1 < 0.82) & (across > 0) & (across < columns)
    hole = hole & (down % 1 > 0.28) & (down % 1 < 0.9) & (down > 0) & (down < rows)
    there, lit = _column(f.windows[:, b]), _column(f.lit[:, b])
    put(there & ~lit & hole, Label.WINDOW)
    put(there & lit & hole, Label.LIT_WINDOW)
    shines = there & (lit == _column(f.mirrored))
    pool = (x.abs() < 0.8 * half) & (y > horizon + 0.03) & (y < horizon + 0.11)
    put(shines & pool, Label.REFLECTION)


def _glyphs(x: Tensor, y: Tensor) -> Tensor:
    """Where the watermark's bits are set; ``x`` and ``y`` from its upper left corner."""
    bits = torch.tensor([[bit == "1" for bit in row] for row in GLYPHS], device=x.device)
    column = (x / MARK[0] * bits.shape[1]).floor().long()
    row = (y / MARK[1] * bits.shape[0]).floor().long()
    inside = (column >= 0) & (column < bits.shape[1]) & (row >= 0) & (row < bits.shape[0])
    return inside & bits[row.clamp(0, bits.shape[0] - 1), column.clamp(0, bits.shape[1] - 1)]


def _paint(f: Factors, labels: Tensor) -> Tensor:
    """Colours ``[n, 3, side, side]`` in 0..1 of what the rays hit."""
    palette = torch.tensor([COLOURS[label] for label in Label], device=labels.device)
    colours = palette[labels].permute(0, 3, 1, 2)
    side = labels.shape[-1]
    height = torch.linspace(0, 1, side, device=labels.device).view(1, 1, -1, 1)
    sky = (labels == Label.SKY).unsqueeze(1)
    colours = torch.where(sky, colours + (0.25 * height + 0.12 * f.sky.view(-1, 1, 1, 1)), colours)
    warm = torch.tensor([0.06, 0.0, -0.10], device=labels.device).view(1, 3, 1, 1) * f.tint.view(-1, 1, 1, 1)
    colours = torch.where((labels == Label.WALL).unsqueeze(1), colours + warm, colours)
    lit = colours * (0.88 + 0.12 * f.light.view(-1, 1, 1, 1))
    return torch.where((labels == Label.WATERMARK).unsqueeze(1), colours, lit).clamp(0, 1)


def latents(factors: Factors) -> tuple[Tensor, Tensor]:
    """Numbers from which a generator can draw the scenes: ``[n, G]`` of the whole scene, ``[n, O]`` of its objects.

    Continuous factors have mean 0 and variance 1; each kind of a categorical one is a coordinate, 0 or 2 less its mean.
    """
    scale = math.sqrt(3)  # of a uniform distribution in -1..1

    def kinds(values: Tensor, count: int) -> Tensor:
        return (2 * torch.nn.functional.one_hot(values.long(), count).float() - 2 / count).flatten(1)

    whole = torch.stack([factors.sky, factors.light, factors.tint], 1) * scale
    numbers = [factors.ground.unsqueeze(1), factors.centre, factors.width, factors.height, factors.tree_size]
    window = factors.windows.long() + factors.lit.long()  # none, dark, lit
    objects = [
        torch.cat(numbers, 1) * scale,
        kinds(factors.roof, 3),
        kinds(window, 3),
        kinds(factors.tree, 2),
        kinds(factors.mark, 3),
    ]
    return whole, torch.cat(objects, 1)


def segment(factors: Factors, images: Tensor) -> Tensor:
    """The label ``[n, s, s]`` whose colour in its scene is nearest to each pixel of images ``[n, 3, s, s]`` in 0..1.

    A scene's light and tints are known, so that every class has one colour at every place. Pixels on an edge are of
    mixed colour and fall to either side, or to a third: the renderer's own images are segmented with such errors, too.
    """
    n, _, side, _ = images.shape
    nearest = torch.full((n, side, side), torch.inf, device=images.device)
    found = torch.zeros((n, side, side), dtype=torch.long, device=images.device)
    for label in Label:
        everywhere = torch.full((n, side, side), int(label), device=images.device)
        apart = (images - _paint(factors, everywhere)).square().sum(1)
        closer = apart < nearest
        nearest = torch.where(closer, apart, nearest)
        found = torch.where(closer, int(label), found)
    return found
