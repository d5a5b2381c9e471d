"""What an edit did, pixel by pixel, where the labels of all pixels are known.

Images are in -1..1 and labelled by the nearest colour among what a renderer would have painted there; L1 is the mean
absolute difference over colours.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

CHANGED = 0.5  # share of an image's source pixels that must have become the target for the image to count


@dataclass(frozen=True)
class Labelled:
    """Images ``[n, 3, s, s]`` in -1..1 with labels ``[n, s, s]``."""

    images: Tensor
    labels: Tensor


def grown(mask: Tensor, by: int) -> Tensor:
    """A mask ``[n, s, s]`` with all pixels that are at most so many away (in each direction)."""
    if not by:
        return mask
    return F.max_pool2d(mask.float().unsqueeze(1), 2 * by + 1, 1, by).squeeze(1) > 0


def success(there: Tensor, met: Tensor) -> dict[str, float]:
    """Of the pixels that were to change, how many show what is wanted; of the images that had any, how many changed.

    Pooled over all images, as in the paper's protocol; nothing where there are no such pixels.

    Args:
        there: pixels that were to change ``[n, s, s]``.
        met: pixels that show what is wanted, wherever they are ``[n, s, s]``.
    """
    became = there & met
    total = there.sum()
    if not total:
        return {}
    per_image = became.flatten(1).sum(1) / there.flatten(1).sum(1).clamp_min(1)
    having = there.flatten(1).any(1)
    return {
        "edit/success": float(became.sum() / total),
        "edit/image_success": float((per_image[having] > CHANGED).float().mean()),
    }


def collateral(
    before: Labelled, after: Labelled, there: Tensor, margin: int, without: Tensor | None = None
) -> dict[str, float]:
    """What changed that should not have.

    Args:
        there: pixels that were to change ``[n, s, s]``.
        margin: pixels around them that do not count.
        without: images ``[n]`` in which nothing was to change; ``None`` = those in which no pixel was. A segmenter sees
            stray pixels of a thing on edges, so that who knows better should say so.

    Returns:
        ``collateral/l1_outside``: mean absolute difference outside the grown pixels; ``collateral/label_flips``: share
        of pixels there whose label changed; ``collateral/unaffected_l1``: mean absolute difference of images in which
        nothing was to change, where there are any.
    """
    outside = ~grown(there, margin)
    apart = (after.images - before.images).abs().mean(1)
    flips = before.labels != after.labels
    found = {
        "collateral/l1_outside": float(apart[outside].mean()) if outside.any() else 0.0,
        "collateral/label_flips": float(flips[outside].float().mean()) if outside.any() else 0.0,
    }
    without = ~there.flatten(1).any(1) if without is None else without
    if without.any():
        found["collateral/unaffected_l1"] = float(apart[without].mean())
    return found


def psnr(images: Tensor, truth: Tensor) -> float:
    """Peak signal-to-noise ratio in decibels, mean over images in -1..1."""
    squared = (images - truth).square().flatten(1).mean(1).clamp_min(1e-10)
    return float((10 * torch.log10(4 / squared)).mean())


def recall(labels: Tensor, truth: Tensor, classes: int) -> Tensor:
    """Share of each class's true pixels that are labelled so ``[classes]``; NaN where a class has none."""
    right = torch.zeros(classes, device=labels.device).index_add_(
        0, truth.flatten(), (labels == truth).flatten().float()
    )
    return right / torch.bincount(truth.flatten(), minlength=classes)
