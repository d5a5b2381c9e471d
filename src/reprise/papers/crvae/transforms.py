"""Random transformations of images, parameters of its own for every image, one kernel for the batch.

Parity with torchvision: for given parameters each image equals what ``torchvision.transforms.functional`` makes of it.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from reprise.checks import NonNegativeFloat, checked
from reprise.errors import UserError

Interpolation = Literal["nearest", "bilinear"]
Probability = Annotated[float, Field(ge=0, le=1)]
GREY = (0.2989, 0.587, 0.114)  # torchvision's weights of red, green and blue in a grey image


class ImageTransformation:
    """A random affine map, after flips and before changes of colour (the order of the released file).

    Args:
        degrees: largest rotation to either side.
        translate: largest shift to either side, as a share of the side; whole pixels, as torchvision has it.
        scale: smallest and largest factor of size.
        horizontal_flip, vertical_flip: probability of each.
        brightness, contrast: largest relative change to either side.
        hue: largest turn of the hues to either side, in turns; without effect on grey images.
        interpolation: ``nearest`` (torchvision's default, on which the released file relies) or ``bilinear``.

    Raises:
        UserError: a range that is empty or has no meaning.
    """

    kinds = ("image",)

    @checked
    def __init__(
        self,
        degrees: Annotated[float, Field(ge=0, le=180)] = 0.0,
        translate: Annotated[float, Field(ge=0, le=1)] = 0.0,
        scale: tuple[float, float] = (1.0, 1.0),
        horizontal_flip: Probability = 0.0,
        vertical_flip: Probability = 0.0,
        brightness: NonNegativeFloat = 0.0,
        contrast: NonNegativeFloat = 0.0,
        hue: Annotated[float, Field(ge=0, le=0.5)] = 0.0,
        interpolation: Interpolation = "bilinear",
    ) -> None:
        if not 0 < scale[0] <= scale[1] < math.inf:
            raise UserError(
                f"method.datamodule.transformation.scale={list(scale)} is no range of factors: give two positive "
                "numbers, the smaller one first."
            )
        self.degrees, self.translate, self.scale = degrees, translate, scale
        self.flips = {-1: horizontal_flip, -2: vertical_flip}
        self.brightness, self.contrast, self.hue, self.interpolation = brightness, contrast, hue, interpolation

    @property
    def title(self) -> str:
        """Ranges in a few words."""
        parts = []
        if self.degrees:
            parts.append(f"rotation {self.degrees:g}")
        if self.translate:
            parts.append(f"shift {self.translate:g}")
        if self.scale != (1.0, 1.0):
            parts.append(f"scale {self.scale[0]:g}-{self.scale[1]:g}")
        names = {-1: "mirror", -2: "upside down"}
        parts += [f"{names[axis]} {p:g}" for axis, p in self.flips.items() if p]
        parts += [
            f"{name} {value:g}"
            for name, value in (("brightness", self.brightness), ("contrast", self.contrast), ("hue", self.hue))
            if value
        ]
        return f"{', '.join(parts) or 'identity'} ({self.interpolation})"

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """x~ ``[n, C, H, W]`` in 0..1 of x ``[n, C, H, W]`` in 0..1."""

        def uniform(low: float, high: float, columns: int = 1) -> Tensor:
            shape = (len(x), columns)
            return low + (high - low) * torch.rand(shape, generator=generator, device=x.device, dtype=x.dtype)

        for axis, p in self.flips.items():
            if p:
                x = torch.where(uniform(0, 1).view(-1, 1, 1, 1) < p, x.flip(axis), x)
        if self.degrees or self.translate or self.scale != (1.0, 1.0):
            angle = uniform(-self.degrees, self.degrees)[:, 0]
            factor = uniform(*self.scale)[:, 0]
            sides = torch.tensor((x.shape[-1], x.shape[-2]), device=x.device, dtype=x.dtype)
            shift = (uniform(-self.translate, self.translate, 2) * sides).round()
            x = affine(x, angle, shift, factor, self.interpolation)
        if self.brightness:
            x = adjust_brightness(x, uniform(max(0.0, 1 - self.brightness), 1 + self.brightness)[:, 0])
        if self.contrast:
            x = adjust_contrast(x, uniform(max(0.0, 1 - self.contrast), 1 + self.contrast)[:, 0])
        if self.hue:
            x = adjust_hue(x, uniform(-self.hue, self.hue)[:, 0])
        return x


def affine(x: Tensor, degrees: Tensor, shift: Tensor, scale: Tensor, interpolation: Interpolation) -> Tensor:
    """Rotate, scale and shift every image by parameters of its own; what comes from outside is 0.

    Args:
        x: ``[n, C, H, W]``.
        degrees: ``[n]``, clockwise as seen on the screen.
        shift: ``[n, 2]``, pixels to the right and down.
        scale: ``[n]``, factors of size.
        interpolation: ``nearest`` or ``bilinear``.

    Returns:
        ``[n, C, H, W]``.
    """
    height, width = x.shape[-2:]
    angle = degrees * (math.pi / 180)
    cosine, sine = angle.cos() / scale, angle.sin() / scale
    # the inverse map, from places in the result to places in x, in pixels from the centre
    rows = torch.stack([torch.stack([cosine, sine], 1), torch.stack([-sine, cosine], 1)], 1)
    offset = -(rows @ shift.unsqueeze(2))
    # in units of half a side, which is what the sampler counts in
    sides = torch.tensor((width, height), device=x.device, dtype=x.dtype)
    theta = torch.cat([rows * (sides / sides.unsqueeze(1)), offset * (2 / sides).unsqueeze(1)], 2)
    return F.grid_sample(x, places(theta, height, width), interpolation, "zeros", align_corners=False)


def places(theta: Tensor, height: int, width: int) -> Tensor:
    """Where each pixel of the result comes from, as ``F.affine_grid`` has it for maps ``[n, 2, 3]``.

    Its matrix products of three columns take ten times as long as the sampling itself; sums over the two axes do not.
    The order of the sum is its own, so that on a processor the numbers are the same to the bit.

    Returns:
        ``[n, H, W, 2]``, right and down, the sides of an image at -1 and 1.
    """
    right, down = (
        torch.linspace(-1, 1, side, device=theta.device, dtype=theta.dtype) * (side - 1) / side
        for side in (width, height)
    )
    by_right, by_down, constant = theta.view(-1, 2, 3, 1, 1).unbind(2)
    return (by_right * right + by_down * down.unsqueeze(1) + constant).permute(0, 2, 3, 1)


def adjust_brightness(x: Tensor, factor: Tensor) -> Tensor:
    """Multiply each image ``[n, C, H, W]`` by its factor ``[n]``, cut to 0..1."""
    return (x * factor.view(-1, 1, 1, 1)).clamp(0, 1)


def adjust_contrast(x: Tensor, factor: Tensor) -> Tensor:
    """Move each image ``[n, C, H, W]`` from its mean grey value by its factor ``[n]``, cut to 0..1."""
    weights = torch.tensor(GREY if x.shape[1] == 3 else (1.0,) * x.shape[1], device=x.device, dtype=x.dtype)
    grey = (x * (weights if x.shape[1] == 3 else weights / len(weights)).view(1, -1, 1, 1)).sum(1, keepdim=True)
    mean, factor = grey.mean((1, 2, 3), keepdim=True), factor.view(-1, 1, 1, 1)
    return (factor * x + (1 - factor) * mean).clamp(0, 1)


def adjust_hue(x: Tensor, turn: Tensor) -> Tensor:
    """Turn the hues of each image ``[n, 3, H, W]`` by ``[n]`` turns, keeping saturation and value; grey ones stay."""
    if x.shape[1] != 3:
        return x
    value, low = x.amax(1), x.amin(1)
    spread = value - low
    red, green, blue = x.unbind(1)
    divisor = spread.clamp_min(torch.finfo(x.dtype).tiny)
    # in sixths of a turn, counted from where the largest of the three is alone
    sixth = torch.where(
        value == red,
        (green - blue) / divisor,
        torch.where(value == green, 2 + (blue - red) / divisor, 4 + (red - green) / divisor),
    )
    sixth = sixth + 6 * turn.view(-1, 1, 1)
    # each colour is the value less the spread times how far its own hue is, between 1 and 2 sixths
    parts = [value - spread * _ramp(sixth + shift) for shift in (5, 3, 1)]
    return torch.where((spread > 0).unsqueeze(1), torch.stack(parts, 1), x)


def _ramp(sixth: Tensor) -> Tensor:
    """Weight of the spread in a colour: 0 near its own hue, 1 far from it, in sixths of a turn."""
    place = sixth % 6
    return torch.minimum(place, 4 - place).clamp(0, 1)
