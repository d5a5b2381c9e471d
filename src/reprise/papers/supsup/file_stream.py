"""Split tasks whose images stand in files (SplitImageNet): a task's images are decoded when the task begins.

In memory is the middle of each image of the present task, uint8, its shorter side scaled to 256 for images of 224.
Random crops are taken from that middle, where the official code takes them from the whole image; test images are the
official ones, to the bit.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from reprise.data.image_files import ImageFiles, decode
from reprise.papers.supsup.streams import Shape, Stream

AREA = (0.08, 1.0)  # of a random crop, as a share of the image
RATIO = (3 / 4, 4 / 3)  # of its width to its height
TRIES = 10


@dataclass
class FileStream(Stream):
    """Tasks over files.

    Attributes:
        train, test: the files.
        train_rows, test_rows: per task its rows.
        labels: ``[K, classes of the data set]`` label within the task, or ``None`` where labels are kept.
        mean, std: per channel.
        augment: random crops of any size, resized, and mirrored; else the middle, as for testing.
        device: where the images go.
    """

    train: ImageFiles
    test: ImageFiles
    train_rows: tuple[Tensor, ...]
    test_rows: tuple[Tensor, ...]
    shape: Shape
    num_tasks: int
    num_classes: int
    labels: Tensor | None
    mean: Sequence[float]
    std: Sequence[float]
    augment: bool = False
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    _training: dict[int, Tensor] = field(default_factory=dict, repr=False)
    _testing: dict[int, Tensor] = field(default_factory=dict, repr=False)

    def to(self, device: torch.device) -> FileStream:
        """The same stream, to be decoded onto another device."""
        return replace(self, device=torch.device(device), _training={}, _testing={})

    def size(self, task: int) -> int:
        """Number of training images of a task."""
        return len(self.train_rows[task])

    def train_batch(
        self, tasks: Sequence[int], places: Tensor, generators: Sequence[torch.Generator]
    ) -> tuple[Tensor, Tensor]:
        """Images ``[T, B, C, H, W]`` and labels ``[T, B]``, see `Stream`; the first batch of a task decodes it."""
        for past in self._training.keys() - set(tasks):
            del self._training[past]
        for task in tasks:
            if task not in self._training:
                self._training[task] = self._decoded(self.train, self.train_rows[task])
        x = [self._training[task][place] for task, place in zip(tasks, places, strict=True)]
        size = self.shape[1]
        if self.augment:
            x = [resized_crop(one.float(), size, generator) for one, generator in zip(x, generators, strict=True)]
        else:
            x = [self._middle(one).float() for one in x]
        rows = [self.train_rows[task][place.cpu()] for task, place in zip(tasks, places, strict=True)]
        y = [self._labels(self.train, task, row) for task, row in zip(tasks, rows, strict=True)]
        return self._normalised(torch.stack(x)), torch.stack(y)

    def test_set(self, task: int, limit: int | None = None) -> tuple[Tensor, Tensor]:
        """Test images ``[n, C, H, W]`` and labels ``[n]`` of a task; those of the last task asked for are kept."""
        rows = self.test_rows[task][:limit]
        kept = self._testing.get(task)
        if kept is None or len(kept) < len(rows):
            kept = self._middle(self._decoded(self.test, rows))
            self._testing.clear()
            self._testing[task] = kept
        return self._normalised(kept[: len(rows)].float()), self._labels(self.test, task, rows)

    def _decoded(self, files: ImageFiles, rows: Tensor) -> Tensor:
        """Images ``[n, C, side, side]``, uint8."""
        side = round(self.shape[1] * 8 / 7)  # 256 for 224
        images = torch.empty(len(rows), self.shape[0], side, side, dtype=torch.uint8)

        def put(place: int, row: int) -> None:
            images[place] = decode(files.root / files.names[row], side)

        with ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow works outside the interpreter's lock
            list(pool.map(put, range(len(rows)), rows.tolist()))
        return images.to(self.device)

    def _middle(self, images: Tensor) -> Tensor:
        size = self.shape[1]
        first = round((images.shape[-1] - size) / 2)
        return images[..., first : first + size, first : first + size]

    def _normalised(self, x: Tensor) -> Tensor:
        mean, std = (torch.tensor(v, device=x.device)[:, None, None] for v in (self.mean, self.std))
        return x.div(255).sub_(mean).div_(std)

    def _labels(self, files: ImageFiles, task: int, rows: Tensor) -> Tensor:
        y = files.y[rows]
        return (y if self.labels is None else self.labels[task][y]).to(self.device)


def resized_crop(x: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """A random part of each image ``[n, C, H, W]``, resized to ``[n, C, size, size]`` and mirrored every second time.

    The law of the parts is that of torchvision's ``RandomResizedCrop`` with its defaults; bilinear without
    antialiasing, which makes little difference where images are hardly larger than ``size``.
    """
    boxes = random_boxes(len(x), x.shape[2], x.shape[3], generator)
    mirror = torch.rand(len(x), generator=generator) < 0.5
    return crop_resize(x, boxes.to(x.device), mirror.to(x.device), size)


def random_boxes(n: int, height: int, width: int, generator: torch.Generator) -> Tensor:
    """Parts ``[n, 4]`` (top, left, height, width): the first of ten tries that fits, else a largest middle."""
    area = height * width * torch.empty(n, TRIES).uniform_(*AREA, generator=generator)
    log_ratio = torch.empty(n, TRIES).uniform_(math.log(RATIO[0]), math.log(RATIO[1]), generator=generator)
    place = torch.rand(2, n, generator=generator)
    ratio = log_ratio.exp()
    w, h = (area * ratio).sqrt().round().long(), (area / ratio).sqrt().round().long()
    fits = (w > 0) & (w <= width) & (h > 0) & (h <= height)
    first = fits.int().argmax(1, keepdim=True)
    w, h = w.gather(1, first).squeeze(1), h.gather(1, first).squeeze(1)
    top, left = (place[0] * (height - h + 1)).long(), (place[1] * (width - w + 1)).long()
    boxes = torch.stack([top, left, h, w], 1)
    mid_h, mid_w = min(height, round(width / RATIO[0])), min(width, round(height * RATIO[1]))
    middle = torch.tensor([(height - mid_h) // 2, (width - mid_w) // 2, mid_h, mid_w])
    return torch.where(fits.any(1, keepdim=True), boxes, middle)


def crop_resize(x: Tensor, boxes: Tensor, mirror: Tensor, size: int) -> Tensor:
    """Parts ``boxes [n, 4]`` of images ``[n, C, H, W]`` as ``[n, C, size, size]``, mirrored where ``mirror [n]``."""
    height, width = x.shape[2:]
    steps = (torch.arange(size, device=x.device) + 0.5) / size

    def along(first: Tensor, length: Tensor, whole: int, steps: Tensor) -> Tensor:
        """Where to read, in grid_sample's units; never beyond the part's own border pixels."""
        first, length = first[:, None], length[:, None]
        at = first + (steps * length - 0.5).clamp(min=0).minimum(length - 1.0)
        return (2 * at + 1) / whole - 1

    across = torch.where(mirror[:, None], steps.flip(0), steps)
    down = along(boxes[:, 0], boxes[:, 2], height, steps)[:, :, None].expand(-1, -1, size)
    across = along(boxes[:, 1], boxes[:, 3], width, across)[:, None, :].expand(-1, size, -1)
    return F.grid_sample(x, torch.stack([across, down], 3), align_corners=False, padding_mode="border")
