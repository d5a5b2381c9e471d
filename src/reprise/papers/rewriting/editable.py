"""A generator as an editor sees it: numbered images, the styles they are made from, and the network that draws them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from reprise.data import scenes
from reprise.errors import UserError
from reprise.papers.rewriting.checkpoints import Checkpoint, read
from reprise.papers.rewriting.generator import SceneGenerator
from reprise.papers.rewriting.network import Network
from reprise.papers.rewriting.rewriter import Rewriter
from reprise.randomness import generator as seeded

IMAGES = 1000  # numbered images, as many as the paper's tool has
SEED = 1


@dataclass(frozen=True)
class Editable:
    """What can be edited.

    Attributes:
        synthesis: the network.
        sample: gives the styles ``[n, slots, style]`` of the images with some numbers, always the same.
        fingerprint: of the generator, which its edits carry.
        title: for people.
        images: their numbers are 0 to one less.
    """

    synthesis: Network
    sample: Callable[[Sequence[int]], Tensor]
    fingerprint: str
    title: str
    images: int = IMAGES

    def rewriter(self, moments: int | None = None) -> Rewriter:
        """The engine for it; ``moments``: numbered images whose keys give C, ``None`` = all."""
        images = min(moments or self.images, self.images)
        return Rewriter(self.synthesis, lambda count: self.sample(range(count)), images, self.fingerprint)

    def on(self, device: torch.device) -> Editable:
        """The same on a device; the network itself moves there."""
        sample = self.sample
        return replace(self, synthesis=self.synthesis.to(device), sample=lambda numbers: sample(numbers).to(device))

    def numbers(self, text: str, most: int) -> list[int]:
        """Numbers of images from words like ``0-31, 200``.

        Raises:
            UserError: no such words, an image that is not there, or more than ``most``.
        """
        found: list[int] = []
        for word in text.split(","):
            first, _, last = (part.strip() for part in word.partition("-"))
            last = last or first
            if not all(part.isascii() and part.isdigit() and len(part) < 10 for part in (first, last)):
                raise UserError(f"{word.strip()[:40]!r} is no image number: write something like 0-31, 200.")
            low, high = int(first), int(last)
            if low > high or high >= self.images:
                raise UserError(f"{word.strip()} names images that are not there: they are 0 to {self.images - 1}.")
            if len(found) + high - low >= most:
                raise UserError(f"{text[:40]} are too many images at once: choose 1 to {most}.")
            found.extend(range(low, high + 1))
        return found


def of_scenes(generator: SceneGenerator, title: str) -> Editable:
    """A generator of scenes; its images are scenes drawn once and for all."""
    generator.eval().requires_grad_(False)
    factors = scenes.sample(IMAGES, generator.plan.buildings, seeded(SEED))
    styles = generator.ws(factors.to(generator.device))
    return Editable(generator.synthesis, lambda numbers: styles[list(numbers)], generator.fingerprint, title)


def default_generator() -> Path:
    """The file of the generator that comes with the suite."""
    return Path(__file__).parent / "assets" / "scenes_32.safetensors"


def of_checkpoint(checkpoint: Checkpoint) -> Editable:
    """A generator of others; its images are made of the latents that the paper's tool numbers."""
    ws = checkpoint.ws
    return Editable(
        checkpoint.synthesis, lambda numbers: ws[list(numbers)], checkpoint.fingerprint, checkpoint.title, len(ws)
    )


def load(path: Path | None = None, psi: float = 0.5, trust: bool = False) -> Editable:
    """The generator in a file, or the one that comes with the suite.

    Args:
        path: of a generator of scenes (.safetensors), or a checkpoint of StyleGAN2 or ProGAN.
        psi, trust: of a checkpoint, see `reprise.papers.rewriting.checkpoints.read`.

    Raises:
        UserError: there is no such file, or it holds no generator.
    """
    path = path or default_generator()
    if path.suffix != ".safetensors":
        return of_checkpoint(read(path, psi, trust))
    if not path.is_file():
        raise UserError(f"there is no generator {path}: check the name.")
    size = (generator := SceneGenerator.load(path)[0]).size
    return of_scenes(generator, f"Scenes, {size} pixels (fitted to a renderer, not a GAN)")
