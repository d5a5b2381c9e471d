"""LPIPS of what an edit changed where nothing should have, the paper's measure; told where its network is at hand.

The weights are AlexNet's for ImageNet as torchvision keeps them. They are looked for and never fetched: a run must not
need the internet.
"""

from __future__ import annotations

import logging
import math
from pathlib import Path

import torch
from torch import Tensor
from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity
from torchvision.models import AlexNet_Weights

from reprise.papers.rewriting.metrics import grown

log = logging.getLogger("reprise")

PIXELS = 2**22  # at once
SMALLEST = 32  # pixels; nothing of a smaller image is left in AlexNet's last layers


def weights() -> Path:
    """Where torchvision keeps AlexNet's weights, be they there or not."""
    return Path(torch.hub.get_dir()) / "checkpoints" / Path(AlexNet_Weights.IMAGENET1K_V1.url).name


@torch.no_grad()
def lpips_outside(before: Tensor, after: Tensor, there: Tensor, margin: int) -> dict[str, float]:
    """The perceptual distance of images to what they were, with what should change put back.

    Args:
        before, after: images ``[n, 3, s, s]`` in -1..1.
        there: pixels that were to change ``[n, s, s]``.
        margin: pixels around them that do not count.

    Returns:
        ``collateral/lpips``, a mean over images, NaN where one is not finite; nothing without the network's weights,
        and of images that are too small for it.
    """
    if before.shape[-1] < SMALLEST or not weights().is_file():
        return {}
    if not (before.isfinite().all() and after.isfinite().all()):
        return {"collateral/lpips": math.nan}
    try:
        with torch.random.fork_rng(devices=[]):  # it draws weights before it reads them
            lpips = LearnedPerceptualImagePatchSimilarity("alex")
    except Exception as error:  # whatever a file that is cut short or is something else makes torch raise
        log.warning("%s cannot be read, and LPIPS is left out (%s)", weights(), " ".join(str(error).split())[:120])
        return {}
    lpips.to(before.device)
    after = torch.where(grown(there, margin).unsqueeze(1), before, after)
    at_once = max(1, PIXELS // before.shape[-1] ** 2)
    for one, other in zip(before.split(at_once), after.split(at_once), strict=True):
        lpips.update(one.clamp(-1, 1), other.clamp(-1, 1))
    return {"collateral/lpips": float(lpips.compute())}
