"""Tensors as pictures."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor

COLUMNS = 8
GAP = 2
WIDEST = 4096  # pixels of a sheet
HOT = (255, 214, 10)


def picture(image: Tensor, side: int | None = None) -> Image.Image:
    """An image ``[3, size, size]`` in -1..1, perhaps made smaller."""
    drawn = Image.fromarray(_bytes(image.unsqueeze(0))[0])
    return drawn if side is None or side >= drawn.width else drawn.resize((side, side), Image.Resampling.BOX)


def heat(values: Tensor, size: int) -> Image.Image:
    """A map ``[h, w]`` of matches as a glow over an image: nothing at 0, opaque at 1 and beyond."""
    level = (values.clamp(0, 1) ** 2 * 230).round().byte().cpu().numpy()
    colour = np.broadcast_to(np.array(HOT, np.uint8), (*level.shape, 3))
    return Image.fromarray(np.dstack([colour, level])).resize((size, size), Image.Resampling.BILINEAR)


def sheet(before: Tensor, after: Tensor) -> Image.Image:
    """Images ``[n, 3, size, size]`` in rows of eight, each row as it was and below it as it is."""
    size = before.shape[-1]
    step = size + GAP
    columns = max(1, min(COLUMNS, len(before), WIDEST // step))
    rows = -(-len(before) // columns)
    page = Image.new("RGB", (columns * step - GAP, rows * (2 * step + GAP) - 2 * GAP), "white")
    for number, pair in enumerate(zip(_bytes(before), _bytes(after), strict=True)):
        row, column = divmod(number, columns)
        for below, pixels in enumerate(pair):
            page.paste(Image.fromarray(pixels), (column * step, row * (2 * step + GAP) + below * step))
    return page


def _bytes(images: Tensor) -> np.ndarray:
    return ((images.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
