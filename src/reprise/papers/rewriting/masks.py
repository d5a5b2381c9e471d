"""Masks as pictures: painted in a browser, sent as PNG data URLs, brought to the images' grid, cleaned of strays."""

from __future__ import annotations

import base64
import binascii
import io
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from reprise.errors import UserError

PREFIX = "data:image/png;base64,"
WIDEST = 2048  # pixels of a mask's side
STRAY = 0.1  # of the largest piece: smaller ones of a context are taken for slips of the hand


@dataclass(frozen=True)
class Painted:
    """A mask ``[size, size]`` in 0..1 and what was noticed about it, one sentence each."""

    mask: Tensor
    warnings: tuple[str, ...] = ()


def painted(url: str, size: int, what: str, whole: bool = False) -> Painted:
    """A mask from its data URL, on the grid of the images, without stray pieces.

    A box is drawn around what is copied and where it is pasted, and one stray dot would stretch it: only the largest
    piece is kept. A context may have several pieces (``whole``): only those much smaller than the largest are dropped.

    Args:
        url: a PNG whose red channel is the mask where it is not transparent; of any size.
        size: pixels of the images' side.
        what: names the mask in sentences.

    Raises:
        UserError: no PNG, too large, or nothing painted.
    """
    drawn = from_url(url, what)
    kept, dropped = _cleaned(drawn > 0.5, STRAY if whole else 1.0)
    if not kept.any():
        raise UserError(f"the {what} mask is empty: paint something.")
    notes = [f"The {what} mask had {dropped} stray piece{'s' * (dropped > 1)}, left out."] if dropped else []
    return Painted(_on_grid(torch.from_numpy(np.where(kept, drawn, 0.0)).float(), size), tuple(notes))


def from_url(url: str, what: str) -> np.ndarray:
    """The mask ``[height, width]`` in 0..1 that a data URL holds, as it was painted.

    Raises:
        UserError: see `painted`.
    """
    wrong = f"the {what} mask is no PNG data URL: it must begin with {PREFIX} and hold an image."
    if not url.startswith(PREFIX):
        raise UserError(wrong)
    try:
        data = base64.b64decode(url[len(PREFIX) :], validate=True)
        image = Image.open(io.BytesIO(data), formats=["PNG"])  # reads the header alone
        if max(image.size) > WIDEST:
            raise UserError(f"the {what} mask has {image.size[0]}x{image.size[1]} pixels: {WIDEST} a side at most.")
        pixels = np.asarray(image.convert("RGBA"), dtype=np.float64) / 255
    except (binascii.Error, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(wrong) from error
    return np.where(pixels[..., 3] > 0, pixels[..., 0], 0.0)


def to_url(mask: Tensor) -> str:
    """A mask ``[h, w]`` in 0..1 as white on transparent, the way the editors paint it."""
    levels = (mask.clamp(0, 1) * 255).round().byte().cpu().numpy()
    pixels = np.stack([levels] * 3 + [np.where(levels > 0, 255, 0).astype(np.uint8)], -1)
    return png_url(Image.fromarray(pixels))


def png_url(image: Image.Image) -> str:
    """A picture as a data URL."""
    file = io.BytesIO()
    image.save(file, "png")
    return PREFIX + base64.b64encode(file.getvalue()).decode("ascii")


def _cleaned(mask: np.ndarray, share: float) -> tuple[np.ndarray, int]:
    """The largest connected piece and those with so large a share of it, and how many others there were."""
    from scipy.ndimage import label

    pieces, count = label(mask, np.ones((3, 3)))
    if not count:
        return mask, 0
    sizes = np.bincount(pieces.ravel())[1:]
    good = sizes >= share * sizes.max()
    if share == 1.0:  # one alone, should two be as large
        good = np.arange(count) == sizes.argmax()
    return np.concatenate([[False], good])[pieces], int(count - good.sum())


def _on_grid(mask: Tensor, size: int) -> Tensor:
    return F.interpolate(mask[None, None], (size, size), mode="area")[0, 0].clamp(0, 1)
