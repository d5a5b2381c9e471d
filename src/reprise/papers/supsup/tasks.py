"""What makes one task differ from the next: permutations of the pixels, rotations, groups of classes."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from reprise.errors import UserError

Seeds = Literal["official", "independent"]
ClassOrder = Literal["shuffled", "given"]


def permutations(num_tasks: int, shape: tuple[int, ...], seed: int, seeds: Seeds) -> Tensor:
    """Columns ``[K, C*H*W]`` of permuted tasks; a task permutes all channels alike, the first task included.

    Args:
        num_tasks: K.
        shape: of an image, (C, H, W).
        seed: of the run.
        seeds: ``official``: task i of seed s has NumPy's legacy seed i + s, as in the official code, so that seeds 0
            and 1 share all tasks but one. ``independent``: seeds share none.
    """
    channels, pixels = shape[0], shape[1] * shape[2]

    def order(task: int) -> np.ndarray:
        if seeds == "official":
            return np.random.RandomState((task + seed) % 2**32).permutation(pixels)
        return np.random.default_rng(np.random.SeedSequence((seed, task))).permutation(pixels)

    columns = np.empty((num_tasks, channels, pixels), dtype=np.int64)
    for task in range(num_tasks):
        columns[task] = order(task) + pixels * np.arange(channels)[:, None]
    return torch.from_numpy(columns.reshape(num_tasks, -1))


def rotations(num_tasks: int, shape: tuple[int, ...], angle: float) -> Tensor:
    """Columns ``[K, C*H*W]`` of rotated tasks; column C*H*W + c stands for what comes in from outside in channel c.

    Task i is turned by ``i * angle`` degrees, counter-clockwise, nearest neighbour: Pillow rotates the pixels' numbers.
    """
    from PIL import Image

    channels, height, width = shape
    pixels = height * width
    numbers = Image.fromarray(np.arange(1, pixels + 1, dtype=np.int32).reshape(height, width))
    columns = np.empty((num_tasks, channels, pixels), dtype=np.int64)
    for task in range(num_tasks):
        moved = np.asarray(numbers.rotate(task * angle, Image.Resampling.NEAREST)).reshape(-1).astype(np.int64) - 1
        for channel in range(channels):
            columns[task, channel] = np.where(moved < 0, channels * pixels + channel, moved + channel * pixels)
    return torch.from_numpy(columns.reshape(num_tasks, -1))


def class_groups(names: tuple[str, ...], per_task: int, order: ClassOrder, seed: int, dataset: str) -> np.ndarray:
    """Classes ``[K, per_task]`` of split tasks: all classes, shuffled (NumPy's legacy seed, as officially) or not.

    Raises:
        UserError: the classes do not divide into such tasks.
    """
    total = len(names)
    if per_task < 2 or total % per_task:
        fitting = ", ".join(str(k) for k in range(2, total + 1) if total % k == 0)
        raise UserError(
            f"method.datamodule.classes_per_task={per_task} does not divide the {total} classes of dataset={dataset} "
            f"into tasks of two classes or more: set it to one of {fitting}."
        )
    classes = np.random.RandomState(seed).permutation(total) if order == "shuffled" else np.arange(total)
    return classes.reshape(-1, per_task)


def fair_order(y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A random order of rows ``[N]`` whose first n have every class in its proportion, to about one image."""
    order = rng.permutation(len(y))
    share = np.empty(len(y))
    for label in np.unique(y):
        at = np.flatnonzero(y[order] == label)
        share[at] = (np.arange(len(at)) + 0.5) / len(at)
    return order[np.argsort(share, kind="stable")]


def rows_of(groups: np.ndarray, y: np.ndarray) -> tuple[Tensor, ...]:
    """Per task the rows whose class it has, in their order."""
    return tuple(torch.from_numpy(np.flatnonzero(np.isin(y, group))) for group in groups)


def labels_within(groups: np.ndarray, num_classes: int) -> Tensor:
    """Label of every class within each task ``[K, classes]``, -1 where the task lacks it."""
    labels = torch.full((len(groups), num_classes), -1)
    for task, group in enumerate(groups):
        labels[task, torch.from_numpy(group)] = torch.arange(len(group))
    return labels
