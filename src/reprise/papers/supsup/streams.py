"""A stream of tasks made from one data set: permuted pixels, rotated images, or a split of the classes.

The images lie on the device as one tensor. A permuted or rotated task is a map of columns (a rotation with nearest
neighbours moves pixels and invents none), a split task is a choice of rows; no image is stored twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Images:
    """Normalised images ``[N, D + C]`` (D = C*H*W), the last C columns what lies outside an image; labels ``[N]``."""

    x: Tensor
    y: Tensor


@dataclass(frozen=True)
class TaskStream:
    """Tasks over one data set.

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
        """Images ``[T, B, C, H, W]`` and labels ``[T, B]`` at ``places [T, B]`` within each task's training images.

        ``generators``, one per task, serve augmentation alone: what a task sees does not depend on its neighbours.
        """
        chosen = (
            places
            if self.train_rows is None
            else torch.stack([self.train_rows[task][place] for task, place in zip(tasks, places, strict=True)])
        )
        x = torch.stack([self._inputs(self.train, task, rows) for task, rows in zip(tasks, chosen, strict=True)])
        y = torch.stack([self._labels(self.train, task, rows) for task, rows in zip(tasks, chosen, strict=True)])
        if self.augment:
            x = torch.stack([crop_and_mirror(one, generator) for one, generator in zip(x, generators, strict=True)])
        return x, y

    def test_set(self, task: int, limit: int | None = None) -> tuple[Tensor, Tensor]:
        """Test images ``[n, C, H, W]`` and labels ``[n]`` of a task, the first ``limit`` of them."""
        rows = slice(limit) if self.test_rows is None else self.test_rows[task][:limit]
        return self._inputs(self.test, task, rows), self._labels(self.test, task, rows)

    def _inputs(self, images: Images, task: int, rows: Tensor | slice) -> Tensor:
        x = images.x[rows]
        width = images.x.shape[1] - self.shape[0]
        x = x[:, :width] if self.columns is None else x.index_select(1, self.columns[task])
        return x.reshape(len(x), *self.shape)

    def _labels(self, images: Images, task: int, rows: Tensor | slice) -> Tensor:
        y = images.y[rows]
        return y if self.labels is None else self.labels[task][y]


def crop_and_mirror(x: Tensor, generator: torch.Generator, pad: int = 4) -> Tensor:
    """Each image of ``[..., C, H, W]`` padded with zeros, cropped at random, and mirrored with probability one half."""
    flat = x.flatten(0, -4)
    n, _, height, width = flat.shape
    padded = torch.nn.functional.pad(flat, (pad, pad, pad, pad))
    draw = torch.randint(0, 2 * pad + 1, (2, n), generator=generator, device=generator.device).to(x.device)
    mirror = (torch.rand(n, generator=generator, device=generator.device) < 0.5).to(x.device)
    across = torch.arange(width, device=x.device).expand(n, width)
    across = torch.where(mirror[:, None], width - 1 - across, across) + draw[1, :, None]
    down = torch.arange(height, device=x.device) + draw[0, :, None]
    index = torch.arange(n, device=x.device)[:, None, None]
    out = padded.permute(0, 2, 3, 1)[index, down[:, :, None], across[:, None, :]]
    return out.permute(0, 3, 1, 2).reshape(x.shape)
