"""A stream of tasks made from one data set: permuted pixels, rotated images, or a split of the classes.

The images lie on the device as one tensor. A permuted or rotated task is a map of columns (a rotation with nearest
neighbours moves pixels and invents none), a split task is a choice of rows; no image is stored twice.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

Shape = tuple[int, ...]


class Stream(ABC):
    """Tasks that come one after another.

    Attributes:
        shape: of an image, (C, H, W).
        num_classes: per task.
        augment: whether training images are changed at random.
    """

    shape: Shape
    num_tasks: int
    num_classes: int
    augment: bool

    @abstractmethod
    def to(self, device: torch.device) -> Stream:
        """The same stream on another device."""

    @abstractmethod
    def size(self, task: int) -> int:
        """Number of training images of a task."""

    @abstractmethod
    def train_batch(
        self, tasks: Sequence[int], places: Tensor, generators: Sequence[torch.Generator]
    ) -> tuple[Tensor, Tensor]:
        """Images ``[T, B, C, H, W]`` and labels ``[T, B]`` at ``places [T, B]`` within each task's training images.

        ``generators``, one per task, serve augmentation alone: what a task sees does not depend on its neighbours.
        """

    @abstractmethod
    def test_set(self, task: int, limit: int | None = None) -> tuple[Tensor, Tensor]:
        """Test images ``[n, C, H, W]`` and labels ``[n]`` of a task, the first ``limit`` of them."""


@dataclass(frozen=True)
class Images:
    """Normalised images ``[N, D + C]`` (D = C*H*W), the last C columns what lies outside an image; labels ``[N]``."""

    x: Tensor
    y: Tensor


@dataclass(frozen=True)
class TaskStream(Stream):
    """Tasks over one data set that fits into memory.

    Attributes:
        kind: ``permuted``, ``rotated`` or ``split``.
        train, test: the images.
        shape: of an image, (C, H, W).
        num_classes: per task.
        columns: ``[K, D]``, for each task where its pixels come from; ``None`` for a split.
        train_rows, test_rows: per task its rows; ``None`` where every task has all.
        labels: ``[K, classes of the data set]`` label within the task, -1 for classes of other tasks; ``None`` where
            labels are those of the data set.
        augment: crop (after padding by 4) and mirror training images at random.
    """

    kind: str
    train: Images
    test: Images
    shape: Shape
    num_tasks: int
    num_classes: int
    columns: Tensor | None = None
    train_rows: tuple[Tensor, ...] | None = None
    test_rows: tuple[Tensor, ...] | None = None
    labels: Tensor | None = None
    augment: bool = False

    def to(self, device: torch.device) -> TaskStream:
        """The same stream on another device."""

        def moved(value: object) -> object:
            if isinstance(value, Images):
                return Images(value.x.to(device), value.y.to(device))
            if isinstance(value, Tensor):
                return value.to(device)
            if isinstance(value, tuple) and value and isinstance(value[0], Tensor):
                return tuple(v.to(device) for v in value)
            return value

        return replace(self, **{f.name: moved(getattr(self, f.name)) for f in fields(self)})

    def size(self, task: int) -> int:
        """Number of training images of a task."""
        return len(self.train.y) if self.train_rows is None else len(self.train_rows[task])

    def train_batch(
        self, tasks: Sequence[int], places: Tensor, generators: Sequence[torch.Generator]
    ) -> tuple[Tensor, Tensor]:
        """Images ``[T, B, C, H, W]`` and labels ``[T, B]``, see `Stream`."""
        rows = places
        if self.train_rows is not None:
            rows = torch.stack([self.train_rows[task][place] for task, place in zip(tasks, places, strict=True)])
        y = self.train.y[rows]
        if self.labels is not None:
            y = torch.stack([self.labels[task][one] for task, one in zip(tasks, y, strict=True)])
        if self.columns is None:
            x = self.train.x[:, : self._width].index_select(0, rows.flatten())
        else:
            # all rows first, then all columns: one kernel each, and the second reads what the first left in the cache
            sources = torch.stack([self.columns[task] for task in tasks])[:, None].expand(-1, rows.shape[1], -1)
            x = self.train.x.index_select(0, rows.flatten()).view(*rows.shape, -1).gather(2, sources)
        x = x.view(*rows.shape, *self.shape)
        return (crop_and_mirror(x, self.train.x[0, self._width :], generators), y) if self.augment else (x, y)

    def test_set(self, task: int, limit: int | None = None) -> tuple[Tensor, Tensor]:
        """Test images ``[n, C, H, W]`` and labels ``[n]`` of a task, the first ``limit`` of them."""
        rows = slice(limit) if self.test_rows is None else self.test_rows[task][:limit]
        x, y = self.test.x[rows], self.test.y[rows]
        x = x[:, : self._width] if self.columns is None else x.index_select(1, self.columns[task])
        return x.reshape(len(x), *self.shape), y if self.labels is None else self.labels[task][y]

    @property
    def _width(self) -> int:
        return math.prod(self.shape)


def crop_and_mirror(x: Tensor, outside: Tensor, generators: Sequence[torch.Generator], pad: int = 4) -> Tensor:
    """Each image padded, cropped at random to its old size, and mirrored with probability one half.

    Args:
        x: images ``[T, B, C, H, W]``.
        outside: value of the padding, per channel ``[C]``.
        generators: one per task, on the processor; each gives the same numbers whatever tasks stand beside its own.
        pad: pixels on every side.
    """
    (tasks, batch, channels, height, width), n = x.shape, x.shape[0] * x.shape[1]
    if len(generators) != tasks:
        raise ValueError(f"{tasks} tasks need as many generators, not {len(generators)}")
    draws = [torch.randint(2 * pad + 1, (2, batch), generator=g) - pad for g in generators]
    mirrored = [torch.rand(batch, generator=g) < 0.5 for g in generators]
    shift, mirror = torch.cat(draws, 1).to(x.device), torch.cat(mirrored).to(x.device)
    across = torch.arange(width, device=x.device).expand(n, width)
    across = torch.where(mirror[:, None], width - 1 - across, across) + shift[1, :, None]
    down = torch.arange(height, device=x.device) + shift[0, :, None]
    inside = ((down >= 0) & (down < height))[:, :, None] & ((across >= 0) & (across < width))[:, None, :]
    # clamping in place of padding: what lies outside is overwritten, and no larger copy is made
    place = down.clamp(0, height - 1)[:, :, None] * width + across.clamp(0, width - 1)[:, None, :]
    moved = x.reshape(n, channels, -1).gather(2, place.view(n, 1, -1).expand(-1, channels, -1))
    return torch.where(inside[:, None], moved.view(n, *x.shape[2:]), outside[:, None, None]).view(x.shape)
