"""What an edit asks for: copy this, paste it there, and wherever the context is like here.

Masks are painted on images; a layer sees them at its own resolution, where a small one can vanish. That is said, not
passed over.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from reprise.errors import UserError
from reprise.papers.rewriting.network import Network


@dataclass(frozen=True)
class Marked:
    """An image, as the styles ``[slots, style]`` it is made from, and a mask ``[size, size]`` in 0..1 on it."""

    ws: Tensor
    mask: Tensor


@dataclass(frozen=True)
class Request:
    """Copy, paste and context. Without contexts the place of the paste is the context, as in the paper's code.

    Without a copy, what is at the place of the paste is to go.
    """

    copy: Marked | None
    paste: Marked
    context: tuple[Marked, ...] = ()

    @property
    def contexts(self) -> tuple[Marked, ...]:
        """Where the rule is to hold."""
        return self.context or (self.paste,)


@dataclass(frozen=True)
class Box:
    """Rows ``top`` to ``bottom`` and columns ``left`` to ``right`` of a grid, the ends not included."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def height(self) -> int:
        """Rows."""
        return self.bottom - self.top

    @property
    def width(self) -> int:
        """Columns."""
        return self.right - self.left

    def of(self, maps: Tensor) -> Tensor:
        """The part of maps ``[..., h, w]`` within."""
        return maps[..., self.top : self.bottom, self.left : self.right]


def at_size(mask: Tensor, size: int) -> Tensor:
    """A mask ``[S, S]`` on a grid ``[size, size]``: each cell has the share of it that is painted."""
    return F.interpolate(mask[None, None].float(), (size, size), mode="area")[0, 0]


def bounding_box(mask: Tensor, what: str) -> Box:
    """The smallest box around what a mask selects.

    Raises:
        UserError: it selects nothing; ``what`` names the mask.
    """
    rows, columns = mask.any(1).nonzero().ravel(), mask.any(0).nonzero().ravel()
    if not len(rows):
        raise UserError(
            f"the {what} mask is empty at the layer's resolution of {mask.shape[0]}x{mask.shape[1]}: paint a larger "
            "one, or choose a layer of finer resolution."
        )
    return Box(int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1)


def check_mask(mask: Tensor, size: int, what: str) -> None:
    """Refuse a mask that is not one of the image.

    Raises:
        UserError: another shape, or values that are no shares.
    """
    if tuple(mask.shape) != (size, size):
        raise UserError(f"the {what} mask has {tuple(mask.shape)} cells, the images have {size}x{size} pixels.")
    if not bool(((mask >= 0) & (mask <= 1)).all()):
        raise UserError(f"the {what} mask has values outside 0..1.")
    if not bool((mask > 0).any()):
        raise UserError(f"the {what} mask is empty: paint something.")


def pasted(copied: Tensor, copy_mask: Tensor, into: Tensor, paste_mask: Tensor) -> tuple[Tensor, Box]:
    """A value map with a part of another one in it: v*, and where it differs (paper, section 3; the code's paste).

    The copied box is centred on the paste's and moved inwards where it would reach over the edge; its mask blends.

    Args:
        copied, into: value maps ``[O, H, W]``.
        copy_mask, paste_mask: on the same grid, ``[H, W]``.

    Returns:
        v* ``[O, H, W]`` and the box that was pasted over.
    """
    source, place = bounding_box(copy_mask > 0, "copy"), bounding_box(paste_mask > 0, "paste")
    height, width = into.shape[1:]
    top = _inside((place.top + place.bottom) // 2 - source.height // 2, source.height, height)
    left = _inside((place.left + place.right) // 2 - source.width // 2, source.width, width)
    box = Box(top, left, top + source.height, left + source.width)
    alpha = source.of(copy_mask)
    target = into.clone()
    target[:, box.top : box.bottom, box.left : box.right] = (1 - alpha) * box.of(into) + alpha * source.of(copied)
    return target, box


def _inside(start: int, length: int, room: int) -> int:
    return max(0, min(start, room - length))


def context_keys(synthesis: Network, number: int, contexts: Sequence[Marked]) -> tuple[list[Tensor], list[Tensor]]:
    """Keys ``[I, h, w]`` of a layer for each context image, and its mask on their grid."""
    keys, _ = synthesis.key(number, torch.stack([context.ws for context in contexts]))
    return list(keys), [at_size(context.mask, keys.shape[-1]).to(keys.device) for context in contexts]
